"""Families of which all dimensions of X are alike."""

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "LogNormal",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "StudentT",
]

from math import expm1, log

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae import distributions
from pyrovae.checks import check_positive, check_sizes
from pyrovae.likelihoods.base import Config, Likelihood

LEAST = 1e-6  # of what a log is taken of


class Bernoulli(Likelihood):
    r"""P(X|z) = Bernoulli(X; logits f(z)), for X in {0, 1}; log-probabilities in nats.

    .. math::
        \log P(X \mid z) = \sum_d X_d f_d - \log(1 + e^{f_d}) \le 0

    Logits, because probabilities are clamped: `Bernoulli(probs=sigmoid(-100))` gives
    log P(1) = -15.94 where -100 is true. Grey X have no probability under it: binarize them, or
    take `ContinuousBernoulli`.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2013), appendix C.1,
        https://arxiv.org/abs/1312.6114
    """

    name = "bernoulli"
    binary = True

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns Bernoulli(logits=f) for f `(..., D)`: event shape `(D,)`."""
        return dist.Bernoulli(logits=f).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns logit(mean), `(D,)`, with the mean kept inside [0.001, 0.999].

        References:
            Importance weighted autoencoders (Burda, Grosse and Salakhutdinov, 2015), whose code
            does so, https://arxiv.org/abs/1509.00519
        """
        return _logit(mean)


class ContinuousBernoulli(Bernoulli):
    r"""P(X|z) = CB(X; logits f(z)), a normalised density for grey X in [0, 1]; in nats.

    .. math::
        \log p(X \mid z) = \sum_d \log C(\lambda_d) + X_d \log \lambda_d
            + (1 - X_d) \log(1 - \lambda_d), \quad \lambda_d = 1 / (1 + e^{-f_d}), \quad
        C(\lambda) = \frac{2\, \mathrm{artanh}(1 - 2\lambda)}{1 - 2\lambda}

    C is what the Bernoulli lacks where X is grey; without it the "likelihood" is no density, and
    its number no log-likelihood. f is the logit of lambda, not of the mean of X.

    References:
        The continuous Bernoulli (Loaiza-Ganem and Cunningham, 2019), https://arxiv.org/abs/1907.06845
    """

    name = "continuous-bernoulli"
    binary = False

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns ContinuousBernoulli(logits=f) for f `(..., D)`: event shape `(D,)`."""
        return dist.ContinuousBernoulli(logits=f).to_event(1)


class Normal(Likelihood):
    r"""P(X|z) = N(X; f(z), sigma^2 I), a density for real X, in nats; one sigma for all of X.

    .. math::
        \log p(X \mid z) = -\frac{1}{2 \sigma^2} \sum_d (X_d - f_d)^2
            - \frac{D}{2} \log(2 \pi \sigma^2)

    Args:
        sigma: The standard deviation, given, in the units of X; or `None` to learn it, from 1 on
            and never below `floor`: without a floor the likelihood is unbounded.
        floor: Smallest learned sigma.

    Raises:
        ValueError: If sigma is neither positive and finite nor `None`.

    References:
        Tutorial on variational autoencoders (Doersch, 2016), section 2,
        https://arxiv.org/abs/1606.05908
        Leveraging the exact likelihood of deep latent variable models (Mattei and Frellsen,
        2018), on the floor, https://arxiv.org/abs/1802.04826
    """

    name = "normal"

    def __init__(self, sigma: float | None = None, floor: float = 0.01) -> None:
        super().__init__()
        if sigma is not None and not 0 < sigma < float("inf"):
            raise ValueError(f"sigma is {sigma}; give a positive number, or None to learn it")
        self._sigma, self.floor = sigma, floor
        if sigma is None:
            self.raw_sigma = torch.nn.Parameter(torch.tensor(log(expm1(1 - floor))))

    @property
    def sigma(self) -> Tensor | float:
        """The standard deviation of X given z: softplus(raw) + floor where it is learned."""
        return self._sigma or softplus(self.raw_sigma) + self.floor

    def config(self) -> Config:
        """Returns sigma (`None`: learned) and its floor."""
        return {"sigma": self._sigma, "floor": self.floor}

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns N(f, sigma^2 I) for f `(..., D)`: event shape `(D,)`."""
        return dist.Normal(f, self.sigma).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns the mean itself, `(D,)`."""
        return mean


class StudentT(Normal):
    r"""P(X|z) = t(X; df, f(z), sigma), a density with heavy tails for real X, in nats.

    .. math::
        \log p(X \mid z) = \sum_d \log \frac{\Gamma((\nu + 1) / 2)}{\Gamma(\nu / 2)
            \sqrt{\nu \pi}\, \sigma} - \frac{\nu + 1}{2}
            \log\Bigl(1 + \frac{(X_d - f_d)^2}{\nu \sigma^2}\Bigr)

    A datum far from all others costs some nats instead of bending the decoder towards it.

    Args:
        df: Degrees of freedom, nu.
        sigma: The scale; `None` to learn it, never below `floor`, as of `Normal`.
        floor: Smallest learned sigma.

    Raises:
        ValueError: If df or sigma is not positive.

    References:
        Robust statistical modeling using the t distribution (Lange, Little and Taylor, 1989),
        https://doi.org/10.1080/01621459.1989.10478852
    """

    name = "student-t"

    def __init__(self, df: float = 4.0, sigma: float | None = None, floor: float = 0.01) -> None:
        super().__init__(sigma, floor)
        check_positive(df=df)
        self.df = df

    def config(self) -> Config:
        """Returns df, sigma (`None`: learned) and its floor."""
        return {"df": self.df, **super().config()}

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns StudentT(df, f, sigma) for f `(..., D)`: event shape `(D,)`."""
        return dist.StudentT(self.df, f, self.sigma).to_event(1)


class LogNormal(Normal):
    r"""P(X|z): log X is N(f(z), sigma^2), a density for positive X, in nats.

    .. math::
        \log p(X \mid z) = \sum_d \log N(\log X_d; f_d, \sigma^2) - \log X_d

    sigma is learned, and never below `floor`, or given, as of `Normal`; it is that of log X.

    References:
        Continuous univariate distributions (Johnson, Kotz and Balakrishnan, 1994), chapter 14.
    """

    name = "log-normal"

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns LogNormal(f, sigma) for f `(..., D)`: event shape `(D,)`."""
        return dist.LogNormal(f, self.sigma).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns log(mean), `(D,)`."""
        return _log(mean)


class Beta(Likelihood):
    r"""P(X|z) = Beta(X; m c, (1 - m) c), a density for X in (0, 1) without both, in nats.

    .. math::
        m = 1 / (1 + e^{-f_1}), \quad 1 / c = e^{-f_2} + 1 / \mathrm{most}, \quad
        \mathrm{var}(X_d) = m (1 - m) / (1 + c)

    f are D logits of means and D logs of concentrations. Without a bound of c the likelihood has
    none; where m c < 1 the density goes to infinity at 0, and X near it should be rounded no more
    than they were measured.

    Args:
        most: Largest c.

    Raises:
        ValueError: If it is not positive.

    References:
        Beta regression for modelling rates and proportions (Ferrari and Cribari-Neto, 2004),
        https://doi.org/10.1080/0266476042000214501
    """

    name = "beta"
    filler = 0.5
    outputs = 2

    def __init__(self, most: float = 1e4) -> None:
        super().__init__()
        check_positive(most=most)
        self.most = most

    def config(self) -> Config:
        """Returns the largest concentration."""
        return {"most": self.most}

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns Beta(m c, (1 - m) c) for f `(..., 2 D)`: event shape `(D,)`."""
        logit, log_c = f.chunk(2, -1)
        c = 1 / ((-log_c).exp() + 1 / self.most)
        m = torch.sigmoid(logit).clamp(LEAST, 1 - LEAST)
        return distributions.OpenBeta(m * c, (1 - m) * c).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns logit(mean), kept inside [0.001, 0.999], and 0, `(2 D,)`."""
        return torch.cat([_logit(mean), torch.zeros_like(mean)])


class Poisson(Likelihood):
    r"""P(X|z) = Poisson(X; e^f), for counts X = 0, 1, ...; log-probabilities in nats.

    .. math::
        \log P(X \mid z) = \sum_d X_d f_d - e^{f_d} - \log X_d! \le 0

    References:
        Regression analysis of count data (Cameron and Trivedi, 2013), chapter 3.
    """

    name = "poisson"

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns Poisson(exp(f)) for f `(..., D)`: event shape `(D,)`."""
        return dist.Poisson(f.exp()).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns log(mean), `(D,)`."""
        return _log(mean)


class NegativeBinomial(Likelihood):
    r"""P(X|z): Poisson counts X whose rate varies by a Gamma law; log-probabilities in nats.

    .. math::
        \log P(X \mid z) = \sum_d \log \frac{\Gamma(X_d + r)}{X_d!\, \Gamma(r)}
            + r \log \frac{r}{r + \mu} + X_d \log \frac{\mu}{r + \mu} \le 0, \quad
        \mathrm{var}(X_d) = \mu + \mu^2 / r

    f are D logs of means mu and D logs of r, the larger, the nearer to a Poisson.

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2
    """

    name = "negative-binomial"
    outputs = 2

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns NegativeBinomial(r, logits=log(mu / r)), f `(..., 2 D)`: event shape `(D,)`."""
        log_mean, log_r = f.chunk(2, -1)
        return dist.NegativeBinomial(log_r.exp(), logits=log_mean - log_r).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns log(mean) and 0, `(2 D,)`."""
        return torch.cat([_log(mean), torch.zeros_like(mean)])


class Binomial(Likelihood):
    r"""P(X|z) = Binomial(X; n, logits f(z)), for counts X of 0, ..., n; log-probabilities in nats.

    .. math::
        \log P(X \mid z) = \sum_d \log \binom{n}{X_d} + X_d f_d - n \log(1 + e^{f_d}) \le 0

    Args:
        total_count: n, of each dimension.

    Raises:
        ValueError: If it is no positive integer.

    References:
        Generalized linear models (McCullagh and Nelder, 1989), chapter 4.
    """

    name = "binomial"

    def __init__(self, total_count: int = 255) -> None:
        super().__init__()
        check_sizes(total_count=total_count)
        self.total_count = total_count

    def config(self) -> Config:
        """Returns n."""
        return {"total_count": self.total_count}

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns Binomial(n, logits=f) for f `(..., D)`: event shape `(D,)`."""
        return dist.Binomial(self.total_count, logits=f).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns logit(mean / n), `(D,)`, with the share kept inside [0.001, 0.999]."""
        return _logit(mean / self.total_count)


class Categorical(Likelihood):
    r"""P(X|z) = Cat(X; softmax f(z)), for classes X of 0, ..., K - 1; log-probabilities in nats.

    .. math::
        \log P(X \mid z) = \sum_d f_{d, X_d} - \log \sum_k e^{f_{dk}} \le 0

    Args:
        num_classes: K, of each dimension.

    Raises:
        ValueError: If it is no positive integer.

    References:
        Pixel recurrent neural networks (van den Oord et al., 2016), for images of 256 levels,
        https://arxiv.org/abs/1601.06759
    """

    name = "categorical"
    outputs = 256

    def __init__(self, num_classes: int = 256) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes)
        self.outputs = num_classes

    def config(self) -> Config:
        """Returns K."""
        return {"num_classes": self.outputs}

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns Categorical(logits) for f `(..., K D)`, class by class: event shape `(D,)`.

        Its mean, as pictures show it, is that of the numbers of the classes.
        """
        logits = f.unflatten(-1, (self.outputs, -1)).mT
        return distributions.Categorical(logits=logits).to_event(1)


class DiscretizedLogistic(Likelihood):
    r"""P(X|z): a logistic variable rounded to L grey levels in [0, 1]; log-probabilities in nats.

    .. math::
        \log P(X \mid z) = \sum_d \log \Bigl( \sigma\bigl((X_d + h - \mu_d) / s_d\bigr)
            - \sigma\bigl((X_d - h - \mu_d) / s_d\bigr) \Bigr) \le 0, \quad
        h = \frac{1}{2 (L - 1)}

    the first and the last level with all that lies beyond them. f are D numbers mu and D logs of
    s. Being a probability, it can be told in bits per dimension.

    Args:
        levels: L; X are k / (L - 1).

    Raises:
        ValueError: If there are fewer than two.

    References:
        Improving variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517
    """

    name = "discretized-logistic"
    outputs = 2

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        check_sizes(levels=levels)
        if levels < 2:
            raise ValueError(f"levels is {levels}; give two or more")
        self.levels = levels

    def config(self) -> Config:
        """Returns L."""
        return {"levels": self.levels}

    def forward(self, f: Tensor) -> TorchDistribution:
        """Returns the distribution for f `(..., 2 D)`: event shape `(D,)`."""
        loc, log_scale = f.chunk(2, -1)
        return distributions.DiscretizedLogistic(loc, log_scale.exp(), self.levels).to_event(1)

    def start(self, mean: Tensor) -> Tensor:
        """Returns the mean and log 0.1, `(2 D,)`."""
        return torch.cat([mean, torch.full_like(mean, log(0.1))])


def _log(mean: Tensor) -> Tensor:
    """Returns log(mean), of at least 1e-6."""
    return mean.clamp(min=LEAST).log()


def _logit(share: Tensor) -> Tensor:
    """Returns the logit of a share, kept inside [0.001, 0.999]."""
    return torch.logit(share.clamp(0.001, 0.999))
