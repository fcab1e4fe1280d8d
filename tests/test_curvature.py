"""Curvature of log p(x, z): Gauss and Newton's against Hessians, and Fisher's information."""

from math import sqrt

import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import Bounded, GammaPoisson, GlobalMean, Mixture, TwoLevels
from torch import nn
from torch.nn.functional import softplus

from pyrovae.program import Curvatures, GeometricPath, curvature, inspect


def path_of(model, *data, plate="data", block_size=64):
    program = inspect(model, None, *data, plate=plate, block_size=block_size)
    return GeometricPath(program, program.blocks(block_size)[-1])


def hessian(path, u):
    """The negative Hessian of log f_1, datum by datum."""

    def log_f(u):
        return path(u[None])[1].sum()

    whole = -torch.autograd.functional.hessian(log_f, u)
    return whole if u.ndim == 1 else whole.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def checked(model, *data, known=True, monkeypatch=None, **options):
    """The curvature at a draw, held against the Hessian."""
    path = path_of(model, *data, **options)
    if known:  # or it would be the Hessian that is compared with itself
        monkeypatch.setattr(Curvatures, "_exact", None)
    u = path.start(1)[0]
    found = Curvatures(path)(u)
    v = u.clone().requires_grad_()
    log_f = path(v[None])[1][0]
    torch.testing.assert_close(found.log_f, log_f.detach())
    torch.testing.assert_close(found.grad, torch.autograd.grad(log_f.sum(), v)[0])
    torch.testing.assert_close(found.products, hessian(path, u), rtol=1e-8, atol=1e-8)
    return found


def counts():
    return torch.tensor([[0.0, 1, 2], [1, 0, 1], [2, 2, 0], [0, 0, 1]])


LIKELIHOODS = {
    "normal": lambda a, x: pyro.sample("x", dist.Normal(a, 0.5).to_event(1), obs=x),
    "bernoulli": lambda a, x: pyro.sample("x", dist.Bernoulli(logits=a).to_event(1), obs=x % 2),
    "poisson": lambda a, x: pyro.sample("x", dist.Poisson(a.exp()).to_event(1), obs=x),
    "binomial": lambda a, x: pyro.sample("x", dist.Binomial(3, logits=a).to_event(1), obs=x),
    "categorical": lambda a, x: pyro.sample("x", dist.Categorical(logits=a), obs=x[..., 0]),
    "event of categorical": lambda a, x: pyro.sample(
        "x", dist.Categorical(logits=a.unflatten(-1, (1, 3))).to_event(1), obs=x[..., :1]
    ),
    "one of categories": lambda a, x: pyro.sample(
        "x", dist.OneHotCategorical(logits=a), obs=torch.eye(3)[x[..., 0].long()]
    ),
}


def decoder():
    return nn.Sequential(nn.Linear(2, 5), nn.LeakyReLU(), nn.Linear(5, 3)).double()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_piecewise_linear_nets(likelihood, monkeypatch):
    net = decoder()

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), torch.tensor([0.5, 2.0])).to_event(1))
            LIKELIHOODS[likelihood](2 * net(z), x)

    checked(model, counts(), monkeypatch=monkeypatch)


def rows_alone(x, z, mean):
    """A program that takes no dimension to the left."""
    pyro.sample("x", dist.Normal(mean(z.reshape(len(x), 2)), 0.5).to_event(1), obs=x)


def one_by_one(x, z, mean):
    """A program of four rows, no other number."""
    pyro.sample("x", dist.Normal(mean(z.reshape(4, 2)), 0.5).to_event(1), obs=x)


@pytest.mark.filterwarnings("ignore:the program runs one particle at a time")
@pytest.mark.parametrize("observe", [rows_alone, one_by_one])
def test_programs_that_do_not_broadcast(observe, monkeypatch):
    net = decoder()

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            observe(x, pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)), net)

    assert not path_of(model, counts()).program.particles.vectorized
    checked(model, counts(), monkeypatch=monkeypatch)


def nested(x):
    TwoLevels().model(x)


def hierarchical(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.3).to_event(1))
        b = pyro.sample(
            "b", dist.Normal(a @ torch.tensor([[1.0, 2, 0], [0, 1, -1]]), 0.7).to_event(1)
        )
        pyro.sample("x", dist.Normal(b, 0.5).to_event(1), obs=x)


def masked(x):
    keep = x != 1
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.poutine.mask(mask=keep[:, 0]):
            pyro.sample("x", dist.Normal(2 * z, 0.5).mask(keep).to_event(1), obs=x)
        pyro.sample("y", dist.Normal(z.sum(-1), 1.0).mask(keep[:, 1]), obs=x[:, 0])


def subsampled(x):
    with pyro.plate("data", len(x), subsample_size=3) as rows:
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(2 * z, 0.5).to_event(1), obs=x[rows])


def columns(x):
    with pyro.plate("data", x.shape[1], dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("repeats", len(x), dim=-2):
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)


@pytest.mark.parametrize("model", [nested, hierarchical, masked, subsampled, columns])
def test_plates_and_masks(model, monkeypatch):
    x = counts()
    checked(model, x.T.contiguous() if model is columns else x, monkeypatch=monkeypatch)


def test_joint_latents(monkeypatch):
    checked(GlobalMean().model, counts()[:, 0], plate=None, monkeypatch=monkeypatch)


def family_of(name, sample):
    """z ~ N(0, 1), a latent of another family, and x normal around both."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            sample(x, z)

    return pytest.param(model, id=name)


def factored(x, z):
    pyro.sample("x", dist.Normal(z, 0.7), obs=x[:, 0])
    pyro.factor("f", -z.pow(4) + x[:, 0] * z)


@pytest.mark.parametrize(
    "model",
    [
        family_of("lognormal", lambda x, z: pyro.sample("x", dist.Normal(
            pyro.sample("b", dist.LogNormal(z, 0.5)), 1.0), obs=x[:, 0])),
        family_of("dirichlet", lambda x, z: pyro.sample("x", dist.Normal(
            pyro.sample("p", dist.Dirichlet(torch.ones(3)))[..., 0] * z, 0.3), obs=x[:, 0])),
        family_of("correlations", lambda x, z: pyro.sample("x", dist.MultivariateNormal(
            torch.zeros(3), scale_tril=pyro.sample("l", dist.LKJCholesky(3, 2.0))), obs=x)),
        family_of("factor", factored),
    ],
)  # fmt: skip
def test_other_families_have_their_hessian(model):
    checked(model, counts(), known=False)


def test_bounded_latents_and_sums_have_their_hessian():
    for scenario in (Bounded(), GammaPoisson()):
        checked(scenario.model, scenario.data(), known=False)
    checked(Mixture().with_latent, Mixture().data(), known=False)


def test_without_a_curvature_there_is_none():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Laplace(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Laplace(z, 1.0), obs=x[:, 0])

    path = path_of(model, counts())
    assert (Curvatures(path)(path.start(1)[0]).products == 0).all()


FAMILIES = {
    dist.Normal: lambda t: dist.Normal(t[0], softplus(t[1])),
    dist.Bernoulli: lambda t: dist.Bernoulli(logits=t[0]),
    dist.Binomial: lambda t: dist.Binomial(5, logits=t[0]),
    dist.Categorical: lambda t: dist.Categorical(logits=t),
    dist.OneHotCategorical: lambda t: dist.OneHotCategorical(logits=t),
    dist.Poisson: lambda t: dist.Poisson(softplus(t[0])),
    dist.Gamma: lambda t: dist.Gamma(softplus(t[0]), softplus(t[1])),
    dist.Beta: lambda t: dist.Beta(softplus(t[0]), softplus(t[1])),
    dist.StudentT: lambda t: dist.StudentT(4.0, t[0], softplus(t[1])),
}


CATEGORIES = (dist.Categorical, dist.OneHotCategorical)


@pytest.mark.parametrize("kind", FAMILIES)
def test_information_is_that_of_the_scores(kind):
    """E[(d log p)(d log p)^T] over 100,000 draws, within 4.5 standard errors."""
    make, theta, n = FAMILIES[kind], torch.tensor([-0.4, 1.4]), 100_000
    many = theta.expand(n, 2).clone().requires_grad_()
    log_p = make(many if kind in CATEGORIES else many.T).log_prob(make(theta).sample((n,)))
    (score,) = torch.autograd.grad(log_p.sum(), many)
    products = score[:, :, None] * score[:, None, :]

    def roots(theta):
        found = curvature._information(make(theta), torch.zeros(()), latent=False)
        return torch.cat([r.reshape(-1) for r in found])

    slope = torch.autograd.functional.jacobian(roots, theta)
    off = slope.T @ slope - products.mean(0)
    assert (off.abs() <= 4.5 * products.std(0) / sqrt(n) + 1e-9).all()


def test_each_family_is_tested():
    ours = {kind.__name__ for kind in FAMILIES}
    assert {kind.__name__ for kind in curvature.FAMILIES} == ours
