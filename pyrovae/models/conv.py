"""A VAE of images, with convolutions."""

__all__ = ["ConvVAE"]

from collections.abc import Callable, Sequence
from typing import Self

from pyro.distributions import TorchDistribution

from pyrovae import guides, likelihoods
from pyrovae.checks import check_widths
from pyrovae.data.splits import Splits
from pyrovae.errors import DataError
from pyrovae.likelihoods import Config, Likelihood
from pyrovae.models.parts import make_family
from pyrovae.models.vae import VAE
from pyrovae.nn import ConvDecoder, ConvEncoder, ConvNet


class ConvVAE(VAE):
    r"""A `VAE` of images, with strided convolutions as its encoder, their transposes as decoder.

    .. math::
        z_n \sim N(0, I), \quad X_n \mid z_n \sim P(X \mid f_\theta(z_n)), \quad
        Q_\phi(z \mid X) = N(\mu_\phi(X), \mathrm{diag}\, \sigma_\phi(X)^2)

    `model` and `guide` are those of `VAE`, whose log-probabilities are in nats per datum; mu,
    sigma and f see X as images `(N, C, H, W)`. Rows `(N, C * H * W)` are taken as well, and what
    is drawn comes in rows.

    Args:
        image_shape: `(C, H, W)` of a datum.
        z_dim: Dimensions of its latent.
        channels: Of the encoder's convolutions, each of which halves height and width; the decoder
            has them in reverse.
        likelihood: P(X|z): a family's name, a `Likelihood` class or an instance.
        prior: P(z) in place of N(0, I), as of `VAE`.
        posterior: The family of Q(z|X), as of `VAE`.
        activation: Of the units, a name of `pyrovae.nn.ACTIVATIONS`.

    Raises:
        ValueError: If a size is no positive integer, or no family has the likelihood's name.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), https://arxiv.org/abs/1312.6114
        Unsupervised representation learning with deep convolutional generative adversarial
        networks (Radford, Metz and Chintala, 2015), on strides in place of pooling,
        https://arxiv.org/abs/1511.06434

    Example:
        >>> vae = ConvVAE((1, 28, 28), z_dim=8)
        >>> vae.sample(3).shape
        torch.Size([3, 784])
    """

    name = "conv-vae"

    def __init__(
        self,
        image_shape: Sequence[int],
        z_dim: int,
        channels: Sequence[int] = (16, 32),
        likelihood: str | type[Likelihood] | Likelihood = "bernoulli",
        *,
        prior: str | Callable[..., TorchDistribution] | None = None,
        posterior: str | guides.Family = "diagonal",
        activation: str = "silu",
    ) -> None:
        widths, shape = check_widths(channels=channels), tuple(image_shape)
        family, q = likelihoods.make(likelihood), guides.make(posterior, z_dim)
        f_shape = family.outputs * shape[0], *shape[1:]
        super().__init__(
            shape,
            z_dim,
            (),
            family,
            encoder=ConvEncoder(shape, widths, z_dim, activation)
            if isinstance(q, guides.Diagonal)
            else ConvNet(shape, widths, q.outputs, activation),
            decoder=ConvDecoder(z_dim, widths[::-1], f_shape, activation),
            prior=prior,
            posterior=q,
            activation=activation,
        )
        self.channels = widths

    def config(self) -> Config:
        """Returns what `from_config` needs to build the same architecture, fit for JSON.

        These are `image_shape`, `z_dim`, `channels`, `activation` and what `VAE.config` says of
        likelihood, prior and posterior.
        """
        config = {**super().config(), "activation": self.activation}
        del config["hidden_dims"]
        return {"image_shape": config.pop("x_dim"), **config, "channels": list(self.channels)}

    @classmethod
    def for_data(  # pyright: ignore[reportIncompatibleMethodOverride]  # options of its own
        cls,
        splits: Splits,
        z_dim: int = 16,
        channels: Sequence[int] = (16, 32),
        likelihood: str = "bernoulli",
        sigma: float | None = None,
        prior: str = "normal",
        posterior: str = "diagonal",
        activation: str = "silu",
    ) -> Self:
        """Returns an untrained model that begins at the mean of the training images.

        Args:
            splits: The data set, of grey images.
            z_dim: Latent dimensions.
            channels: Of the encoder's convolutions, the decoder's in reverse.
            likelihood: P(X|z), by name.
            sigma: Of the normal likelihood; `None` to learn it.
            prior: P(z), by name: normal, mixture(100), vamp(500) or flow(4).
            posterior: Q(z|X), by name: diagonal, full or flow(4).
            activation: Of the units, by name.

        Raises:
            DataError: If the data are no images.
        """
        if not splits.image_shape:
            raise DataError(f"{cls.__name__} is for images, and these data are rows of no shape")
        shape, family = (1, *splits.image_shape), make_family(likelihood, sigma, splits)
        parts = {"prior": prior, "posterior": posterior, "activation": activation}
        return cls(shape, z_dim, channels, family, **parts).start_at(splits.train.x)
