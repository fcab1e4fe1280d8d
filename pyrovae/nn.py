"""Encoders and decoders: ordinary torch modules, from X to Q(z|X) and from z to f(z)."""

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Bias",
    "ConvClassifier",
    "ConvDecoder",
    "ConvEncoder",
    "ConvNet",
    "Distorted",
    "Encoder",
    "Gated",
    "Residual",
    "positive",
]

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from math import pi, prod

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, softplus


def positive(raw: Tensor, floor: float = 1e-4) -> Tensor:
    r"""Returns softplus(raw) + floor: a scale that neither overflows nor reaches zero.

    .. math::
        \sigma = \log(1 + e^{\mathrm{raw}}) + \mathrm{floor}

    It grows as raw itself, where exp(raw) would overflow float32 from 89 on.

    Args:
        raw: Any numbers, of any shape, which the result has too.
        floor: The least result.
    """
    return softplus(raw) + floor


class Gated(torch.nn.Module):
    r"""Units with a gate each: of twice as many numbers, the first half times sigma(the second).

    .. math::
        h = (W x + b) \odot \sigma(V x + c)

    Args:
        dim: That of the units: the last of rows, -3, the channels, of images.

    References:
        Language modeling with gated convolutional networks (Dauphin et al., 2017),
        https://arxiv.org/abs/1612.08083
        VAE with a VampPrior (Tomczak and Welling, 2018), whose dense layers these are,
        https://arxiv.org/abs/1705.07120
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, h: Tensor) -> Tensor:
        """Returns the gated half of h, `(..., n)` of `(..., 2 n)`."""
        value, gate = h.chunk(2, self.dim)
        return value * gate.sigmoid()


ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "silu": torch.nn.SiLU,
    "gelu": torch.nn.GELU,
    "softplus": torch.nn.Softplus,
    "elu": torch.nn.ELU,
    "gated": Gated,
}


def _units(activation: str, dim: int = -1) -> tuple[Callable[[], torch.nn.Module], int]:
    """Returns what makes the units of a layer, and how many numbers of it each unit takes.

    Args:
        activation: A name of `ACTIVATIONS`.
        dim: That of the units.

    Raises:
        ValueError: If no activation has that name.
    """
    if activation not in ACTIVATIONS:
        near = get_close_matches(str(activation), ACTIVATIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(ACTIVATIONS)}"
        raise ValueError(f"there is no activation {activation!r}; {hint}")
    unit = ACTIVATIONS[activation]
    return (partial(Gated, dim), 2) if unit is Gated else (unit, 1)


class Residual(torch.nn.Sequential):
    """Adds to what it is given what its layers make of that: h + f(h), of the shape of h.

    References:
        Identity mappings in deep residual networks (He et al., 2016), whose units before weights
        these are, https://arxiv.org/abs/1603.05027
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns h + f(h) of h, `(..., width)`."""
        return input + super().forward(input)


class MLP(torch.nn.Sequential):
    r"""A multilayer perceptron with Glorot-uniform weights and zero biases.

    .. math::
        h_0 = x, \quad h_l = a(W_l h_{l-1} + b_l), \quad f(x) = W_L h_{L-1} + b_L

    Args:
        in_dim: Size of the input, `(..., in_dim)`.
        hidden_dims: Widths of the hidden layers.
        out_dim: Size of the linear output, `(..., out_dim)`.
        activation: a, by a name of `ACTIVATIONS`: tanh, or "gated" for gated dense layers.
        residual: Whether hidden layers add to each other, h_1 = W_1 x + b_1,
            h_l = h_(l-1) + W_l a(h_(l-1)) + b_l and f(x) = W_L a(h_(L-1)) + b_L; the weights of
            all that add are 0 at first.

    Raises:
        ValueError: If no activation has that name, or `residual` is asked for of other than two or
            more hidden layers of one width.

    References:
        Understanding the difficulty of training deep feedforward neural networks (Glorot and
        Bengio, 2010), https://proceedings.mlr.press/v9/glorot10a.html
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dims: Sequence[int],
        out_dim: int,
        activation: str = "tanh",
        residual: bool = False,
    ) -> None:
        if residual and (len(hidden_dims) < 2 or len(set(hidden_dims)) > 1):
            raise ValueError(
                f"hidden_dims is {list(hidden_dims)}; residual layers are two or more of one width"
            )
        unit, gates = _units(activation)
        widths = [*(gates * width for width in hidden_dims), out_dim]
        layers: list[torch.nn.Module] = []
        for k, (i, o) in enumerate(zip([in_dim, *hidden_dims], widths, strict=True)):
            linear = torch.nn.Linear(i, o)
            torch.nn.init.xavier_uniform_(linear.weight)
            torch.nn.init.zeros_(linear.bias)
            if residual and 0 < k < len(hidden_dims):
                torch.nn.init.zeros_(linear.weight)
                linear = Residual(layers.pop(), linear)
            layers += [linear, unit()]
        super().__init__(*layers[:-1])


class Encoder(torch.nn.Module):
    """mu(X) and sigma(X) of Q(z|X), each `(..., z_dim)`, from X `(..., x_dim)`.

    One `MLP` gives both: the first half of its outputs is mu, the second becomes sigma by
    `positive`.

    Args:
        x_dim: Dimensions of a datum, D.
        hidden_dims: Widths of the hidden layers.
        z_dim: Dimensions of the latent.
        activation: Of the hidden layers, as of `MLP`.
        residual: Whether they add to each other, likewise.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), appendix C.2,
        https://arxiv.org/abs/1312.6114
    """

    def __init__(
        self,
        x_dim: int,
        hidden_dims: Sequence[int],
        z_dim: int,
        activation: str = "tanh",
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.net = MLP(x_dim, hidden_dims, 2 * z_dim, activation, residual)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mu(x) and sigma(x) > 0, each `(..., z_dim)`."""
        loc, raw_scale = self.net(x).chunk(2, dim=-1)
        return loc, positive(raw_scale)


class Bias(torch.nn.Module):
    """Adds a parameter of this shape, from 0 on; of images, one number for each pixel.

    At the end of a decoder it lets X begin at the mean of the data, see `Likelihood.start`.

    Args:
        shape: Of the parameter, such as `(C, H, W)`.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(shape))

    def forward(self, f: Tensor) -> Tensor:
        """Returns f + bias, `(..., *shape)`."""
        return f + self.bias


def _sizes(image_shape: Sequence[int], channels: Sequence[int]) -> list[tuple[int, int]]:
    """Returns height and width before each convolution, and after the last: halves, rounded up."""
    sizes = [(image_shape[1], image_shape[2])]
    for _ in channels:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


class ConvNet(torch.nn.Sequential):
    """Numbers of images, `(N, out_dim)` from `(N, C, H, W)`.

    Convolutions of 3 x 3 with stride 2, the units after each, and one linear layer.

    Args:
        image_shape: `(C, H, W)`.
        channels: Of the convolutions, each of which halves height and width.
        out_dim: Size of the linear output.
        activation: Of the units, a name of `ACTIVATIONS`.

    Raises:
        ValueError: If no activation has that name.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int],
        out_dim: int,
        activation: str = "silu",
    ) -> None:
        unit, gates = _units(activation, -3)
        layers: list[torch.nn.Module] = []
        for i, o in pairwise([image_shape[0], *channels]):
            layers += [torch.nn.Conv2d(i, gates * o, 3, stride=2, padding=1), unit()]
        height, width = _sizes(image_shape, channels)[-1]
        last = torch.nn.Linear(channels[-1] * height * width, out_dim)
        super().__init__(*layers, torch.nn.Flatten(), last)


class ConvEncoder(torch.nn.Module):
    """mu(X) and sigma(X) of Q(z|X), each `(N, z_dim)`, from images X `(N, C, H, W)`.

    One `ConvNet` gives both, as an `MLP` those of an `Encoder`.

    Args:
        image_shape: `(C, H, W)`.
        channels: Of the convolutions, each of which halves height and width.
        z_dim: Dimensions of the latent.
        activation: Of the units, as of `ConvNet`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int],
        z_dim: int,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.net = ConvNet(image_shape, channels, 2 * z_dim, activation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mu(x) and sigma(x) > 0, each `(N, z_dim)`."""
        loc, raw_scale = self.net(x).chunk(2, dim=-1)
        return loc, positive(raw_scale)


class ConvClassifier(torch.nn.Sequential):
    """Logits of K classes, `(N, K)`, from images in rows `(N, C * H * W)`.

    Convolutions of 5 x 5 with stride 2, one layer of `width`, each with batch normalisation and
    SiLU units, and one linear layer; dropout before the last two. While it trains, images are
    `Distorted`.

    Args:
        image_shape: `(C, H, W)`.
        channels: Of the convolutions, each of which halves height and width.
        num_classes: K.
        distortion: Its strength; 0 for none.
        width: Of the hidden layer.
        dropout: Share of its inputs, and outputs, that are left out while it trains.

    References:
        Batch normalization (Ioffe and Szegedy, 2015), https://arxiv.org/abs/1502.03167
        Dropout (Srivastava et al., 2014), https://jmlr.org/papers/v15/srivastava14a.html
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int],
        num_classes: int,
        distortion: float = 0.0,
        width: int = 128,
        dropout: float = 0.3,
    ) -> None:
        layers: list[torch.nn.Module] = [torch.nn.Unflatten(-1, tuple(image_shape))]
        layers += [Distorted(distortion)]
        for i, o in pairwise([image_shape[0], *channels]):
            convolution = torch.nn.Conv2d(i, o, 5, stride=2, padding=2, bias=False)
            layers += [convolution, _BatchNorm(o), torch.nn.SiLU()]
        height, across = _sizes(image_shape, channels)[-1]
        layers += [torch.nn.Flatten(), torch.nn.Dropout(dropout)]
        size = [image_shape[0], *channels][-1] * height * across
        layers += [torch.nn.Linear(size, width, bias=False), _BatchNorm(width), torch.nn.SiLU()]
        last = torch.nn.Linear(width, num_classes)
        super().__init__(*layers, torch.nn.Dropout(dropout), last)


class _BatchNorm(torch.nn.BatchNorm1d):
    """Batch normalisation of `(N, C, ...)`; of one number a channel by what it learned so far.

    A last batch may be of one row, of which there is no variance.

    Args:
        num_features: C.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Takes any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns what it is given, normalised, `(N, C, ...)`."""
        if not self.training or input.numel() > input.shape[1]:
            return super().forward(input)
        self.eval()
        try:
            return super().forward(input)
        finally:
            self.train()


class Distorted(torch.nn.Module):
    r"""Turns, stretches and moves each image `(N, C, H, W)` at random while it trains, not after.

    .. math::
        X'(p) = X(A p + t), \quad A = \begin{pmatrix} (1 + s_1) \cos a & -\sin a + s_2 \\
        \sin a & (1 + s_1) \cos a \end{pmatrix}

    for places p in [-1, 1]^2, with a uniform up to 20 degrees, s_1 and s_2 up to a fifth and t up
    to a seventh (2 pixels of 28) either way, all times `strength`; between pixels X is linear, and
    what comes in is 0.

    Args:
        strength: 0 leaves images as they are.

    References:
        Best practices for convolutional neural networks applied to visual document analysis
        (Simard, Steinkraus and Platt, 2003), https://doi.org/10.1109/ICDAR.2003.1227801
    """

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        """Returns the images, `(N, C, H, W)`."""
        if not (self.training and self.strength):
            return x
        u = self.strength * (2 * torch.rand(5, len(x), device=x.device).to(x) - 1)  # (5, N)
        angle, stretch, shear = u[0] * pi / 9, 1 + u[1] / 5, u[2] / 5
        cos, sin = stretch * angle.cos(), angle.sin()
        rows = [torch.stack([cos, shear - sin, u[3] / 7], 1), torch.stack([sin, cos, u[4] / 7], 1)]
        places = affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
        return grid_sample(x, places, align_corners=False)


class ConvDecoder(torch.nn.Module):
    """f(z), images `(..., C, H, W)`, from z `(..., z_dim)`: a `ConvEncoder` in reverse.

    One linear layer, transposed convolutions of 3 x 3 with stride 2, which double height and
    width, each after units, and a `Bias` of the image.

    Args:
        z_dim: Dimensions of the latent.
        channels: As the encoder has them, reversed.
        image_shape: `(C, H, W)` of f(z).
        activation: Of the units, as of `ConvNet`.
    """

    def __init__(
        self,
        z_dim: int,
        channels: Sequence[int],
        image_shape: Sequence[int],
        activation: str = "silu",
    ) -> None:
        super().__init__()
        unit, gates = _units(activation, -3)
        sizes = _sizes(image_shape, channels)[::-1]
        first = (gates * channels[0], *sizes[0])
        layers: list[torch.nn.Module] = [
            torch.nn.Linear(z_dim, prod(first)),
            torch.nn.Unflatten(-1, first),
        ]
        outputs = [*(gates * width for width in channels[1:]), image_shape[0]]
        for i, o, (height, width) in zip(channels, outputs, sizes[1:], strict=True):
            even = (1 - height % 2, 1 - width % 2)  # where halving did not round up
            up = torch.nn.ConvTranspose2d(i, o, 3, stride=2, padding=1, output_padding=even)
            layers += [unit(), up]
        self.net = torch.nn.Sequential(*layers)
        self.bias = Bias(*image_shape)

    def forward(self, z: Tensor) -> Tensor:
        """Returns f(z), `(..., C, H, W)`."""
        f = self.net(z.reshape(-1, z.shape[-1]))  # convolutions know one batch dimension
        return self.bias(f.reshape(*z.shape[:-1], *f.shape[1:]))
