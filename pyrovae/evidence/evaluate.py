"""Several estimators of log p(x) side by side, on the same data, in bounded memory."""

__all__ = ["evaluate"]

import platform
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import chain
from numbers import Integral
from typing import Any, TypeAlias, Unpack

import torch
from torch import Tensor

from pyrovae.checks import may_be_missing, shown
from pyrovae.data.rows import Rows, in_chunks
from pyrovae.evidence.blocks import mapped, settings
from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimate import Estimate, contradicted
from pyrovae.evidence.estimators.base import Estimator
from pyrovae.evidence.estimators.work import Columns, Guide
from pyrovae.evidence.planning import DEFAULT, Data, Options, Plan
from pyrovae.evidence.planning import plan as make_plan
from pyrovae.evidence.results import Evidence
from pyrovae.program import is_factor
from pyrovae.progress import Bar
from pyrovae.threads import one_at_a_time

Blocks: TypeAlias = MutableMapping[str, dict[str, Any]]  # results of blocks by name


@one_at_a_time
def evaluate(
    model: Callable[..., object],
    guide: Guide,
    *data: Data,
    estimators: Iterable[Estimator | str] | Estimator = DEFAULT,
    seed: int | None = None,
    progress: bool | None = None,
    protocol: Mapping[str, object] | None = None,
    blocks: Blocks | None = None,
    **options: Unpack[Options],
) -> Evidence:
    """Returns estimates of log p(x) for each datum by several estimators, same data, same K.

    Works in blocks of data: memory grows with neither N nor K beyond the per-datum results and one
    block's table. "elbo", "iwae", "importance" and "jackknife" reduce the same particles.

    What looks good is confirmed in a second, different way on a share of the data, as "ok" is a
    promise: on up to 256 data simulated from the model (48 of "ais"), whose exact z is known; see
    `pyrovae.evidence.confirmation`. Its draws are others than the estimates', which it never
    changes.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another; `None` if nothing is asked for that needs one.
        data: Tensors of equal length N; or one `torch.utils.data.DataLoader` of such, best one
            that does not shuffle: it is gone through once, onto the disk (`TMPDIR`), and results
            are in its order.
        estimators: Objects, such as `pv.Importance(5_000)`, `pv.ELBO()`, `pv.IWAE(50)`,
            `pv.Jackknife()`, `pv.Naive()`, `pv.AIS(100, 8)`, `pv.Quadrature()`; or their names,
            "best" (each datum's cheapest way to a tolerance, see `pv.Best`), "importance", "elbo",
            "iwae" (log-mean-exp by groups of k particles), "jackknife" (importance sampling, its
            bias corrected), "prior" (naive sampling), "ais" (annealing, from the guide if there is
            one), "quadrature" (up to three latent dimensions), "exact" (all latents are summed
            out), or import paths, "my_package.estimators.Mine", which stand for objects with
            `options`. One alone needs no list.
        seed: Fixes the draws: a block's depend on seed, proposal and its first row alone, those of
            "ais" also on its pilot.
        progress: Show a bar; `None` does so on a terminal, and logs how far it is elsewhere.
        protocol: What is to stand beside the numbers, such as data set and binarization.
        blocks: Results of finished blocks of the same call, by name: what is there is not computed
            again, and what is computed is put there.
        **options: How it is done, and what estimators that are named are to do:

            - `plate`: name of the plate over the data ("data"); `None` for log p of all data at
              once, as one datum.
            - `block_size`: data per block (64).
            - `chunk_size`: particles x data decoded at once (`None`: what the cores' caches hold).
            - `compile`: run log-weights, and the gradients of "ais", as compiled graphs, once some
              ten seconds have gone into making them; see `pyrovae.program.Captured`.
            - `workers`: processes that share the blocks, of one thread each: results are the same
              bytes for any number. `None` computes here with all threads, or wherever
              `joblib.parallel_config` says: Dask, Ray or Spark.
            - `num_particles`: K, particles per datum and proposal (5,000); or "auto" (naive
              sampling then makes 5,000).
            - `tolerance`, `max_particles`, `max_seconds`: of "auto", the standard error aimed at,
              nats (0.01), particles per datum at most (100,000), and the time after which it asks
              for no more.
            - `num_temperatures`, `num_chains`: of "ais", temperatures (100) and particles (8).
            - `iwae_k`: of "iwae", particles of a group (50).

    Raises:
        TypeError: For an option that there is not, or blocks that are no mapping.
        ValueError: For an unknown estimator, a program that gives no per-datum weights (see
            `pyrovae.check`), data outside their support, or NaN weights.
    """
    if not isinstance(blocks, MutableMapping | None):
        raise TypeError(f"blocks is {shown(blocks)}; give a dict, or another mutable mapping")
    plan = make_plan(model, guide, *data, estimators=estimators, seed=seed, **options)
    done: Blocks = {} if blocks is None else blocks
    plan = _computed(plan, done, progress)
    estimates = {name: _estimate(name, plan, done) for name in plan.estimators}
    estimates = {name: _confirmed(e, plan, done) for name, e in estimates.items()}
    every = tuple(estimates.values())
    for name, e in estimates.items():
        if plan.estimators[name].bound in ("exact", "lower"):
            estimates[name] = contradicted(e, every)
    facts = {**_facts(plan), **_target(model)}
    held = next(iter(plan.programs.values())).data  # of a DataLoader, what it gave
    marked = [held[i] for i in may_be_missing(model) if isinstance(held[i], Tensor | Rows)]
    rows = [x for x in marked if x.ndim > 1]  # and no labels, of which none may be known
    facts |= _missing(rows, float(str(facts["dims"])))
    return Evidence(estimates, plan.grid, {**facts, **(protocol or {})})


def _computed(plan: Plan, done: Blocks, progress: bool | None) -> Plan:
    """Returns the plan, with what was prepared, once all of its blocks are done."""
    left = {name: task for name, task in plan.blocks.items() if name not in done}
    total, todo = (sum(len(rows) for _, rows in b.values()) for b in (plan.blocks, left))
    with Bar("log p(x)", total, total - todo, "datum", progress) as bar:
        for source in dict.fromkeys(source for source, _ in left.values()):
            plan = plan.prepared(source)
        records = mapped(plan.job, plan.programs, list(left.values()), plan.workers)
        for (name, (_, rows)), record in zip(left.items(), records, strict=True):
            done[name] = dict(record)
            bar.update(len(rows))
    return plan


def _estimate(name: str, plan: Plan, done: Blocks) -> Estimate:
    """Returns one estimator's results, of all blocks of the source that it reads."""
    word, own = plan.source(name), f"{name}.extra."
    parts = [done[block] for block, (source, _) in plan.blocks.items() if source == word]

    def joined(field: str) -> Tensor:
        """Returns a column of all blocks, `(..., N)`."""
        return torch.cat([part[field] for part in parts], dim=-1)

    columns: dict[str, Any] = {field: joined(f"{name}.{field}") for field in Columns._fields}
    return Estimate(
        name,
        **columns,
        seconds=sum(part["seconds"].item() for part in parts),
        tolerance=plan.tolerance,
        batches=joined("batches") if "batches" in parts[0] else None,
        label=plan.label(name),
        extras={key.removeprefix(own): joined(key) for key in parts[0] if key.startswith(own)},
    )


def _confirmed(e: Estimate, plan: Plan, done: Blocks) -> Estimate:
    """Returns an estimate with what a second way says of it, where it looks good."""
    source = plan.source(e.name)
    key, program = f"{source}-second", plan.programs[source]
    other = e.kind.bound in ("exact", "mean")  # of which nobody asks how near log p(x) it is
    if other or not (e.good.any() or not program.latent_size):
        return e
    if key not in done:
        work = plan.job.works[source]
        with settings(plan.workers, torch.get_default_dtype()):
            second = plan.job.sources[source].confirm(program, e, e.good, work)
        done[key] = asdict(second)
    return replace(e, confirmation=Confirmation(**done[key]))


def _facts(plan: Plan) -> dict[str, object]:
    """Returns what the numbers depend on, as far as the program and the call know it."""
    program, common = next(iter(plan.programs.values())), {}
    options = {**_options(plan), "seed": plan.seed, "block_size": plan.block_size}
    if program.sites.common_latents:
        common = {"common_latents": ", ".join(program.sites.common_latents)}
    if factors := ", ".join(s["name"] for s in program.sites.model if is_factor(s)):
        common["factors"] = factors
    return {
        "rows": len(program),
        "dims": program.event_size * (1 if program.plate else program.block_size),
        "discrete": program.is_discrete,
        **{k: int(v) if isinstance(v, Integral) else v for k, v in options.items()},
        **common,
        "dtype": str(program.data[0].dtype),
        "device": str(program.data[0].device),
        "model_sha256": program.sha256,
        "python": platform.python_version(),
        **{name: version(name) for name in ("pyrovae", "torch", "pyro-ppl")},
    }


def _missing(data: Sequence[Tensor | Rows], dims: float) -> Mapping[str, object]:
    """Returns how much of the data is missing; nothing where nothing is.

    Args:
        data: Those in which NaN says so, `(N, ...)` each.
        dims: Dimensions of a datum.

    Returns:
        "missing", the share of their numbers; "dims", those of a datum that are seen, their mean;
        and "rows_unseen", how many data have none.
    """
    gaps = unseen = size = 0
    for _, chunk in chain.from_iterable(map(in_chunks, data)):
        nan = chunk.isnan().flatten(1)
        size += nan.numel()
        gaps, unseen = gaps + int(nan.sum()), unseen + int(nan.all(1).sum())
    if not gaps:
        return {}
    found = {"missing": f"{gaps / size:.1%}", "dims": dims - gaps / len(data[0])}
    return found | ({"rows_unseen": unseen} if unseen else {})


def _target(model: Callable[..., object]) -> dict[str, object]:
    """Returns what the evidence is, as a program says it of itself, where that is no log P(X).

    Args:
        model: A method of what has a `target`, as a `pv.Model` has, or any other callable.
    """
    said = getattr(getattr(model, "__self__", None), "target", None)
    other = isinstance(said, str) and said.startswith("log P(") and said != "log P(X)"
    return {"target": said} if other else {}


def _options(plan: Plan) -> dict[str, object]:
    """Returns the options of what is drawn, and those of its readers that are only theirs.

    One that differs from another of its name goes by the name of its estimator as well.
    """
    found: dict[str, object] = {}
    told = [(word, e.draws_from, e.options()) for word, e in plan.job.sources.items()]
    for name, e in plan.estimators.items():
        drawn = e.source.options()
        told.append((name, e.name, {k: v for k, v in e.options().items() if k not in drawn}))
    for word, usual, options in told:
        for name, value in options.items():
            if name.startswith(f"{usual}_"):
                name = name.replace(usual, word, 1)
            elif word != usual or found.get(name, value) != value:
                name = f"{name}_{word}"
            found[name] = value
    return found
