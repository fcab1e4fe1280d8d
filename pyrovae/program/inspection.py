"""What a program is made of, and whether per-datum evidence can be had from it."""

__all__ = ["Check", "aside", "check", "check_sites", "first_run", "inspect"]

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.program.densities import Program, each
from pyrovae.program.handlers import Parameters, Site, base, check_data, evaluation, sample_sites
from pyrovae.rows import Rows


def inspect(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *data: Tensor | Rows,
    plate: str | None = "data",
    block_size: int = 64,
) -> Program:
    """Returns the pair as a `Program`, having run it on its first rows.

    A program that does not broadcast over particles, or does so wrongly, will run one particle
    at a time, with a warning that names the site.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` where only the prior proposes.
        data: Tensors of equal length N.
        plate: Name of the plate over the data; `None` for a program with global latents.
        block_size: Rows of a block, at most.

    Raises:
        TypeError: If the data are not tensors.
        ValueError: If there is no such plate, the data have another length than it, a site stands
            outside it, guide and model differ in their latents, the guide is a point, or an
            observed value lies outside its site's support.
    """
    check_data(data)
    with aside():
        program = first_run(model, guide, data, plate, block_size)
        check_sites(program)
        program.check_observed(program.blocks(block_size)[0])
        trouble = _trouble(program, program.blocks(block_size)[0])
    if trouble:
        warnings.warn(
            f"the program runs one particle at a time, slowly: it {trouble}", stacklevel=3
        )
    return replace(program, trouble=trouble)


@contextmanager
def aside() -> Iterator[None]:
    """Runs its body as `evaluation` does, and leaves the random streams as they were."""
    with torch.random.fork_rng(), evaluation():
        yield


def first_run(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: tuple[Tensor | Rows, ...],
    plate: str | None,
    block_size: int = 64,
) -> Program:
    """Returns the program as its first run shows it: on a block if it takes one, else all rows."""
    num_data = len(data[0])
    first = num_data if plate is None else min(num_data, block_size)
    for size in sorted({first, num_data}):
        try:
            with Parameters() as parameters:
                model_sites, guide_sites = (
                    _trace(fn, *(d[:size] for d in data)) if fn else () for fn in (model, guide)
                )
        except Exception:
            if size < num_data:
                continue
            raise
        frames = [f for s in (*model_sites, *guide_sites) for f in s["cond_indep_stack"]]
        frame = _data_plate(frames, plate)
        feed, step = "slice" if size == first else "whole", size
        if frame is None:
            feed = "whole"
        elif frame.size != size:
            feed, step = "subsample", frame.size
            if frame.full_size != size:
                continue
        nesting = -min((f.dim for f in frames if f.vectorized), default=0)
        dim = frame.dim if frame else -1
        given = {s["name"] for s in guide_sites}
        enumerated = [s["name"] for s in model_sites if _summable(s) and s["name"] not in given]
        sites = model_sites, guide_sites, parameters.named(), tuple(enumerated)
        held = data if feed == "slice" else tuple(d[:] for d in data)  # not on disk
        return Program(model, guide, held, plate, feed, step, dim, nesting, *sites)
    raise ValueError(
        f"plate {plate!r} has {frame.size} elements but the data have {num_data} rows; "
        f"write `pyro.plate({plate!r}, len(x))`, with x the program's data argument"
    )


def _data_plate(frames: list[Any], plate: str | None) -> Any:
    """Returns the frame of the data plate, `None` without one."""
    if plate is None:
        return None
    names = sorted({repr(f.name) for f in frames})
    frame = next((f for f in frames if f.name == plate), None)
    if frame is None:
        raise ValueError(
            f"the program has no plate {plate!r}, only {', '.join(names) or 'none at all'}; "
            "name the plate over the data with plate=..., or pass plate=None for latents that "
            "all data share"
        )
    if not frame.vectorized:
        raise ValueError(
            f"plate {plate!r} is a loop; write `with pyro.plate({plate!r}, len(x)):` "
            "instead of `for`"
        )
    return frame


def _trace(fn: Callable[..., Any], *data: Tensor) -> tuple[Site, ...]:
    return tuple(sample_sites(poutine.trace(fn).get_trace(*data)))


def _summable(site: Site) -> bool:
    """Returns whether a latent site has finitely many values, to be summed out."""
    return not site["is_observed"] and bool(getattr(site["fn"], "has_enumerate_support", False))


def check_sites(program: Program) -> None:
    """Raises ValueError where sites do not admit per-datum weights p(x, z) / q(z|x)."""
    for site in (*program.model_sites, *program.guide_sites):
        if program.plate and program.plate not in {f.name for f in site["cond_indep_stack"]}:
            kind = "observed" if site["is_observed"] else "latent"
            raise ValueError(
                f"{kind} site {site['name']!r} stands outside plate {program.plate!r}; "
                "move it inside, or pass plate=None for latents that all data share"
            )
    latent = {s["name"] for s in program.model_sites if not s["is_observed"]}
    if not latent or len(latent) == len(program.model_sites):
        what = "has no latent site" if not latent else "observes nothing (no site has obs=x)"
        raise ValueError(f"the model {what}; log p(x) is about latents z and observed x")
    if program.guide is None:
        return
    guide = {s["name"]: s for s in program.guide_sites}
    if missing := sorted(latent - set(guide) - set(program.enumerated)):
        raise ValueError(
            f"the guide misses latent site {missing[0]!r} of the model; sample it there too"
        )
    own = {name for name, s in guide.items() if not s["infer"].get("is_auxiliary")}
    if extra := sorted(own - latent):
        raise ValueError(
            f"the guide samples {extra[0]!r}, which is no latent site of the model; "
            "rename it, or mark it infer={'is_auxiliary': True}"
        )
    points = sorted(
        n for n in own if own == set(guide) and isinstance(base(guide[n]["fn"]), Delta)
    )
    if points:
        raise ValueError(
            f"the guide is a point (Delta) at site {points[0]!r}; importance sampling needs a "
            "guide that covers the posterior"
        )


class _Last(Messenger):
    """Remembers the sample site that was run last."""

    site: Site | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        self.site = msg


def _trouble(program: Program, rows: range) -> str:
    """Returns how `program` fails to broadcast over particles, or ""; compares the same draws."""
    num_particles = 2 if len(rows) == 3 else 3
    last = _Last()
    try:
        with last:
            if program.guide is None:
                sites = program.run(program.model, rows, num_particles)
                z = {s["name"]: s["value"] for s in sites if not s["is_observed"]}
            else:
                z, _ = program.propose(rows, num_particles)
            fns = [fn for fn in (program.guide, program.model) if fn]
            together = [program.log_density(fn, z, rows, num_particles) for fn in fns]
    except (RuntimeError, ValueError, TypeError, IndexError) as e:
        if last.site is None:
            raise
        name, shape = last.site["name"], tuple(last.site["value"].shape)
        return (
            f"does not broadcast over particles (failed after site {name!r} of shape {shape}: "
            f"{str(e).splitlines()[0]})"
        )
    for fn, ours in zip(fns, together, strict=True):
        singly = torch.stack(
            [program.log_density(fn, z_s, rows) for z_s in each(z, num_particles)]
        )
        if not torch.allclose(ours, singly, rtol=1e-4, atol=1e-4, equal_nan=True):
            off = (ours - singly).abs().max().item()
            where = ", ".join(f"{name!r} of shape {tuple(v.shape)}" for name, v in z.items())
            who = "guide" if fn is program.guide else "model"
            return f"broadcasts wrongly: log p of the {who} at {where} is off by {off:.3g} nats"
    return ""


@dataclass(frozen=True, repr=False)
class Check:
    """What `check` found; as a string, the report it printed.

    Attributes:
        ok: Whether per-datum evidence can be had from the program, particles in parallel.
        verdict: The same in words, with the way out.
        sites: A line for each sample site.
    """

    ok: bool
    verdict: str
    sites: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Check(ok={self.ok})"

    def __str__(self) -> str:
        return "\n".join([*self.sites, ("ok: " if self.ok else "problem: ") + self.verdict])


def check(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *data: Tensor,
    plate: str | None = "data",
    block_size: int = 64,
) -> Check:
    """Prints what pyrovae sees in a program: sites, plates, shapes, what it cannot use and why.

    Vectorised log-densities are compared with one-by-one ones at the same draws, so that a program
    which broadcasts wrongly is caught. Nothing is raised: what is wrong stands in the verdict.
    Shapes are those of the first `block_size` rows. Returns the report.

    Example:
        >>> from pyrovae.models.vae import VAE
        >>> vae = VAE(x_dim=4, z_dim=2, hidden_dims=(3,))
        >>> check(vae.model, vae.guide, torch.ones(5, 4))
        model  z  latent    Normal     batch (5,)  event (2,)  plates data
        model  x  observed  Bernoulli  batch (5,)  event (4,)  plates data
        guide  z  latent    Normal     batch (5,)  event (2,)  plates data
        ok: 5 data in plate 'data', 8 parameters, particles in parallel
        Check(ok=True)
    """
    sites: tuple[str, ...] = ()
    ok = False
    try:
        check_data(data)
        with aside():
            program = first_run(model, guide, data, plate, block_size)
            sites = _table(program)
            check_sites(program)
            for rows in program.blocks(block_size):
                program.check_observed(rows)
            trouble = _trouble(program, program.blocks(block_size)[0])
        ok = not trouble
        where = f"plate {plate!r}" if plate else "one joint set"
        verdict = (
            f"{len(program)} data in {where}, {len(program.parameters)} parameters, "
            "particles in parallel"
        )
        if trouble:
            verdict = f"the program runs one particle at a time, slowly: it {trouble}"
    except Exception as e:
        why = str(e).partition("\n")[0]  # below it, Pyro lists the shapes of all sites
        ours = isinstance(e, TypeError | ValueError)
        verdict = why if ours else f"the program fails when run: {why}"
    report = Check(ok, verdict, sites)
    print(report)
    return report


def _table(program: Program) -> tuple[str, ...]:
    """Returns a line for each site, in columns."""
    rows = []
    for who, sites in (("model", program.model_sites), ("guide", program.guide_sites)):
        for s in sites:
            fn, kind = s["fn"], "observed" if s["is_observed"] else "latent"
            plates = ", ".join(f.name for f in s["cond_indep_stack"]) or "none"
            shapes = f"batch {tuple(fn.batch_shape)}", f"event {tuple(fn.event_shape)}"
            rows.append(
                (who, s["name"], kind, type(base(fn)).__name__, *shapes, f"plates {plates}")
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return tuple(
        "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows
    )
