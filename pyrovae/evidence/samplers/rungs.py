"""Ways to weigh particles, from importance sampling to annealing, and a block's climb on them.

n are the rows of a block, m some of them, J the particles of another start.
"""

__all__ = ["BEYOND", "Climb", "Elsewhere", "Rung"]

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyrovae.evidence.samplers.annealing import annealed
from pyrovae.evidence.samplers.chunks import pieces
from pyrovae.evidence.samplers.paths import SCALE_DRAWS, Path
from pyrovae.evidence.samplers.tuning import Kernel
from pyrovae.evidence.weights import check_weights
from pyrovae.program import Program, Values, reproducible
from pyrovae.rng import stream_seed

PLACE, RUNS, SECOND, BACK, CHECK = 30, 31, 33, 34, 36  # random streams
PRIOR_DRAWS = 64  # by which the prior's scale is read, of many data, for few particles
BEYOND = 2.0  # nats above the largest weight, where a draw is out of reach
AT_ONCE = 1024  # particles x data


@dataclass(frozen=True)
class Rung:
    """One way: runs of particles, each an unbiased estimate of p(x).

    Attributes:
        kernel: The frozen transitions, and where they begin; of one temperature there are none.
        num_runs: M.
        num_particles: S of each.
    """

    kernel: Kernel
    num_runs: int
    num_particles: int

    @property
    def temperatures(self) -> int:
        """T."""
        return len(self.kernel.temperatures) - 1

    def runs(self, path: Path, num_runs: int) -> Tensor:
        """Returns log w `(M, S, n)`, nats, of independent runs.

        Args:
            path: Of n data.
            num_runs: M.
        """
        n, size = len(path.base.rows), self.num_particles
        tables = [
            annealed(path, path.start(s), self.kernel)[0]
            for s in pieces(num_runs * size, max(1, AT_ONCE // n))
        ]
        return torch.cat(tables).unflatten(0, (num_runs, size))

    def back(self, path: Path, u: Tensor) -> Tensor:
        """Returns log w `(J, n)` of runs back from draws of the posterior.

        Args:
            path: Of n data.
            u: The draws, `(J, n, d)`, unconstrained.
        """
        return annealed(path, path.inward(u), self.kernel, backward=True)[0]


class Climb:
    """One block, on its way up.

    ValueError is raised for data outside their support, and for weights that are no numbers.

    Args:
        program: The pair and its data.
        rows: The n rows.
        rungs: The ways, from importance sampling on.
        seed: Of the evaluation.
        together: Data that run together, at most.
    """

    def __init__(
        self, program: Program, rows: range, rungs: Sequence[Rung], seed: int, together: int
    ) -> None:
        self.program = program.parted(together)
        self.rows, self.rungs, self.seed, self._together = rows, rungs, seed, together
        self._paths: dict[object, Path] = {}
        self.size = len(rows) if program.plate else 1
        with self.stream(CHECK):
            program.check_observed(rows)

    def unconstrained(self, i: int, z: Values) -> Tensor:
        """Returns the i-th way's u of latents, `(n, d)`.

        Args:
            i: The number of the way.
            z: By site, `(n, ...)`.
        """
        path = self.path(i)
        with self.stream(BACK):
            return path.base.unconstrain(z)

    def log_w_back(self, i: int, todo: Tensor, u: Tensor) -> Tensor:
        """Returns log w `(J, m)` of runs of some data back from u.

        Args:
            i: The number of the way.
            todo: Places of the data in the block, `(m,)`.
            u: `(J, n, d)`, unconstrained.
        """
        return self._at(i, todo, u, self.rungs[i].back)

    def log_w_start(self, i: int, todo: Tensor, u: Tensor) -> Tensor:
        """Returns log w `(J, m)` of some data's u, as draws of a way's start: by the first way.

        Args:
            i: The number of the way that begins there.
            todo: Places of the data in the block, `(m,)`.
            u: `(J, n, d)`, unconstrained.
        """
        return self._at(i, todo, u, self.rungs[0].back)

    def _at(
        self, i: int, todo: Tensor, u: Tensor, weighed: Callable[[Path, Tensor], Tensor]
    ) -> Tensor:
        """Returns log w `(J, m)` of some data's u on the path of a way.

        Args:
            i: The number of the way.
            todo: Places of the data in the block, `(m,)`.
            u: `(J, n, d)`, unconstrained.
            weighed: Takes the path of m data, and their u, to log w.
        """
        tables = []
        for part in self.parts(todo):
            with self.stream(BACK, i, int(part[0])):
                path = self.of(self.path(i), part)
                log_w = self.columns(weighed(path, u[:, part] if self.cuts else u))
            tables.append(log_w if self.cuts else log_w[..., part])
        return torch.cat(tables, -1)

    def log_w(self, i: int, todo: Tensor, num_runs: int) -> Tensor:
        """Returns log w `(M, S, m)` of M runs of some data.

        Args:
            i: The number of the way.
            todo: Places of the data in the block, `(m,)`.
            num_runs: M.
        """
        tables = []
        for part in self.parts(todo):
            with self.stream(RUNS, i, num_runs, int(part[0])):
                path = self.of(self.path(i), part)
                log_w = self.columns(self.rungs[i].runs(path, num_runs))
            check_weights(log_w.flatten(0, 1), [self.rows[j] for j in part.tolist()])
            tables.append(log_w if self.cuts else log_w[..., part])
        return torch.cat(tables, -1)

    @property
    def cuts(self) -> bool:
        """Whether some of the data can be taken alone."""
        return bool(self.program.selects_rows and self.program.plate)

    def parts(self, todo: Tensor) -> tuple[Tensor, ...]:
        """Returns places of data in parts that run together; all at once where none is alone."""
        return todo.split(self._together if self.cuts else max(1, self.size)) if len(todo) else ()

    def of(self, path: Path, part: Tensor) -> Path:
        """Returns the path of some of the block's data, or itself where it cannot be cut.

        Args:
            path: Of the block.
            part: Places of the data, `(m,)`.
        """
        if not self.cuts or torch.equal(part, torch.arange(self.size)):
            return path
        path = path.only(part.tolist())
        path.prepare()
        return path

    def path(self, i: int) -> Path:
        """Returns the path of the block by the i-th way."""
        kernel = self.rungs[i].kernel
        return self.made(kernel.proposal, kernel, self.program)

    def made(
        self, key: object, kernel: Kernel, program: Program, scale_draws: int = SCALE_DRAWS
    ) -> Path:
        """Returns a path of the block, made once, in parts.

        Args:
            key: What it is kept under.
            kernel: Which says where it begins.
            program: The pair, or the model alone.
            scale_draws: Draws by which the start's scale is read.
        """
        if key not in self._paths:
            with self.stream(PLACE, len(self._paths)):
                every = self.parts(torch.arange(self.size))
                rows = [self.rows[int(p[0]) : int(p[-1]) + 1] for p in every]
                rows = rows if self.cuts else [self.rows]
                paths = [kernel.path(program, r) for r in rows]
                path = paths[0] if len(paths) == 1 else paths[0].joined(paths[1:], self.rows)
                path.scale_draws = scale_draws
                path.prepare()
            self._paths[key] = path
        return self._paths[key]

    def columns(self, log_w: Tensor) -> Tensor:
        """Returns log-weights with an axis of data, of length 1 of joint ones."""
        return log_w if self.program.plate else log_w[..., None]

    def stream(self, *numbers: int) -> AbstractContextManager[None]:
        """Returns a context of random numbers of this block's own."""
        return reproducible(stream_seed(self.seed, *numbers), 0, self.rows.start)


class Elsewhere:
    """Where annealing from the prior ends, and whether the ways of a climb lead there.

    A draw of the posterior that a way reaches has, run back, a weight like those of the way's own
    particles. One far above all of them lies where the way does not lead.

    Args:
        climb: Of the block, and its ways.
        kernel: Of annealing from the prior.
        num_particles: J.
        power: Of the weights by which ends are drawn; below 1 where those are too rough to tell.
    """

    def __init__(
        self, climb: Climb, kernel: Kernel, num_particles: int, power: float = 1.0
    ) -> None:
        self._climb, self._kernel, self._size = climb, kernel, num_particles
        self._power = power
        self._ends = self._log_w = torch.empty(0)  # (J, n, d) and (J, n); NaN where not known

    def back(self, i: int, todo: Tensor, num_runs: int) -> Tensor:
        """Returns log w `(K, m)` of runs back by a way from where annealing from the prior ends.

        Args:
            i: The number of the way.
            todo: Places of the data in the block, `(m,)`.
            num_runs: K, a divisor of J; particles run back as often as they weigh.
        """
        u = self._u(i, todo)[:: self._size // num_runs]
        return self._climb.log_w_back(i, todo, u)

    def reaches(
        self, i: int, todo: Tensor, highest: Tensor, num_runs: int, beyond: float = BEYOND
    ) -> Tensor:
        """Returns whether a way leads wherever annealing from the prior ends, `(m,)`.

        Those ends are run back that are farthest from where the way begins: of the largest weight
        as draws of its start.

        Args:
            i: The number of the way.
            todo: Places of the data in the block, `(m,)`.
            highest: The largest log w of the way's own particles, `(m,)`.
            num_runs: K, as of `back`.
            beyond: Nats above the largest weight, where a draw is out of reach.
        """
        if not len(todo):
            return torch.ones(0, dtype=torch.bool)
        u = self._u(i, todo)
        if num_runs < self._size:
            u = self._farthest(i, todo, u, num_runs)
        return (self._climb.log_w_back(i, todo, u) <= highest + beyond).all(0)

    def _farthest(self, i: int, todo: Tensor, u: Tensor, count: int) -> Tensor:
        """Returns K of some data's ends, those of the largest weight under a way's start.

        Args:
            i: The number of the way.
            todo: Places of the data in the block, `(m,)`.
            u: The ends, `(J, n, d)`.
            count: K.
        """
        index = self._climb.log_w_start(i, todo, u).topk(count, dim=0).indices.to(u.device)
        if not self._climb.program.plate:
            return u.gather(0, index.expand(count, u.shape[-1]))
        found = u[:count].clone()
        found[:, todo] = u[:, todo].gather(0, index[..., None].expand(-1, -1, u.shape[-1]))
        return found

    def _u(self, i: int, todo: Tensor) -> Tensor:
        """Returns where annealing from the prior ends, `(J, n, d)`, in a way's own latents.

        Args:
            i: The number of the way.
            todo: Places of the data of which it is known then, `(m,)`.
        """
        self._find(todo)
        climb, u = self._climb, self._ends
        base = climb.path(i).base
        if base.program.guide is None:
            return u
        with climb.stream(BACK):  # its u may be others
            z, _ = self._path().base.values(u.nan_to_num())
            return base.unconstrain(z, len(u))

    def log_w(self, todo: Tensor) -> Tensor:
        """Returns log-weights of annealing from the prior, `(J, m)`, nats.

        Args:
            todo: Places of the data in the block, `(m,)`.
        """
        self._find(todo)
        return self._log_w[:, todo]

    def _find(self, todo: Tensor) -> None:
        """Anneals from the prior for those of some data for which that was not done yet."""
        climb = self._climb
        if not self._ends.numel():
            scale = climb.path(0).scale
            self._ends = scale.new_full((self._size, *scale.shape), torch.nan)
            self._log_w = torch.full((self._size, climb.size), torch.nan, dtype=torch.float64)
        for part in climb.parts(todo[self._log_w[0, todo].isnan()]):
            with climb.stream(SECOND, self._size, int(part[0])):
                path = climb.of(self._path(), part)
                log_w, _, v = annealed(path, path.start(self._size), self._kernel)
                log_w = climb.columns(log_w)
                index = self._drawn(log_w)  # (J, m)
            if not climb.program.plate:
                index = index[:, 0]
            ends = v.gather(0, index.to(v.device)[..., None].expand_as(v))
            if climb.cuts:
                self._ends[:, part], self._log_w[:, part] = ends, log_w
            else:
                self._ends, self._log_w = ends, log_w

    def _drawn(self, log_w: Tensor) -> Tensor:
        """Returns which particles weigh how often, `(J, m)`: systematic resampling.

        Args:
            log_w: Log-weights, `(J, m)`.
        """
        weights = (self._power * log_w).softmax(0).nan_to_num(1 / self._size)
        shift = torch.rand(weights.shape[1], dtype=weights.dtype)
        places = (torch.arange(self._size)[:, None] + shift) / self._size
        index = torch.searchsorted(weights.cumsum(0).mT.contiguous(), places.mT.contiguous())
        return index.mT.clamp(max=self._size - 1)

    def _path(self) -> Path:
        """Returns the path from the prior."""
        climb = self._climb
        return climb.made("prior", self._kernel, replace(climb.program, guide=None), PRIOR_DRAWS)
