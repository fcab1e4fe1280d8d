"""What a program is made of, and whether per-datum evidence can be had from it."""

__all__ = ["Check", "check", "check_density", "check_sites", "factors_alone", "inspect"]

import contextlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import currentframe
from pathlib import Path

from pyrovae.errors import GuideError, NoDensity
from pyrovae.program.arguments import check_callables, explained
from pyrovae.program.auxiliaries import check_auxiliaries
from pyrovae.program.contexts import aside
from pyrovae.program.data_plate import traced
from pyrovae.program.densities import Program
from pyrovae.program.first import first_run, on_all_rows
from pyrovae.program.masks import check_masks
from pyrovae.program.points import check_common, condition_on_points
from pyrovae.program.sites import Site, base, is_factor, observes_data, vectorized
from pyrovae.program.trials import check_own_values, check_rows, check_steady, choose_particles
from pyrovae.text import aligned
from pyrovae.threads import one_at_a_time

SLOWLY = "the program runs one particle at a time, slowly: it {}"


def inspect(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: object,
    plate: str | None = "data",
    block_size: int = 64,
) -> Program:
    """Returns the pair as a `Program`, having run it on its first rows.

    A program that does not broadcast over particles takes them as further rows of data; one that
    cannot do that either runs one particle at a time, with a warning that names the site.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` where only the prior proposes.
        data: Its arguments. Tensors with an axis of length N are data; anything else (`None`,
            flags, sizes, modules) is handed on as it is.
        plate: Name of the plate over the data; `None` for the joint density of all data.
        block_size: Rows of a block, at most.

    Raises:
        TypeError: If the data are not tensors.
        ValueError: If there is no such plate, the data have another length than it, what is
            observed stands outside it, guide and model differ in their latents or plates, or
            running the program shows that its numbers would be wrong; see `trials`.
    """
    check_callables(model, guide)
    with aside(), explained(*data):
        program = validated(first_run(model, guide, data, plate, block_size), block_size)
    if not program.particles.parallel:
        warn(SLOWLY.format(program.particles.reason))
    return program


def validated(program: Program, block_size: int) -> Program:
    """Returns the program once its first block was found right.

    What the sites tell is checked first (`check_sites`, `points`, `auxiliaries`), then what only
    runs show: observed values, steady densities, sites that read what they score, masks, rows that
    do not depend on each other. Where rows cannot be taken in other blocks, all are taken at once.
    Last, its way of running particles is chosen.

    Args:
        program: As its first run has shown it.
        block_size: Rows of a block, at most.

    Raises:
        DataError: If an observed value lies outside its support.
        NoDensity: If no data are observed, and factors stand in their place.
        ValueError: If the numbers would be wrong otherwise.
    """
    rows = program.blocks(block_size)[0]
    _check_density(program)
    check_sites(program)
    check_common(program, rows)
    program = condition_on_points(program, rows)
    check_auxiliaries(program, rows)
    program.check_observed(rows)
    check_steady(program, rows)
    check_own_values(program, rows)
    program = check_masks(program, rows)
    if not check_rows(program, rows):
        program = on_all_rows(program)
        rows = program.blocks(block_size)[0]
        check_rows(program, rows)
    return choose_particles(program, rows)


def warn(message: str) -> None:
    """Warns of the user's line that called this package.

    Args:
        message: One sentence.
    """
    home, level, frame = str(Path(__file__).parents[1]), 1, currentframe()
    while frame is not None and frame.f_code.co_filename.startswith((home, contextlib.__file__)):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def check_density(model: Callable[..., object], *data: object, plate: str | None = "data") -> None:
    """Raises NoDensity where a model observes no data, and has factors in their place.

    With `pyro.factor` a model adds any number to its log-density. Beside what is observed that may
    be a part of a density; alone it is a function of x that nobody says integrates to 1.

    Args:
        model: A Pyro callable of `*data`.
        data: Its arguments, see `inspect`.
        plate: Name of the plate over the data; `None` for the joint density of all data.

    Raises:
        Exception: As `inspect`, where the model does not run.
    """
    with aside(), explained(*data):
        _check_density(first_run(model, None, data, plate))


def _check_density(program: Program) -> None:
    """Does what `check_density` says, of a program as its first run has shown it."""
    if names := _factors_alone(program.sites.model):
        raise NoDensity(names)


def factors_alone(model: Callable[..., object], *data: object) -> tuple[str, ...]:
    """Returns the names of a model's factors where it observes no data; none where it does.

    Args:
        model: A Pyro callable of `*data`.
        data: Its arguments, a few rows.
    """
    with aside(), explained(*data):
        return _factors_alone(traced(model, *data))


def _factors_alone(sites: tuple[Site, ...]) -> tuple[str, ...]:
    """Returns the names of the factors among a model's sites, if none of those observes data."""
    if any(observes_data(s) for s in sites):
        return ()
    return tuple(s["name"] for s in sites if is_factor(s))


def check_sites(program: Program) -> None:
    """Raises ValueError where sites do not admit per-datum weights p(x, z) / q(z|x).

    The model has to observe something, inside the data plate; guide and model need the same
    latents, in the same plates.

    Args:
        program: As its first run has shown it; no run is needed.
    """
    if not any(s["is_observed"] for s in program.sites.model):
        raise ValueError(
            "the model observes nothing (no site has obs=x); log p(x) is about observed x"
        )
    for s in program.sites.model:
        weighs = s["is_observed"] and not s["infer"].get("_deterministic")
        if program.sites.common(s) and (weighs or s["name"] in program.enumerated):
            kind = "observed" if s["is_observed"] else "discrete latent"
            raise ValueError(
                f"{kind} site {s['name']!r} stands outside plate {program.plate!r}; "
                "move it inside, or pass plate=None for log p of all data at once"
            )
    if program.guide is not None:
        _check_guide(program)


def _check_guide(program: Program) -> None:
    """Raises ValueError where the guide's sites or plates are not the model's."""
    drawn = {s["name"]: s for s in program.sites.guide if not s["is_observed"]}
    latents = {s["name"]: s for s in program.sites.model if not s["is_observed"]}
    _check_names(program, drawn, latents)
    common = program.sites.common
    for name in (n for n in latents if n in drawn):
        if common(drawn[name]) != common(latents[name]):
            inside, outside = ("model", "guide")[:: -1 if common(latents[name]) else 1]
            raise ValueError(
                f"latent site {name!r} stands outside plate {program.plate!r} in the {outside} "
                f"and inside it in the {inside}; put it into the same plates in both"
            )
    _check_plates(program, drawn.values())


def _check_names(program: Program, drawn: dict[str, Site], latents: dict[str, Site]) -> None:
    """Raises GuideError where the guide lacks a latent site, ValueError where it has one more.

    Args:
        program: Whose `enumerated` latents need no guide.
        drawn: The guide's sites that are not observed, by name.
        latents: The model's.
    """
    if missing := sorted(latents.keys() - drawn.keys() - set(program.enumerated)):
        raise GuideError(
            f"the guide misses latent site {missing[0]!r} of the model; sample it there too"
        )
    own = {name for name, s in drawn.items() if not s["infer"].get("is_auxiliary")}
    if extra := sorted(own - latents.keys()):
        raise ValueError(
            f"the guide samples {extra[0]!r}, which is no latent site of the model; "
            "rename it, or mark it infer={'is_auxiliary': True}"
        )


def _check_plates(program: Program, drawn: Iterable[Site]) -> None:
    """Raises ValueError where plates of these sites of the guide are not as in the model.

    Args:
        program: Which knows the model's.
        drawn: The guide's sites that are not observed.
    """
    frames = [f for s in drawn for f in vectorized(s)]
    for frame in frames:
        if frame.name == program.plate and frame.dim != program.sites.dim:
            raise ValueError(
                f"plate {frame.name!r} is dimension {program.sites.dim} of the model and "
                f"{frame.dim} of the guide; give it the same dim in both"
            )
    sizes = {f.name: f.size for s in program.sites.model for f in vectorized(s)}
    for frame in frames:
        if sizes.get(frame.name, frame.size) not in (frame.size, -1) and frame.size != -1:
            raise ValueError(
                f"plate {frame.name!r} has {sizes[frame.name]} elements in the model and "
                f"{frame.size} in the guide; give it the same number in both"
            )


@dataclass(frozen=True, repr=False)
class Check:
    """What `check` found.

    Attributes:
        ok: Whether per-datum evidence can be had from the program, particles in parallel.
        verdict: The same in words, with the way out.
        sites: A line for each sample site.
    """

    ok: bool
    verdict: str
    sites: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"Check(ok={self.ok})"

    @property
    def report(self) -> str:
        """What `check` printed: its sites and verdict, a line each."""
        return "\n".join([*self.sites, ("ok: " if self.ok else "problem: ") + self.verdict])


@one_at_a_time
def check(
    model: Callable[..., object],
    guide: Callable[..., object] | None,
    *data: object,
    plate: str | None = "data",
    block_size: int = 64,
) -> Check:
    """Prints what pyrovae sees in a program: sites, plates, shapes, what it cannot use and why.

    Vectorised log-densities are compared with one-by-one ones at the same draws, so that a program
    which broadcasts wrongly is caught. Nothing is raised: what is wrong stands in the verdict.
    Shapes are those of the first `block_size` rows. Returns what was found.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` where only the prior proposes.
        data: Its arguments, see `inspect`.
        plate: Name of the plate over the data; `None` for the joint density of all data.
        block_size: Rows of a block, at most.

    Example:
        >>> import torch
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
        check_callables(model, guide)
        with aside(), explained(*data):
            program = first_run(model, guide, data, plate, block_size)
            sites = _table(program)
            program = validated(program, block_size)
            for rows in program.blocks(block_size)[1:]:
                program.check_observed(rows)
        ok = program.particles.parallel
        where = f"plate {plate!r}" if plate else "one joint set"
        verdict = (
            f"{len(program)} data in {where}, {len(program.parameters)} parameters, "
            f"particles {'in parallel' if program.particles.vectorized else 'as further rows'}"
        )
        if not ok:
            verdict = SLOWLY.format(program.particles.reason)
    except Exception as e:
        why = str(e).partition("\n")[0]  # below it, Pyro lists the shapes of all sites
        ours = isinstance(e, TypeError | ValueError)
        verdict = why if ours else f"the program fails when run: {why}"
    found = Check(ok, verdict, sites)
    print(found.report)
    return found


def _table(program: Program) -> tuple[str, ...]:
    """Returns a line for each site of model and guide, in columns: name, kind, shapes, plates."""
    rows = []
    for who, sites in (("model", program.sites.model), ("guide", program.sites.guide)):
        for s in sites:
            fn, kind = s["fn"], "observed" if s["is_observed"] else "latent"
            plates = ", ".join(f.name for f in s["cond_indep_stack"]) or "none"
            shapes = f"batch {tuple(fn.batch_shape)}", f"event {tuple(fn.event_shape)}"
            rows.append(
                (who, s["name"], kind, type(base(fn)).__name__, *shapes, f"plates {plates}")
            )
    return tuple(aligned(rows, "<" * 7))
