"""Several estimators of log p(x) side by side, on the same data, in bounded memory."""

__all__ = ["contradicted", "evaluate", "planned"]

import platform
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import asdict, replace
from importlib.metadata import version
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyrovae.data.rows import Rows
from pyrovae.evidence.blocks import mapped, settings
from pyrovae.evidence.confirmed import Confirmation
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.estimators.base import FIELDS, Estimator
from pyrovae.evidence.planning import BLOCK_SIZE, Plan
from pyrovae.evidence.planning import plan as make_plan
from pyrovae.evidence.results import Evidence
from pyrovae.program import Program
from pyrovae.progress import Bar
from pyrovae.threads import one_at_a_time


@one_at_a_time
def evaluate(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *data: Tensor | Rows | DataLoader[Any],
    estimators: Iterable[Estimator | str] = ("elbo", "importance", "prior"),
    seed: int | None = None,
    plate: str | None = "data",
    block_size: int = BLOCK_SIZE,
    chunk_size: int | None = None,
    compile: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    protocol: Mapping[str, Any] | None = None,
    blocks: MutableMapping[str, dict[str, Any]] | None = None,
    **options: Any,
) -> Evidence:
    """Returns estimates of log p(x) for each datum by several estimators, same data, same K.

    Works in blocks of data: memory grows with neither N nor K beyond the per-datum results and one
    block's table. "elbo", "importance" and "jackknife" reduce the same draws.

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
        estimators: Objects, such as `pv.Importance(5_000)`, `pv.ELBO()`, `pv.Jackknife()`,
            `pv.Naive()`, `pv.AIS(100, 8)`, `pv.Quadrature()`; or their names, "importance",
            "elbo", "jackknife" (importance sampling, its bias corrected), "prior" (naive
            sampling), "ais" (annealing, from the guide if there is one), "quadrature" (up to
            three latent dimensions), "exact" (all latents are summed out), which stand for
            objects with `options`.
        seed: Fixes the draws: a block's depend on seed, proposal and its first row alone, those of
            "ais" also on its pilot.
        plate: Name of the plate over the data; `None` for log p of all data at once, as one datum.
        block_size: Data per block.
        chunk_size: Particles x data decoded at once; `None`: what the cores' caches hold.
        compile: Run log-weights, and the gradients of "ais", as compiled graphs, once some ten
            seconds have gone into making them; see `pyrovae.program.Captured`.
        workers: Processes that share the blocks, of one thread each: results are the same bytes
            for any number. `None` computes here with all threads, or wherever
            `joblib.parallel_config` says: Dask, Ray or Spark.
        progress: Show a bar; `None` does so on a terminal, and logs how far it is elsewhere.
        protocol: What is to stand beside the numbers, such as data set and binarization.
        blocks: Results of finished blocks of the same call, by name: what is there is not computed
            again, and what is computed is put there.
        options: Of the estimators that are named: `num_particles` (K, draws per datum and
            proposal, or "auto"; naive sampling then makes 5,000), `tolerance`, `max_particles`
            and `max_seconds` of "auto", `num_temperatures` and `num_chains` of "ais".

    Raises:
        TypeError: For an option that no estimator has.
        ValueError: For an unknown estimator, a program that gives no per-datum weights (see
            `pyrovae.check`), data outside their support, or NaN weights.
    """
    plan = make_plan(
        model,
        guide,
        data,
        estimators=estimators,
        seed=seed,
        plate=plate,
        block_size=block_size,
        chunk_size=chunk_size,
        compile=compile,
        workers=workers,
        **options,
    )
    done: MutableMapping[str, dict[str, Any]] = {} if blocks is None else blocks
    left = {name: task for name, task in plan.blocks.items() if name not in done}
    total, todo = (sum(len(rows) for _, rows in b.values()) for b in (plan.blocks, left))
    with Bar("log p(x)", total, total - todo, "datum", progress) as bar:
        for source in dict.fromkeys(source for source, _ in left.values()):
            plan = plan.prepared(source)
        records = mapped(plan.job, plan.programs, list(left.values()), workers)
        for (name, (_, rows)), record in zip(left.items(), records, strict=True):
            done[name] = record
            bar.update(len(rows))
        estimates = {name: _estimate(name, plan, done) for name in plan.estimators}
        estimates = _confirmed(estimates, plan, done)
    for name, e in estimates.items():
        if plan.estimators[name].exact:
            estimates[name] = contradicted(e, estimates.values())
    facts = _facts(next(iter(plan.programs.values())), plan)
    return Evidence(estimates, plan.grid, {**facts, **(protocol or {})})


def _estimate(name: str, plan: Plan, done: Mapping[str, dict[str, Tensor]]) -> Estimate:
    """Returns one estimator's results of all blocks."""
    own = plan.source(name)
    parts = [done[block] for block, (source, _) in plan.blocks.items() if source == own]
    columns: dict[str, Any] = {
        f: torch.cat([part[f"{name}.{f}"] for part in parts], dim=-1) for f in FIELDS
    }
    seconds = sum(part["seconds"].item() for part in parts)
    batches = None
    if "batches" in parts[0]:
        batches = torch.cat([part["batches"] for part in parts], dim=-1)
    return Estimate(name, **columns, seconds=seconds, tolerance=plan.tolerance, batches=batches)


def _confirmed(
    estimates: dict[str, Estimate], plan: Plan, done: MutableMapping[str, Any]
) -> dict[str, Estimate]:
    """Returns the estimates with what a second way says of those that look good."""
    confirmed = dict(estimates)
    for name, estimate in estimates.items():
        source, good = plan.source(name), estimate.good
        key, program = f"{source}-second", plan.programs[source]
        if plan.estimators[name].confirmed and (good.any() or not program.latent_size):
            if key not in done:
                work = plan.job.works[source]
                with settings(plan.workers, torch.get_default_dtype()):
                    second = plan.job.sources[source].confirm(program, estimate, good, work)
                done[key] = asdict(second)
            confirmed[name] = replace(estimate, confirmation=Confirmation(**done[key]))
    return confirmed


@one_at_a_time
def planned(
    model: Callable[..., Any], guide: Callable[..., Any] | None, *data: Any, **options: Any
) -> Plan:
    """Returns the plan of `evaluate` with these arguments, which makes all of its checks."""
    return make_plan(model, guide, data, **options)


def contradicted(exact: Estimate, others: Iterable[Estimate]) -> Estimate:
    """Returns quadrature with what unbiased estimates find beyond it as its error, where they do.

    They are above it by chance less often than by 4 of their standard errors.
    """
    value, error = exact.value, exact.std_error
    for other in others:
        if other.kind.biased:
            least = other.value + (1 - 4 * other.std_error).clamp(min=0).log()
            error = torch.where(least > value + error, other.value - value, error)
    return replace(exact, std_error=error)


def _facts(program: Program, plan: Plan) -> dict[str, Any]:
    """Returns what the numbers depend on, as far as the program and the call know it."""
    options: dict[str, Any] = {}
    for word, source in plan.job.sources.items():
        for name, value in source.options().items():
            again = word != source.draws_from or options.get(name, value) != value
            options[f"{name}_{word}" if again else name] = value
    options |= {"seed": plan.seed, "block_size": plan.block_size}
    return {
        "rows": len(program),
        "dims": program.event_size * (1 if program.plate else program.block_size),
        "discrete": program.is_discrete,
        **{k: int(v) if isinstance(v, Integral) else v for k, v in options.items()},
        **(
            {"common_latents": ", ".join(program.sites.common_latents)}
            if program.sites.common_latents
            else {}
        ),
        "dtype": str(program.data[0].dtype),
        "device": str(program.data[0].device),
        "model_sha256": program.sha256,
        "python": platform.python_version(),
        **{name: version(name) for name in ("pyrovae", "torch", "pyro-ppl")},
    }
