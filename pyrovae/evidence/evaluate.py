"""Several estimators of log p(x) side by side, on the same data, in bounded memory."""

__all__ = ["evaluate", "planned"]

import platform
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from inspect import signature
from math import inf
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyrovae.evidence.annealing import NUM_LEAPFROG, tune
from pyrovae.evidence.blocks import FIELDS, SOURCES, Job, mapped, settings
from pyrovae.evidence.confirmation import Confirmation, confirm_annealing, confirm_sampling
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.importance import BLOCK_SIZE
from pyrovae.evidence.planning import Plan
from pyrovae.evidence.planning import plan as make_plan
from pyrovae.evidence.results import Evidence
from pyrovae.program import Program
from pyrovae.progress import Bar
from pyrovae.rows import Rows
from pyrovae.threads import one_at_a_time


@one_at_a_time
def evaluate(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    *data: Tensor | Rows | DataLoader[Any],
    estimators: Sequence[str] = ("elbo", "importance", "prior"),
    num_particles: int | str = 5_000,
    tolerance: float = 0.01,
    max_particles: int = 100_000,
    max_seconds: float | None = None,
    num_temperatures: int = 100,
    num_chains: int = 8,
    seed: int | None = None,
    plate: str | None = "data",
    block_size: int = BLOCK_SIZE,
    chunk_size: int | None = None,
    compile: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    protocol: Mapping[str, Any] | None = None,
    blocks: MutableMapping[str, dict[str, Any]] | None = None,
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
        estimators: Of "elbo", "importance" (guide as proposal), "jackknife" (the same, its bias
            corrected), "prior" (naive sampling), "ais" (annealing, from the guide if there is
            one), "quadrature" (up to three latent dimensions).
        num_particles: K, samples per datum and proposal; or "auto", see `importance_sampling`
            (naive sampling then draws 5,000).
        tolerance: Standard error that "auto" aims at and verdicts then ask for, nats.
        max_particles: Draws per datum that "auto" makes at most.
        max_seconds: Time after which "auto" asks for no more.
        num_temperatures: Of "ais".
        num_chains: Annealing runs per datum of "ais".
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

    Raises:
        ValueError: For an unknown estimator, a program that gives no per-datum weights (see
            `pyrovae.check`), data outside their support, or NaN weights.
    """
    plan = make_plan(
        model,
        guide,
        data,
        estimators=estimators,
        num_particles=num_particles,
        tolerance=tolerance,
        max_particles=max_particles,
        max_seconds=max_seconds,
        num_temperatures=num_temperatures,
        num_chains=num_chains,
        seed=seed,
        plate=plate,
        block_size=block_size,
        chunk_size=chunk_size,
        compile=compile,
        workers=workers,
    )
    programs, job, auto = plan.programs, plan.job, num_particles == "auto"
    done: MutableMapping[str, dict[str, Any]] = {} if blocks is None else blocks
    left = {name: task for name, task in plan.blocks.items() if name not in done}
    total, todo = (sum(len(rows) for _, rows in b.values()) for b in (plan.blocks, left))
    with Bar("log p(x)", total, total - todo, "datum", progress) as bar:
        if "ais" in {source for source, _ in left.values()}:
            kernel = tune(programs["ais"], num_temperatures, "tuned", NUM_LEAPFROG, job.seed)
            job = replace(job, kernel=kernel)
        records = mapped(job, programs, list(left.values()), workers)
        for (name, (_, rows)), record in zip(left.items(), records, strict=True):
            done[name] = record
            bar.update(len(rows))
        estimates = {
            name: _estimate(
                name,
                [done[k] for k, (source, _) in plan.blocks.items() if source == SOURCES[name]],
                tolerance if auto else inf,
            )
            for name in plan.names
        }
        estimates = _confirmed(estimates, plan, job, done)
    if exact := estimates.get("quadrature"):
        estimates["quadrature"] = contradicted(exact, estimates.values())
    options = {"num_particles": num_particles}
    if auto:
        options |= {"tolerance": tolerance, "max_particles": max_particles}
    if "ais" in plan.names:
        options |= {"num_temperatures": num_temperatures, "num_chains": num_chains}
    facts = _facts(
        next(iter(programs.values())), {**options, "seed": job.seed, "block_size": block_size}
    )
    return Evidence(estimates, job.grid, {**facts, **(protocol or {})})


def _estimate(name: str, parts: list[dict[str, Tensor]], tolerance: float) -> Estimate:
    """Returns one estimator's results of all blocks."""
    columns: dict[str, Any] = {
        f: torch.cat([part[f"{name}.{f}"] for part in parts], dim=-1) for f in FIELDS
    }
    seconds = sum(part["seconds"].item() for part in parts)
    batches = None
    if "batches" in parts[0]:
        batches = torch.cat([part["batches"] for part in parts], dim=-1)
    return Estimate(name, **columns, seconds=seconds, tolerance=tolerance, batches=batches)


@one_at_a_time
def planned(
    model: Callable[..., Any], guide: Callable[..., Any] | None, *data: Any, **options: Any
) -> Plan:
    """Returns the plan of `evaluate` with these arguments, which makes all of its checks."""
    known = signature(evaluate).parameters.values()
    defaults = {p.name: p.default for p in known if p.kind is p.KEYWORD_ONLY}
    asked: dict[str, Any] = {
        name: value
        for name, value in {**defaults, **options}.items()
        if name not in ("progress", "protocol", "blocks")
    }
    return make_plan(model, guide, data, **asked)


def _confirmed(
    estimates: dict[str, Estimate], plan: Plan, job: Job, done: MutableMapping[str, Any]
) -> dict[str, Estimate]:
    """Returns the estimates with what a second way says of those that look good."""
    confirmed = dict(estimates)
    for name, estimate in estimates.items():
        source = SOURCES[name]
        key, good = f"{source}-second", estimate.good
        if source == "quadrature" or name == "elbo":
            continue
        if source in ("guide", "prior") and not plan.programs[source].latent_size:
            confirmed[name] = replace(estimate, confirmation=Confirmation())
        elif good.any():
            if key not in done:
                with settings(plan.workers, torch.get_default_dtype()):
                    done[key] = asdict(_second(estimate, good, plan, source, job))
            confirmed[name] = replace(estimate, confirmation=Confirmation(**done[key]))
    return confirmed


def _second(e: Estimate, good: Tensor, plan: Plan, source: str, job: Job) -> Confirmation:
    """Returns the confirmation of the estimates of one source."""
    program, seed = plan.programs[source], job.seed
    if source == "ais":
        kernel = job.kernel or tune(program, plan.num_temperatures, "tuned", NUM_LEAPFROG, seed)
        return confirm_annealing(program, kernel, job.num_chains, e.value, e.std_error, good, seed)
    how, chunk = job.draws[source], job.chunks[source]
    return confirm_sampling(program, how, e.num_draws[good], e.ess[good], seed, chunk)


def contradicted(exact: Estimate, others: Iterable[Estimate]) -> Estimate:
    """Returns quadrature with what unbiased estimates find beyond it as its error, where they do.

    They are above it by chance less often than by 4 of their standard errors.
    """
    value, error = exact.value, exact.std_error
    for other in others:
        if other.name in ("importance", "prior", "ais"):
            least = other.value + (1 - 4 * other.std_error).clamp(min=0).log()
            error = torch.where(least > value + error, other.value - value, error)
    return replace(exact, std_error=error)


def _facts(program: Program, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the numbers depend on, as far as the program and the call know it."""
    return {
        "rows": len(program),
        "dims": program.event_size * (1 if program.plate else program.step),
        "discrete": program.is_discrete,
        **{k: int(v) if isinstance(v, Integral) else v for k, v in options.items()},
        **(
            {"common_latents": ", ".join(program.common_latents)} if program.common_latents else {}
        ),
        "dtype": str(program.data[0].dtype),
        "device": str(program.data[0].device),
        "model_sha256": program.sha256,
        "python": platform.python_version(),
        **{name: version(name) for name in ("pyrovae", "torch", "pyro-ppl")},
    }
