"""Every autoguide, over latents that all data share and over those of each datum; easy guides."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import autoguide as auto

from programs.answers import axis, expectation, integral
from programs.cases import case

# ---- latents that all data share: b ~ N(0, 1), s ~ LogNormal(0, 1/2), y ~ N(b x, s)


def shared(x, y):
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    s = pyro.sample("s", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(b * x, s), obs=y)


def pairs(n=5):
    x = torch.randn(n)
    return x, 0.7 * x + torch.randn(n)


def jointly(x, y):
    """log p of all y, on a grid over b and log s."""

    def log_joint(u):
        flat = u[:, 0]
        log_b = dist.Normal(0.0, 1.0).log_prob(flat[:, 0])
        log_s = dist.Normal(0.0, 0.5).log_prob(flat[:, 1])
        mean = flat[:, :1] * x
        log_all = dist.Normal(mean, flat[:, 1:].exp()).log_prob(y).sum(-1)
        return (log_b + log_s + log_all)[:, None]

    return integral(log_joint, axis(-6, 6, 161), axis(-4, 4, 161))[0]


START = {"b": 0.5, "s": 1.0}


def start():
    return auto.init_to_value(values={name: torch.tensor(v) for name, v in START.items()})


def predictive(guide, x, y):
    """log E p(y_n | b, s) over the normal that an autoguide's packed (b, log s) has."""
    posterior = guide.get_posterior()
    loc, cov = posterior.mean, getattr(posterior, "covariance_matrix", None)
    cov = posterior.variance.diag() if cov is None else cov

    def log_p(u):
        return dist.Normal(u[..., 0] * x, u[..., 1].exp()).log_prob(y)

    return expectation(log_p, loc, torch.linalg.cholesky(cov), 40)


PREDICTIVE = "predictive density: Gauss-Hermite over the guide's normal"
JOINT = "joint evidence: a grid"


def over_shared(make):
    (x, y), guide = pairs(), make(shared)
    return shared, guide, (x, y), lambda: predictive(guide, x, y)


def all_at_once(make):
    (x, y), guide = pairs(), make(shared)
    return shared, guide, (x, y), lambda: jointly(x, y)


@case("AutoNormal", PREDICTIVE)
def auto_normal():
    """AutoNormal over what all data share."""
    (x, y), guide = pairs(), auto.AutoNormal(shared, init_loc_fn=start(), init_scale=0.4)

    def exact():
        def log_p(u):
            return dist.Normal(u[..., 0] * x, u[..., 1].exp()).log_prob(y)

        return expectation(log_p, torch.tensor([0.5, 0.0]), 0.4 * torch.eye(2), 40)

    return shared, guide, (x, y), exact


@case("AutoDiagonalNormal", PREDICTIVE)
def auto_diagonal_normal():
    """AutoDiagonalNormal over what all data share: one packed draw and its transforms."""
    return over_shared(lambda m: auto.AutoDiagonalNormal(m, init_loc_fn=start(), init_scale=0.4))


@case("AutoMultivariateNormal", PREDICTIVE)
def auto_multivariate_normal():
    """AutoMultivariateNormal over what all data share."""
    return over_shared(
        lambda m: auto.AutoMultivariateNormal(m, init_loc_fn=start(), init_scale=0.4)
    )


@case("AutoLowRankMultivariateNormal", PREDICTIVE)
def auto_low_rank():
    """AutoLowRankMultivariateNormal over what all data share."""

    def make(model):
        return auto.AutoLowRankMultivariateNormal(
            model, init_loc_fn=start(), init_scale=0.4, rank=1
        )

    return over_shared(make)


@case("AutoMultivariateNormal", JOINT, plate=None)
def auto_multivariate_normal_jointly():
    """The same for the evidence of all data."""
    return all_at_once(
        lambda m: auto.AutoMultivariateNormal(m, init_loc_fn=start(), init_scale=0.5)
    )


@case("AutoIAFNormal", JOINT, plate=None)
def auto_iaf():
    """AutoIAFNormal: an inverse autoregressive flow, made in its first run."""
    return all_at_once(lambda m: auto.AutoIAFNormal(m, hidden_dim=[4]))


@case("AutoNormalizingFlow", JOINT, plate=None)
def auto_flow():
    """AutoNormalizingFlow with a spline."""
    flow = dist.transforms.iterated
    coupling = dist.transforms.spline_autoregressive

    def make(model):
        return auto.AutoNormalizingFlow(model, lambda d: flow(1, coupling, d, hidden_dims=[4]))

    return all_at_once(make)


@case("AutoLaplaceApproximation", JOINT, plate=None)
def auto_laplace():
    """AutoLaplaceApproximation, once its `laplace_approximation` has been taken."""
    x, y = pairs()
    points = auto.AutoLaplaceApproximation(shared, init_loc_fn=start())
    points(x, y)
    guide = points.laplace_approximation(x, y)
    return shared, guide, (x, y), lambda: jointly(x, y)


@case(
    "AutoLaplaceApproximation",
    plate=None,
    refused="before its `laplace_approximation` it is a point",
    message=r"(?i)point|delta",
)
def auto_laplace_before():
    """AutoLaplaceApproximation as it is trained."""
    return shared, auto.AutoLaplaceApproximation(shared, init_loc_fn=start()), pairs()


@case("AutoStructured", JOINT, plate=None)
def auto_structured():
    """AutoStructured: a normal each, a linear dependency between them."""

    def make(model):
        return auto.AutoStructured(
            model,
            conditionals={"b": "normal", "s": "normal"},
            dependencies={"s": {"b": "linear"}},
            init_loc_fn=start(),
            init_scale=0.5,
        )

    return all_at_once(make)


@case("AutoGaussian", JOINT, plate=None)
def auto_gaussian():
    """AutoGaussian: a precision as sparse as the model."""
    return all_at_once(lambda m: auto.AutoGaussian(m, init_loc_fn=start(), init_scale=0.5))


@case("AutoNormalMessenger", JOINT, plate=None)
def auto_normal_messenger():
    """AutoNormalMessenger: the model itself, its latents drawn elsewhere."""
    return all_at_once(lambda m: auto.AutoNormalMessenger(m, init_loc_fn=start(), init_scale=0.5))


@case("AutoHierarchicalNormalMessenger", JOINT, plate=None)
def auto_hierarchical_messenger():
    """AutoHierarchicalNormalMessenger: each latent's posterior follows its prior."""

    def make(model):
        return auto.AutoHierarchicalNormalMessenger(model, init_loc_fn=start(), init_scale=0.5)

    return all_at_once(make)


@case("AutoRegressiveMessenger", JOINT, plate=None)
def auto_regressive_messenger():
    """AutoRegressiveMessenger, each latent an affine map of its prior's draw."""
    return all_at_once(
        lambda m: auto.AutoRegressiveMessenger(m, init_loc_fn=start(), init_scale=0.8)
    )


@case("AutoGuideList", JOINT, plate=None)
def auto_guide_list():
    """AutoGuideList of an AutoNormal and a function of one's own."""

    def rest(x, y):
        pyro.sample("s", dist.LogNormal(0.0, 0.5))

    def make(model):
        guide = auto.AutoGuideList(model)
        hidden = poutine.block(model, hide=["s"])
        start = auto.init_to_value(values={"b": torch.tensor(0.5)})
        guide.append(auto.AutoNormal(hidden, init_loc_fn=start, init_scale=0.6))
        guide.append(rest)
        return guide

    return all_at_once(make)


@case("AutoDelta, AutoGuideList", "predictive density: Gauss-Hermite over b")
def auto_guide_list_with_point():
    """AutoGuideList of an AutoDelta and an AutoDiagonalNormal: a parameter and a draw."""
    x, y = pairs()
    guide = auto.AutoGuideList(shared)
    guide.append(auto.AutoDelta(poutine.block(shared, hide=["b"]), init_loc_fn=start()))
    normal = poutine.block(shared, hide=["s"])
    guide.append(auto.AutoDiagonalNormal(normal, init_loc_fn=start(), init_scale=0.4))

    def exact():
        def log_p(b):
            return dist.Normal(b[..., 0] * x, 1.0).log_prob(y)

        return expectation(log_p, torch.tensor([0.5]), torch.tensor([[0.4]]), 40)

    return shared, guide, (x, y), exact


@case(
    "AutoDelta, AutoGuideList",
    plate=None,
    refused="a density at a point is no evidence",
    message=r"(?i)point|delta",
)
def auto_guide_list_jointly():
    """The same for joint evidence: the point stands beside an auxiliary draw."""
    model, guide, data, _ = auto_guide_list_with_point()
    return model, guide, data


@case(
    "AutoDelta",
    plate=None,
    refused="a density at a point is no evidence",
    message=r"(?i)point|delta",
)
def auto_delta_jointly():
    """AutoDelta for joint evidence."""
    return shared, auto.AutoDelta(shared, init_loc_fn=start()), pairs()


# ---- a latent of each datum: t ~ Gamma(4, 2), x ~ Poisson(t)


def local(x):
    with pyro.plate("data", len(x)):
        t = pyro.sample("t", dist.Gamma(4.0, 2.0))
        pyro.sample("x", dist.Poisson(t), obs=x)


def events(n=5):
    return torch.poisson(torch.full((n,), 2.0))


def negative_binomial(x):
    return dist.GammaPoisson(4.0, 2.0).log_prob(x)


def rates(x):
    return auto.init_to_value(values={"t": (x + 4) / 3})


CLOSED = "negative binomial"


@case("AutoNormal", CLOSED, "importance ais")
def auto_normal_of_each():
    """AutoNormal with parameters for each of 70 data, more than a block."""
    return auto_normal_of(70)


@case("AutoNormal", CLOSED, "importance ais")
def auto_normal_of_few():
    """The same for 5 data, a block."""
    return auto_normal_of(5)


def auto_normal_of(size):
    x = events(size)
    guide = auto.AutoNormal(local, init_loc_fn=rates(x), init_scale=0.6)
    return local, guide, (x,), lambda: negative_binomial(x)


@case("pyro.param", CLOSED, "importance ais")
def parameters_of_each():
    """A guide with `pyro.param` for each of 70 data."""
    x = events(70)

    def guide(x):
        loc = pyro.param("loc", lambda: ((x + 4) / 3).log())
        scale = pyro.param("scale", lambda: torch.full((len(x),), 0.7))
        with pyro.plate("data", len(x)) as rows:
            pyro.sample("t", dist.LogNormal(loc[rows], scale[rows]))

    return local, guide, (x,), lambda: negative_binomial(x)


@case("AutoNormal, obs_mask", "negative binomial of what is observed", "importance")
def auto_normal_of_missing():
    """`obs_mask`: what is missing is a latent of its own, masked in model and guide."""
    x, seen = torch.randn(5), torch.tensor([True, False, True, True, False])

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x, obs_mask=seen)

    guide = auto.AutoNormal(
        model, init_loc_fn=auto.init_to_value(values={"z": x / 2}), init_scale=0.9
    )

    def exact():
        log_x = dist.Normal(0.0, 1.25**0.5).log_prob(x)
        return torch.where(seen, log_x, 0.0)

    return model, guide, (x, seen), exact


@case(
    "AutoDelta",
    refused="a point for a latent of each datum is no density",
    message=r"(?i)point|delta",
)
def auto_delta_of_each():
    """AutoDelta over latents of each datum."""
    x = events()
    return local, auto.AutoDelta(local, init_loc_fn=rates(x)), (x,)


@case(
    "AutoMultivariateNormal",
    refused="it packs all data's latents into one dependent draw",
    message=r"(?i)plate|auxiliary|joint|pack",
)
def auto_multivariate_normal_of_each():
    """AutoMultivariateNormal over latents of each datum."""
    x = events()
    return local, auto.AutoMultivariateNormal(local, init_loc_fn=rates(x)), (x,)


@case("AutoMultivariateNormal", "joint evidence: " + CLOSED, "importance", plate=None)
def auto_multivariate_normal_of_all():
    """The same for the evidence of all data together."""
    x = events(3)
    guide = auto.AutoMultivariateNormal(local, init_loc_fn=rates(x), init_scale=0.7)
    return local, guide, (x,), lambda: negative_binomial(x).sum()


@case("AutoDiscreteParallel", "a sum over components", "importance")
def auto_discrete_parallel():
    """AutoDiscreteParallel: the probabilities of a class are parameters of each datum."""
    x, loc = torch.randn(5), torch.tensor([-1.0, 1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
            pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x)

    def exact():
        log_x = dist.Normal(loc, 1.0).log_prob(x[:, None])
        return (torch.tensor([0.3, 0.7]).log() + log_x).logsumexp(-1)

    return model, auto.AutoDiscreteParallel(model), (x,), exact


# ---- easy guides: m is shared, t ~ N(m, 1) and x ~ N(t, 1/2) are of each datum


def hierarchy(x):
    m = pyro.sample("m", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        t = pyro.sample("t", dist.Normal(m, 1.0))
        pyro.sample("x", dist.Normal(t, 0.5), obs=x)


class Easy(EasyGuide):
    """A point for what is shared, a group for the rest."""

    def guide(self, x):
        self.map_estimate("m")
        group = self.group(match="t")
        with self.plate("data", len(x)):
            group.sample("ts", dist.Normal(0.8 * x[:, None], 0.6).to_event(1))

    def init(self, site):
        return torch.full_like(site["fn"](), 0.4)


class EasyDraws(Easy):
    """The same, drawn."""

    def guide(self, x):
        pyro.sample("m", dist.Normal(0.3, 0.5))
        group = self.group(match="t")
        with self.plate("data", len(x)):
            group.sample("ts", dist.Normal(0.8 * x[:, None], 0.7).to_event(1))


@case("contrib/easyguide", "closed form at the point", "importance")
def easy_guide():
    """`map_estimate` of what is shared, `group.sample` of each datum's."""
    x = torch.randn(5)
    exact = dist.Normal(0.4, 1.25**0.5)
    return hierarchy, Easy(hierarchy), (x,), lambda: exact.log_prob(x)


@case("contrib/easyguide", "predictive density in closed form", "importance")
def easy_guide_drawn():
    """The same with what is shared drawn."""
    x = torch.randn(5)
    exact = dist.Normal(0.3, (1.25 + 0.25) ** 0.5)
    return hierarchy, EasyDraws(hierarchy), (x,), lambda: exact.log_prob(x)


@case(
    "contrib/easyguide",
    plate=None,
    refused="a density at a point is no evidence",
    message=r"(?i)point|delta",
)
def easy_guide_jointly():
    """The same for joint evidence: a point beside auxiliary draws."""
    return hierarchy, Easy(hierarchy), (torch.randn(5),)


@case("contrib/easyguide", "joint evidence in closed form", "importance", plate=None)
def easy_guide_drawn_jointly():
    """The drawn one for joint evidence."""
    x = 1 + 0.5 * torch.randn(3)
    cov = 1.25 * torch.eye(3) + 4.0
    exact = dist.MultivariateNormal(torch.zeros(3), cov)
    return hierarchy, EasyDraws(hierarchy), (x,), lambda: exact.log_prob(x)
