"""The semi-supervised VAE: a class and a style make X, and of some data the class is known."""

__all__ = ["SemiSupervisedVAE"]

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import ClassVar, Self

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import embedding, linear

from pyrovae import likelihoods
from pyrovae.checks import check_not_negative, check_sizes, check_widths, nan_is_missing
from pyrovae.data.rows import Rows
from pyrovae.data.splits import Splits
from pyrovae.distributions import Label, seen
from pyrovae.errors import DataError
from pyrovae.gaps import or_prior
from pyrovae.likelihoods import Config, Likelihood
from pyrovae.models.base import Model
from pyrovae.models.parts import begin, make_family, rows_of, shape_of
from pyrovae.nn import MLP, ConvClassifier, positive
from pyrovae.registry import written
from pyrovae.rng import seeded


class SemiSupervisedVAE(Model):
    r"""M2: a class c and a style z make X, and the label y says the class where it is known.

    .. math::
        c_n \sim \mathrm{Cat}(1/K), \quad z_n \sim N(0, I), \quad
        X_n \mid c_n, z_n \sim P(X \mid f_\theta(z_n, c_n)), \quad
        Q(c, z \mid X) = Q(c \mid X)\, Q(z \mid X, c)

    Data with labels and without stand in one batch: `model` and `guide` take X `(N, x_dim)` and
    y `(N,)`, integers or floats from 0 to K - 1, where -1 or NaN says that the label is missing.
    The evidence of a datum, in nats, is that of what is known of it,

    .. math::
        \log P(X_n, y_n) = \log \tfrac{1}{K} + \log \int P(X_n \mid z, y_n)\, P(z)\, dz
        \quad \text{or} \quad
        \log P(X_n) = \log \sum_k P(X_n, c_n = k)

    for the class is a latent in the model, of which y, observed, leaves the label alone where
    that is known: P(y|c) is 1 for y = c, and for a missing y, else 0. The guide draws c = y where
    y is known, and c ~ Q(c|X) where it is not. Which labels are missing is no part of the model:
    what it draws has them all.

    Of the ELBO alone a classifier learns by the data without labels; the objective
    "semi-supervised" (`pyrovae.svi.semi_supervised`) sums the classes out, and has the
    classifier learn by the labels too.

    Args:
        x_dim: Dimensions of one datum, D; or `(C, H, W)` of an image, D = C H W, which is taken in
            rows, too.
        y_dim: Number of classes, K.
        z_dim: Dimensions of the style.
        hidden_dims: Hidden widths of classifier and encoder; the decoder has them in reverse.
        likelihood: P(X|z, c): a family's name, a `Likelihood` class or an instance.
        channels: Of the classifier's convolutions, where X is an image.
        distortion: How far images are turned, stretched and moved while their classifier trains,
            see `pyrovae.nn.Distorted`: 1 suits digits, 0 is none. The decoder sees no such thing.
        classifier: Any module from X `(N, D)` to logits `(N, K)` of Q(c|X); default: a
            `pyrovae.nn.ConvClassifier` for images, a `pyrovae.nn.MLP` of `hidden_dims` for others.

    Raises:
        ValueError: If a size is no positive integer, or no family has the likelihood's name.

    References:
        Semi-supervised learning with deep generative models (Kingma, Mohamed, Rezende and
        Welling, 2014), the model M2, https://arxiv.org/abs/1406.5298

    Example:
        >>> model, y = SemiSupervisedVAE(x_dim=64, y_dim=10, z_dim=2), torch.tensor([3, -1])
        >>> model.model(torch.ones(2, 64), y)
        >>> model.classify(torch.ones(2, 64)).shape
        torch.Size([2, 10])
    """

    name = "semi-supervised-vae"
    inputs: ClassVar[tuple[str, ...]] = ("x", "y")
    objective: ClassVar[str] = "semi-supervised"

    def __init__(
        self,
        x_dim: int | Sequence[int],
        y_dim: int,
        z_dim: int,
        hidden_dims: Sequence[int] = (256,),
        likelihood: str | type[Likelihood] | Likelihood = "bernoulli",
        *,
        channels: Sequence[int] = (16, 32),
        distortion: float = 0.0,
        classifier: torch.nn.Module | None = None,
    ) -> None:
        super().__init__()
        shape = shape_of(x_dim)
        check_sizes(y_dim=y_dim, z_dim=z_dim)
        check_not_negative(distortion=distortion)
        self.x_dim, self.y_dim, self.z_dim = prod(shape), int(y_dim), int(z_dim)
        self.image_shape = shape if len(shape) == 3 else None
        self.hidden_dims = widths = check_widths(hidden_dims=hidden_dims)
        self.channels, self.distortion = check_widths(channels=channels), float(distortion)
        self.likelihood = likelihoods.make(likelihood)
        outputs = self.likelihood.num_outputs(self.x_dim)
        if classifier is None and self.image_shape:
            classifier = ConvClassifier(shape, self.channels, self.y_dim, self.distortion)
        inputs = self.likelihood.num_features(self.x_dim)
        self.classifier = classifier or MLP(inputs, widths, self.y_dim)
        self.encoder = _WithClass(inputs, self.y_dim, widths, 2 * self.z_dim)
        self.decoder = _WithClass(self.z_dim, self.y_dim, widths[::-1], outputs)

    @nan_is_missing("x", "y")
    def model(self, x: Tensor, y: Tensor) -> None:
        """Generative model: P(c) P(y|c) P(z) P(X|z, c), plated over the data.

        Args:
            x: `(N, x_dim)`; NaN is missing, and P(X|z, c) that of the rest.
            y: Labels, `(N,)`; -1 or NaN where there is none.

        Raises:
            ValueError: If one is of another shape, or x is no floats.
        """
        self.register(decoder=self.decoder, likelihood=self.likelihood)
        x, y = self.checked(x, y)
        even, zeros = x.new_zeros(len(x), self.y_dim), x.new_zeros(len(x), self.z_dim)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=even))  # c ~ Cat(1/K)
            pyro.sample("y", Label(c, self.y_dim, x.dtype), obs=y)  # y = c, or is missing
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            p = seen(self.p_x(z, c), x, self.likelihood.filler)
            pyro.sample("x", p, obs=x)  # X ~ P(X|z, c)

    def guide(self, x: Tensor, y: Tensor) -> None:
        """Variational posterior: Q(c|X, y) Q(z|X, c), plated over the data.

        Args:
            x: `(N, x_dim)`.
            y: Labels, `(N,)`; -1 or NaN where there is none.
        """
        self.register(classifier=self.classifier, encoder=self.encoder)
        x, y = self.checked(x, y)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", told(self.logits(x), y))  # y where known, or ~ Q(c|X)
            pyro.sample("z", self.q_z(x, c))  # z ~ N(mu(X, c), diag sigma(X, c)^2)

    def logits(self, x: Tensor) -> Tensor:
        """Returns those of Q(c|X), `(N, K)`, for x `(N, x_dim)`, equal where nothing is seen."""
        return or_prior(x, self.classifier(self.likelihood.features(x)), 0.0)

    def q_z(self, x: Tensor, c: Tensor) -> TorchDistribution:
        """Returns Q(z|X, c): batch shape that of c and x's rows broadcast, event `(z_dim,)`.

        Args:
            x: `(N, x_dim)`.
            c: Classes, `(..., N)` or `(..., 1)`.
        """
        loc, raw_scale = self.encoder(self.likelihood.features(x), c).chunk(2, dim=-1)
        scale = or_prior(x, positive(raw_scale), 1.0)
        return dist.Normal(or_prior(x, loc, 0.0), scale).to_event(1)

    def p_x(self, z: Tensor, c: Tensor) -> TorchDistribution:
        """Returns P(X|z, c): batch shape that of c and z's rows broadcast, event `(x_dim,)`.

        Args:
            z: `(..., N, z_dim)`.
            c: Classes, `(..., N)` or `(..., 1)`.
        """
        return self.likelihood(self.decoder(z, c))

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """Returns the guide's Q(c|X), `(N, K)`, for x `(N, x_dim)`, as evaluation has it.

        That is a guess at the posterior P(c|X), which Bayes' rule gives from the evidence of each
        class, `softmax` over k of log P(X, y = k).
        """
        training = self.classifier.training
        try:
            self.classifier.eval()
            return self.logits(self.checked(x)[0]).softmax(-1)
        finally:
            self.classifier.train(training)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        """Returns n draws of X ~ P(X), `(n, x_dim)`: a class and a style, then X given both.

        Args:
            n: How many.
            seed: Fixes them; `None` goes on with torch's random stream.
        """
        with seeded(seed):
            weight = next(self.decoder.parameters())
            c = torch.randint(self.y_dim, (n,)).to(weight.device)
            return self.p_x(torch.randn(n, self.z_dim).to(weight), c).sample()

    @torch.no_grad()
    def start_at(self, x: Tensor | Rows) -> Self:
        """Sets the decoder's last bias: X begins at the mean of x `(N, x_dim)`; returns self."""
        begin(self.decoder.net, self.likelihood, x)
        return self

    def checked(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns x and y; without labels, y `(N,)` that says they are missing.

        Args:
            x: `(N, D)`, or images `(N, C, H, W)`.
            y: Labels, `(N,)`, or `None`.

        Raises:
            ValueError: If one is of another shape, or x is no floats.
        """
        x = rows_of(x, self.x_dim, "model", self.image_shape)
        if y is None:
            return x, torch.full((len(x),), -1, device=x.device)
        if y.shape != x.shape[:1]:
            raise ValueError(
                f"y has shape {tuple(y.shape)}; give a label for each row of x, ({len(x)},), -1 "
                "where it is missing"
            )
        return x, y

    def config(self) -> Config:
        """Returns what `from_config` needs to build the same architecture, fit for JSON."""
        return {
            "x_dim": list(self.image_shape) if self.image_shape else self.x_dim,
            "y_dim": self.y_dim,
            "z_dim": self.z_dim,
            "hidden_dims": list(self.hidden_dims),
            "channels": list(self.channels),
            "distortion": self.distortion,
            "likelihood": written(self.likelihood.name, self.likelihood.config()),
        }

    @classmethod
    def for_data(  # pyright: ignore[reportIncompatibleMethodOverride]  # options of its own
        cls,
        splits: Splits,
        y_dim: int | None = None,
        z_dim: int = 16,
        hidden_dims: Sequence[int] = (256,),
        likelihood: str = "bernoulli",
        sigma: float | None = None,
        channels: Sequence[int] = (16, 32),
        distortion: float = 0.0,
    ) -> Self:
        """Returns an untrained model that begins at the mean of the training data.

        Args:
            splits: The data set, with labels.
            y_dim: Number of classes; `None` for one more than the largest label.
            z_dim: Dimensions of the style.
            hidden_dims: Widths of classifier and encoder, the decoder's in reverse.
            likelihood: P(X|z, c), by name.
            sigma: Of the normal likelihood; `None` to learn it.
            channels: Of the classifier's convolutions, where data are images.
            distortion: How far images are turned and moved while their classifier trains.

        Raises:
            DataError: If no training datum has a label.
            ValueError: If sigma is given to another family.
        """
        x, y = cls.arrays(splits.train)
        if y_dim is None:
            y_dim = 1 + int(y[:].nan_to_num(-1).max())
        if y_dim < 1:
            raise DataError(f"{cls.__name__} takes y, and no training datum has a label")
        size = (1, *splits.image_shape) if splits.image_shape else x.shape[1]
        made = partial(
            cls, size, y_dim, z_dim, hidden_dims, make_family(likelihood, sigma, splits)
        )
        return made(channels=channels, distortion=distortion).start_at(x)


def told(logits: Tensor, y: Tensor) -> dist.Categorical:
    """Returns the distribution of the class, batch shape `(N,)`: all of it on y where y is known.

    Args:
        logits: Of the K classes, `(N, K)`, where it is not.
        y: Labels, `(N,)`; -1 or NaN where there is none.
    """
    known = y >= 0
    classes = torch.arange(logits.shape[-1], device=y.device)
    other = classes != torch.where(known, y, 0)[..., None]
    sure = torch.zeros_like(logits).masked_fill(other, -torch.inf)
    return dist.Categorical(logits=torch.where(known[..., None], sure, logits))


class _WithClass(torch.nn.Module):
    r"""An MLP of numbers and a class, of which the first layer alone knows.

    .. math::
        h_1 = \tanh(W x + u_c + b)

    The numbers' part W x is computed once for all classes that they are met with.

    Args:
        in_dim: Size of the numbers, `(..., in_dim)`.
        num_classes: K.
        hidden_dims: Widths of the hidden layers; without any, the output is W x + u_c + b.
        out_dim: Size of the output.
    """

    def __init__(
        self, in_dim: int, num_classes: int, hidden_dims: Sequence[int], out_dim: int
    ) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.net = MLP(in_dim + num_classes, hidden_dims, out_dim)

    @property
    def last(self) -> torch.nn.Linear:
        """The layer that gives the output."""
        found = self.net[-1]
        assert isinstance(found, torch.nn.Linear)
        return found

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Returns the output, `(..., out_dim)`, the leading dimensions broadcast.

        Args:
            x: `(..., in_dim)`.
            c: Classes, `(...)`.
        """
        first, *rest = self.net
        assert isinstance(first, torch.nn.Linear)
        of_x, of_class = first.weight.split([self.in_dim, first.in_features - self.in_dim], 1)
        h = linear(x, of_x, first.bias) + embedding(c, of_class.T)
        for layer in rest:
            h = layer(h)
        return h
