"""Particles as further rows of data, for programs that take no dimension to the left."""

__all__ = ["fold", "unfold"]

from torch import Tensor

from pyrovae.program.handlers import Values


def fold(z: Values, axes: dict[str, int]) -> Values:
    """Returns latents `(S, ..., n, ...)` by site as those of S n rows, `(..., S n, ...)`.

    Args:
        z: Latents of S particles.
        axes: Each site's axis of the data, counted from the right.
    """
    return {name: _folded(value, axes[name]) for name, value in z.items()}


def unfold(value: Tensor, axis: int, num_particles: int) -> Tensor:
    """Returns a site's value on S n rows, `(..., S n, ...)`, by particle, `(S, ..., n, ...)`.

    Args:
        value: Of a site, `(..., S n, ...)`.
        axis: Of the data, counted from the right.
        num_particles: S.
    """
    axis += value.ndim
    return value.unflatten(axis, (num_particles, -1)).movedim(axis, 0)


def _folded(value: Tensor, axis: int) -> Tensor:
    axis += value.ndim - 1
    return value.movedim(0, axis).flatten(axis, axis + 1)
