"""Log p(x) by no more annealing than a datum needs, which other draws have told before.

n are the rows of a block, S the particles of a datum, T temperatures.
"""

__all__ = ["Cheapest", "Chosen", "chosen"]

from dataclasses import dataclass, field, replace
from math import ceil, log, sqrt

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from pyrovae.evidence.confirmation import gap_of, simulations
from pyrovae.evidence.reductions import annealed_well, verdicts
from pyrovae.evidence.samplers.laplace import Laplace
from pyrovae.evidence.samplers.paths import Path
from pyrovae.evidence.samplers.rungs import Climb, Elsewhere, Rung
from pyrovae.evidence.samplers.tuning import Kernel, Pilot, pilot
from pyrovae.evidence.weights import LogWeights
from pyrovae.program import Program
from pyrovae.rng import stream_seed

SPREAD, TRIED, SIMULATED, START, CALIBRATED, PRIOR = range(40, 46)  # random streams
DRAWS = 64  # of the start, by which a datum is told from others
SAMPLED = 512  # particles of importance sampling
NEAR = 1.0  # nats^2, variance of log w up to which the start is near enough for it
PARTICLES, LEAPFROGS = 8, 3  # of annealing: the cheapest for 50 latents of images
TEMPERATURES = 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048
HEAVY = 96  # of them, where importance sampling has a heavy tail
TRIED_FOR, PILOT = 32, (16, 64)  # temperatures, of the start's choice and of the fit
PILOT_DATA, PILOT_PARTICLES, RUNS = 32, 16, 8
TOGETHER = 128  # data
SIMULATIONS = 112  # data of a confirmation, beside 16
FAR = 10.0  # nats, beyond which a gap is no worse
OTHERS = (8, 12), (16, 64)  # particles and temperatures of another start, for all and for few
BACK, OTHER_LEAPFROGS = (2, 4), 2  # of those particles, that are run back; of their transitions
ROUGH = 0.25  # power of the weights of the first, which are too rough to choose by
SUSPECT = 6.0  # nats beyond a way's own particles, from which on the second have a look


@dataclass(frozen=True, repr=False, eq=False)
class Chosen(LogWeights):
    """Log-weights of as many temperatures as each datum needs.

    Attributes:
        temperatures: T of each, `(n,)`; 1 is importance sampling.
        missed: Where another start found mass that this one does not lead to, `(n,)`.
        scale: By which errors of annealing are let out.
    """

    temperatures: Tensor = field(default_factory=lambda: torch.empty(0))
    missed: Tensor = field(default_factory=lambda: torch.empty(0))
    scale: float = 1.0

    def std_error(self) -> Tensor:
        """Returns the standard error of `log_evidence`, `(n,)`, let out where it was annealed."""
        error = super().std_error()
        return torch.where(self.temperatures > 1, self.scale * error, error)


@dataclass(frozen=True)
class Cheapest:
    r"""How many temperatures a datum needs: by the spread of its log-weights under the start.

    .. math::
        \log \mathrm{var}_T(\log w) \approx a + b \log \mathrm{var}_1(\log w) - c \log T

    of which a, b and c are those of a pilot's data. The draws that tell are others than those that
    are then weighed: who stops where weights look good stops where large ones are yet to come.

    Attributes:
        rungs: The ways, from importance sampling to most temperatures.
        coefficients: a, b, c.
        tolerance: Standard error aimed at, nats.
        others: Annealing from the prior, in few and in more temperatures; none where all ways
            begin there.
        scale: By which stated errors are let out: eight particles hardly know of rare large ones.
    """

    rungs: tuple[Rung, ...]
    coefficients: tuple[float, float, float]
    tolerance: float
    others: tuple[Kernel, ...] = ()
    scale: float = 1.0

    @property
    def num_particles(self) -> int:
        """S of annealing."""
        return PARTICLES

    @property
    def num_others(self) -> int:
        """Simulated data of a confirmation: many, as few temperatures leave noisy gaps."""
        return SIMULATIONS

    @property
    def kernel(self) -> Kernel:
        """The transitions of most temperatures, which begin where all others do."""
        return self.rungs[-1].kernel

    def run(self, program: Program, rows: range, seed: int) -> Chosen:
        """Returns log-weights of a block, `(S, n)`, nats, and how they came about.

        Args:
            program: The pair and its data.
            rows: The n rows.
            seed: Of the evaluation.
        """
        ways, log_w = self._weighed(Climb(program, rows, self.rungs, seed, TOGETHER))
        return self._chosen(ways, log_w)

    def checked(self, program: Program, rows: range, seed: int) -> Chosen:
        """Returns the same as `run`, but for data of which another start finds mass elsewhere.

        Of those the answer is the larger one of both, and not to be trusted.

        Args:
            program: The pair and its data.
            rows: The n rows.
            seed: Of the evaluation.
        """
        climb = Climb(program, rows, self.rungs, seed, TOGETHER)
        ways, log_w = self._weighed(climb)
        found = self._chosen(ways, log_w)
        if not self.others:
            return found
        missed, other = self._missed(climb, ways, log_w.amax(0))
        if not len(missed):
            return found
        counts, temperatures = found.num_draws.clone(), found.temperatures.clone()
        more = other.logsumexp(0) - log(len(other)) > found.log_evidence()[missed]
        places = missed[more]
        log_w[:, places] = -torch.inf
        log_w[: len(other), places] = other[:, more]
        counts[places], temperatures[places] = OTHERS[1]
        found.missed[missed] = True
        return replace(
            found, log_w=log_w[: int(counts.max())], counts=counts, temperatures=temperatures
        )

    def _missed(self, climb: Climb, ways: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """Returns whose ways do not lead to all that another start finds, and what that weighs.

        Of each datum few particles are annealed from the prior in few temperatures. What they find
        and the way's start hardly draws is run back in few temperatures; where that goes beyond
        the way's own particles, more of more temperatures are run back by the way itself.

        Args:
            climb: Of the block.
            ways: Numbers of the data's ways, `(n,)`.
            highest: Their particles' largest log w, `(n,)`, nats.

        Returns:
            Places of m data, `(m,)`; log-weights of annealing from the prior, `(J, m)`, nats.
        """
        kernels, (few, many) = self.others, (size for size, _ in OTHERS)
        short, long = Elsewhere(climb, kernels[0], few, ROUGH), Elsewhere(climb, kernels[1], many)

        def beyond(i: int, todo: Tensor, num_runs: int) -> Tensor:
            return todo[~short.reaches(i, todo, highest[todo], num_runs, SUSPECT)]

        todo = beyond(0, torch.arange(climb.size), few)  # costs nothing: T is 1
        todo = torch.cat([todo[ways[todo] == 0], beyond(1, todo[ways[todo] > 0], BACK[0])])
        missed = []
        for i in ways[todo].unique().tolist():
            members = todo[ways[todo] == i]
            missed.append(members[~long.reaches(i, members, highest[members], BACK[1])])
        missed = torch.cat([todo[:0], *missed])
        return missed, long.log_w(missed)

    def back(self, program: Program, rows: range, seed: int, u: Tensor) -> Tensor:
        """Returns log w of a draw of the posterior, run back by the way of its datum, `(n,)`.

        Args:
            program: The pair and its data.
            rows: The n rows.
            seed: That of the runs forward.
            u: The draws, `(n, d)`, unconstrained.
        """
        climb = Climb(program, rows, self.rungs, seed, TOGETHER)
        ways, _ = self._ways(climb)
        log_w = torch.empty(climb.size, dtype=torch.float64)
        for i in ways.unique().tolist():
            members = torch.nonzero(ways == i)[:, 0]
            log_w[members] = climb.log_w_back(i, members, u[None])[0]
        return log_w

    def good(self, weights: LogWeights) -> Tensor:
        """Returns which data's weights look good, `(n,)`."""
        w = weights
        return looks_good(w.ess(), w.pareto_k(), w.std_error(), w.num_draws)

    def let_out(self, program: Program, seed: int) -> "Cheapest":
        r"""Returns the same, its errors let out until they cover what more runs find.

        Eight runs of up to 32 annealed data of 128, each by its way: as far as 95 % of

        .. math::
            |\log \hat w_m - \log \hat w_{-m}| / \mathrm{se}_m

        go beyond Student's quantile, the others' mean being the answer.

        Args:
            program: The pair and its data.
            seed: Of the evaluation.
        """
        program, rows = _some(program, TOGETHER)
        climb = Climb(program, rows, self.rungs, stream_seed(seed, CALIBRATED), TOGETHER)
        ways, _ = self._ways(climb)
        scores, some = [torch.zeros(1)], torch.nonzero(ways)[:, 0]
        some = some[:: ceil(len(some) / PILOT_DATA) or 1]
        for i in ways[some].unique().tolist():
            log_w = climb.log_w(i, some[ways[some] == i], RUNS)  # (M, S, m)
            runs = log_w.logsumexp(1)
            others = torch.stack([runs[torch.arange(RUNS) != m].logsumexp(0) for m in range(RUNS)])
            error = torch.stack([LogWeights(w).std_error() for w in log_w])
            scores.append(((runs - others + log(RUNS - 1)) / error).abs().reshape(-1))
        student = stdtrit(PARTICLES - 1, 0.975) * sqrt(RUNS / (RUNS - 1))
        scale = torch.cat(scores).nan_to_num(0.0).quantile(0.95).item() / student
        return replace(self, scale=max(1.0, scale))

    def longer(self) -> "Cheapest":
        """Returns the same with twice the temperatures of each way."""
        twice = [replace(r, kernel=r.kernel.refined(2 * r.temperatures)) for r in self.rungs[1:]]
        return replace(self, rungs=(self.rungs[0], *twice))

    @property
    def _heavy(self) -> int:
        """The way of data near the start, under which their weights have a heavy tail."""
        return max(i for i, rung in enumerate(self.rungs) if i == 1 or rung.temperatures <= HEAVY)

    def _weighed(self, climb: Climb) -> tuple[Tensor, Tensor]:
        """Returns the number of each datum's way, `(n,)`, and its log-weights, `(512, n)`, nats.

        Args:
            climb: Of the block.
        """
        ways, log_w = self._ways(climb)
        for i in ways[ways > 0].unique().tolist():
            members = torch.nonzero(ways == i)[:, 0]
            log_w[:, members] = -torch.inf
            log_w[:PARTICLES, members] = climb.log_w(i, members, 1)[0]
        return ways, log_w

    def _chosen(self, ways: Tensor, log_w: Tensor) -> Chosen:
        """Returns what `_weighed` found.

        Args:
            ways: Numbers of the data's ways, `(n,)`.
            log_w: Their log-weights, `(512, n)`, nats.
        """
        counts = torch.where(ways > 0, PARTICLES, SAMPLED)
        temperatures = torch.tensor([rung.temperatures for rung in self.rungs])[ways]
        missed = torch.zeros(len(ways), dtype=torch.bool)
        return Chosen(
            log_w[: int(counts.max())],
            counts,
            temperatures=temperatures,
            missed=missed,
            scale=self.scale,
        )

    def _ways(self, climb: Climb) -> tuple[Tensor, Tensor]:
        """Returns the number of each datum's way, `(n,)`, and log-weights of the first, `(S, n)`.

        The way is the first that is long enough; importance sampling whose weights have a heavy
        tail is none.

        Args:
            climb: Of the block.
        """
        with climb.stream(SPREAD):
            spread = _spread(climb.path(0))
        spread = climb.columns(spread).double()
        a, b, c = self.coefficients
        fits = []
        for rung in self.rungs[1:]:
            variance = (a + b * spread.log() - c * log(rung.temperatures)).exp()
            fits.append((variance / PARTICLES).sqrt() <= self.tolerance)
        fits[-1] = torch.ones_like(fits[-1])
        ways = 1 + torch.stack(fits).double().argmax(0)
        error = ((spread.exp() - 1) / SAMPLED).sqrt()
        near = torch.nonzero((spread <= NEAR) & (error <= self.tolerance))[:, 0]
        log_w = torch.full((SAMPLED, climb.size), -torch.inf, dtype=torch.float64)
        if len(near):
            log_w[:, near] = climb.log_w(0, near, 1)[0]
            good = self.good(LogWeights(log_w[:, near]))
            ways[near] = torch.where(good, 0, ways[near].clamp(min=self._heavy))
        return ways, log_w


def looks_good(ess: Tensor, pareto_k: Tensor, std_error: Tensor, num_draws: Tensor) -> Tensor:
    """Returns which data's weights look good, `(n,)`: those of importance sampling by k-hat.

    Args:
        ess: Effective sample sizes, `(n,)`.
        pareto_k: k-hat, `(n,)`.
        std_error: Standard errors, nats, `(n,)`.
        num_draws: S of each, `(n,)`.
    """
    good = annealed_well(ess, num_draws, std_error)
    drawn = num_draws > PARTICLES
    k, size, error, s = (c[drawn] for c in (pareto_k, ess, std_error, num_draws))
    good[drawn] = verdicts(k, size, error, s) == 0
    return good


def chosen(program: Program, tolerance: float, most: int, seed: int) -> Cheapest:
    """Returns how long to anneal, and from where: as a pilot, and simulated data, tell.

    Paths begin at `pv.Laplace()`, or at the guide, or the prior without one: where, on data
    simulated from the model with z, forward and backward runs leave clearly less of a gap.

    Args:
        program: The pair and its data.
        tolerance: Standard error aimed at, nats.
        most: Temperatures at most.
        seed: Of the evaluation.

    Raises:
        ValueError: If log p(x, z) has no gradient in the latents.
    """
    program = program.uncompiled()
    pilots: list[Pilot] = []
    for i, start in enumerate((Laplace(), None)):
        try:
            pilots.append(pilot(program, LEAPFROGS, stream_seed(seed, START, i), start))
        except ValueError:
            if start is None and not pilots:
                raise
    best = pilots[-1 if len(pilots) == 2 and _gains(program, pilots, seed) else 0]
    one = Kernel(np.array([0.0, 1.0]), np.empty(0), LEAPFROGS, best.proposal)
    rungs = [Rung(best.kernel(t), 1, PARTICLES) for t in TEMPERATURES if t <= most]
    coefficients = _coefficients(program, [best.kernel(t) for t in PILOT], seed)
    others = ()
    if best.proposal is not None or program.guide is not None:
        prior = replace(program, guide=None)
        other = pilot(prior, OTHER_LEAPFROGS, stream_seed(seed, PRIOR))
        others = tuple(other.kernel(t) for _, t in OTHERS)
    found = Cheapest((Rung(one, 1, SAMPLED), *rungs), coefficients, tolerance, others)
    return found.let_out(program, seed)


def _gains(program: Program, pilots: list[Pilot], seed: int) -> bool:
    """Returns whether the second start leaves clearly less of a gap than the first, or alone one.

    Args:
        program: The pair and its data.
        pilots: From both starts.
        seed: Of the evaluation.
    """
    first, second = (
        _gaps(program, Rung(p.kernel(TRIED_FOR), 1, PARTICLES), seed).clamp(max=FAR)
        for p in pilots
    )
    if len(first) != len(second):  # where runs from a start have no weights, there are none
        return len(second) > 0
    gain = first - second
    return len(gain) > 1 and bool(gain.mean() > 2 * gain.std() / sqrt(len(gain)))


def _gaps(program: Program, rung: Rung, seed: int) -> Tensor:
    """Returns the gaps that a way leaves on simulated data, nats; none if they cannot be had.

    Args:
        program: The pair and its data.
        rung: The way.
        seed: Of the evaluation.
    """
    gaps = [torch.empty(0)]
    count = PILOT_DATA if program.selects_rows else PILOT_DATA // 4
    own_guide = rung.kernel.proposal is None and program.guide is not None
    try:
        for part, rows, z, own in simulations(
            program, count, stream_seed(seed, SIMULATED), exact_guide=own_guide
        ):
            climb = Climb(part, rows, (rung,), own, TOGETHER)
            every, u = torch.arange(climb.size), climb.unconstrained(0, z)
            weights = LogWeights(climb.log_w(0, every, 1)[0])
            back = climb.log_w_back(0, every, u[None])[0]
            gaps.append(gap_of(back - weights.log_evidence(), weights.num_draws))
    except ValueError:
        return gaps[0]
    return torch.cat(gaps)


def _coefficients(
    program: Program, kernels: list[Kernel], seed: int
) -> tuple[float, float, float]:
    """Returns a, b and c of `Cheapest`, by least squares over a pilot's data and both kernels.

    Args:
        program: The pair and its data.
        kernels: Of few and of many temperatures.
        seed: Of the evaluation.
    """
    program, rows = _some(program)
    rungs = [Rung(k, 1, PILOT_PARTICLES) for k in kernels]
    climb = Climb(program, rows, rungs, stream_seed(seed, TRIED), TOGETHER)
    with climb.stream(SPREAD):
        spread = climb.columns(_spread(climb.path(0))).double().log()
    every = torch.arange(climb.size)
    few, many = (
        climb.log_w(i, every, 1)[0].var(0).clamp(min=1e-12).log() for i in range(len(rungs))
    )
    c = ((few - many).mean() / log(PILOT[1] / PILOT[0])).clamp(0.5, 2).item()
    both, off = (few + many) / 2, spread - spread.mean()
    b = ((off * both).sum() / off.square().sum().clamp(min=1e-12)).clamp(0, 1).item()
    a = both.mean().item() - b * spread.mean().item() + c * log(PILOT[0] * PILOT[1]) / 2
    return a, b, c


def _some(program: Program, count: int = PILOT_DATA) -> tuple[Program, range]:
    """Returns the program of some of its data, evenly spread, and their rows.

    Args:
        program: The pair and its data.
        count: Data, at most.
    """
    if program.selects_rows:
        program = program.select(range(0, len(program), ceil(len(program) / count)))
    return program, program.blocks(count)[0]


def _spread(path: Path) -> Tensor:
    """Returns the variance of log w over draws of the path's start, `(n,)`, nats^2; at least 1e-6.

    Args:
        path: Of a block.
    """
    with torch.no_grad():
        log_f0, log_f1 = path.ends(path.start(DRAWS))
    return (log_f1 - log_f0).var(0).nan_to_num(torch.inf).clamp(1e-6, 1e6).cpu()
