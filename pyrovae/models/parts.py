"""What models of X given z share: the shape of a datum, its likelihood, and where X begins."""

__all__ = ["begin", "make_family", "mean_seen", "rows_of", "shape_of"]

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae import likelihoods
from pyrovae.checks import check_sizes
from pyrovae.data.rows import Rows
from pyrovae.data.splits import Splits
from pyrovae.gaps import has_gaps
from pyrovae.likelihoods import Columns, Likelihood, Normal
from pyrovae.nn import Bias
from pyrovae.registry import Called, called, made


def shape_of(x_dim: int | Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of a datum, `(D,)` or `(C, H, W)`; ValueError if it is neither."""
    shape = tuple(x_dim) if isinstance(x_dim, Sequence) else (x_dim,)
    for size in shape:
        check_sizes(x_dim=size)
    if len(shape) not in (1, 3):
        raise ValueError(f"x_dim is {shape}; give one size, or (C, H, W) of an image")
    return tuple(map(int, shape))


def rows_of(
    x: Tensor, x_dim: int, whose: str, image_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Returns x in rows, `(N, x_dim)`.

    Args:
        x: `(N, x_dim)`, or images `(N, C, H, W)` where the model is of images.
        x_dim: Dimensions of a datum, D.
        whose: What takes it, in a message: "VAE".
        image_shape: `(C, H, W)` of a model of images.

    Raises:
        ValueError: If it is of another shape, or no floats.
    """
    if image_shape and x.ndim == 4 and x.shape[1:] == image_shape:
        x = x.flatten(1)
    if x.ndim != 2 or x.shape[1] != x_dim or not x.is_floating_point():
        images = f" or (N, {', '.join(map(str, image_shape))})" if image_shape else ""
        raise ValueError(
            f"x is {x.dtype} of shape {tuple(x.shape)}; "
            f"this {whose} takes floating (N, {x_dim}){images}"
        )
    return x


def mean_seen(x: Tensor | Rows) -> Tensor:
    """Returns the mean of what is seen of each column of x `(N, D)`, 0 where nothing is."""
    return x.mean(0) if isinstance(x, Rows) else x.nanmean(0).nan_to_num()


@torch.no_grad()
def begin(decoder: torch.nn.Module, likelihood: Likelihood, x: Tensor | Rows) -> None:
    """Sets a decoder's last bias so that X begins at its mean, and the likelihood's units.

    Args:
        decoder: From z to f(z), a linear layer or `Bias` its last.
        likelihood: P(X|z).
        x: The training data, `(N, x_dim)`.

    Raises:
        TypeError: If it does not end in one of these.
    """
    last = [decoder, *decoder.children()][-1]
    if not isinstance(last, torch.nn.Linear | Bias):
        raise TypeError(
            f"the decoder ends in a {type(last).__name__}, not a Linear layer; set its first "
            "bias yourself, to vae.likelihood.start(x.mean(0))"
        )
    if isinstance(x, Tensor):
        likelihood.scale_to(x)
    last.bias.copy_(likelihood.start(mean_seen(x)).view_as(last.bias))


def make_family(
    name: str, sigma: float | None, splits: Splits, *, mask: bool = True
) -> Likelihood:
    """Returns the likelihood of a name, with sigma where it is given.

    Args:
        name: Of the family; of a table "bernoulli", the default, is "columns", which may have
            options, as in "columns(tails='student-t')".
        sigma: Of a normal, log-normal or Student-t one; `None` to learn it, and for all others.
        splits: The data.
        mask: Whether an encoder is told what is missing of a table, where it is trained with gaps.

    Raises:
        ValueError: If sigma is given to another family.
    """
    asked = called(name, "likelihood")
    if splits.columns and (name == "bernoulli" or asked.name == "columns"):
        x = splits.train.x
        told = mask and isinstance(x, Tensor) and has_gaps(x)
        options = {"columns": splits.columns, "mask": told} | asked.kwargs
        family = made(Columns, Called("columns", asked.args, options), "likelihood")
    else:
        family = likelihoods.make(name)
    if sigma is None:
        return family
    if not isinstance(family, Normal):
        raise ValueError(f"--sigma is for normal, log-normal and student-t, not for {name}")
    return likelihoods.make(name, sigma=sigma)
