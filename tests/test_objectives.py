"""What SVI maximises: values against definitions, and what a program must have for them."""

import math
from dataclasses import dataclass, fields
from functools import partial
from typing import get_type_hints

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae.program import log_weights
from pyrovae.rng import seeded
from pyrovae.svi import objectives
from pyrovae.svi.objective import known
from pyrovae.svi.objectives import (
    ELBO,
    IWAE,
    STL,
    AnalyticELBO,
    BetaELBO,
    DReG,
    Trimmed,
    objective_of,
)
from pyrovae.svi.options import Options, Settings

fit = partial(pv.svi.fit, progress=False)


@dataclass(frozen=True)
class Renyi(pv.Objective):
    """The bound of alpha = 1/2 (Li and Turner, 2016), of S draws: a user's own."""

    num_particles: int = 5

    def per_datum(self, model, guide, *data):
        log_w = log_weights(model, guide, *data, num_particles=self.num_particles)
        return 2 * ((log_w / 2).logsumexp(0) - math.log(self.num_particles))


def data(n=20, dim=4):
    return (torch.rand(n, dim) < 0.5).to(torch.get_default_dtype())


def mixture(num_components=2, dim=4):
    """Of products of Bernoullis, with the component k to be summed out; and its log p(x)."""
    start = torch.linspace(-1, 1, num_components * dim).reshape(num_components, dim)

    def model(x):
        pi = pyro.param("pi", torch.zeros(num_components)).softmax(-1)
        logits = pyro.param("logits", start)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(pi))
            pyro.sample("x", dist.Bernoulli(logits=logits[k]).to_event(1), obs=x)

    def log_p(x):
        pi, logits = (pyro.param(name) for name in ("pi", "logits"))
        each = dist.Bernoulli(logits=logits).to_event(1).log_prob(x[:, None])
        return (each + pi.log_softmax(-1)).logsumexp(-1)

    return model, log_p


def test_the_elbo_of_each_datum_is_that_of_the_batch():
    vae, x = pv.VAE(4, 2), data()
    for size in (1, 3):
        with seeded(0):
            each = ELBO(size).per_datum(vae.model, vae.guide, x)
        assert each.shape == (20,)
        with seeded(0):
            copies = x.repeat(size, 1)
            loss = Trace_ELBO().differentiable_loss(vae.model, vae.guide, copies) / size
        torch.testing.assert_close(-each.sum(), loss)
        parameters = list(vae.parameters())
        pairs = (torch.autograd.grad(v, parameters) for v in (-each.sum(), loss))
        for ours, pyros in zip(*pairs, strict=True):
            torch.testing.assert_close(ours, pyros)


def test_weights_of_the_exact_guide_are_log_p():
    scenario = LinearGaussian.make()
    x = scenario.data(7)
    log_w = log_weights(scenario.model, scenario.exact, x, num_particles=3)
    torch.testing.assert_close(log_w, scenario.log_evidence(x).expand(3, -1))


def test_iwae_against_its_definition():
    vae, x = pv.VAE(4, 2), data(6)
    with seeded(0):
        value = IWAE(5).per_datum(vae.model, vae.guide, x)
    with seeded(0):
        q = vae.encode(x.repeat(5, 1))
        z = q.rsample()
    log_p = vae.prior(z).log_prob(z) + vae.decode(z).log_prob(x.repeat(5, 1))
    w = (log_p - q.log_prob(z)).exp().reshape(5, 6)
    torch.testing.assert_close(value, w.mean(0).log())


def two_layers(reverse):
    """z1 ~ N(z2, 1), x ~ N(z1, .5^2); the guide draws z1 first, or z2. With log p(x)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(len(x)), 1.0))
            z1 = pyro.sample("z1", dist.Normal(z2, 1.0))
            pyro.sample("x", dist.Normal(z1, 0.5), obs=x)

    def guide(x):
        a, b = pyro.param("a", torch.tensor(0.4)), pyro.param("b", torch.tensor(0.7))
        with pyro.plate("data", len(x)):
            if reverse:
                z1 = pyro.sample("z1", dist.Normal(a * x, 0.6))
                pyro.sample("z2", dist.Normal(b * z1, b))
            else:
                z2 = pyro.sample("z2", dist.Normal(a * x, 0.9))
                pyro.sample("z1", dist.Normal(b * z2 + 0.3 * x, b))

    return model, guide, lambda x: dist.Normal(0.0, 2.25**0.5).log_prob(x)


def gradients(objective, model, guide, x, repeats=1):
    """Of the parameters in Pyro's store, of so many runs, `(repeats, parameters)`."""
    found = []
    for _ in range(repeats):
        value = objective.per_datum(model, guide, x).sum()
        named = pyro.get_param_store()
        leaves = [named[k].unconstrained() for k in sorted(named.keys())]
        grads = torch.autograd.grad(value, leaves)
        found.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(found)


def same_in_expectation(a, b):
    """Whether the means of draws `(repeats, ...)` agree within 4.5 standard errors."""
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    return ((a.mean(0) - b.mean(0)).abs() < 4.5 * error + 1e-9).all()


def test_analytic_elbo_is_pyros():
    vae, x = pv.VAE(4, 2), data()
    with seeded(0):
        each = AnalyticELBO().per_datum(vae.model, vae.guide, x)
    with seeded(0):
        theirs = TraceMeanField_ELBO().differentiable_loss(vae.model, vae.guide, x)
    torch.testing.assert_close(-each.sum(), theirs)
    with seeded(0):
        torch.testing.assert_close(BetaELBO().per_datum(vae.model, vae.guide, x), each)
    q, p = vae.encode(x), vae.prior(x)
    assert each.var() > 0
    kl = dist.kl.kl_divergence(q, p)
    with seeded(0):
        doubled = BetaELBO(beta=2.0).per_datum(vae.model, vae.guide, x)
    torch.testing.assert_close(doubled, each - kl)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("objective", [AnalyticELBO, STL])
def test_latents_that_hang_on_each_other(objective, reverse):
    """KL of z1 is no integral where the guide draws z2, on which p(z1) depends, after it."""
    model, guide, _ = two_layers(reverse)
    x = torch.tensor([-1.0, 0.5, 2.0]).repeat(300)
    with torch.no_grad():
        values = [o.per_datum(model, guide, x.repeat(20)) for o in (objective(), ELBO())]
    assert same_in_expectation(*(v.reshape(-1, 300, 3).mean(1) for v in values))
    both = [gradients(o, model, guide, x, 60) for o in (objective(), ELBO())]
    assert same_in_expectation(*both)


def test_free_nats():
    """A dimension whose KL is below them has no gradient, and costs them."""
    x, least = data(), 0.05
    loc = torch.tensor([0.01, 1.0], requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(0.5).expand([4]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc.expand(len(x), 2), 1.0).to_event(1))

    value = BetaELBO(free_nats=least).per_datum(model, guide, x)
    torch.testing.assert_close(value, torch.full((20,), 4 * math.log(0.5) - least - 0.5))
    (grad,) = torch.autograd.grad(value.sum(), loc)
    torch.testing.assert_close(grad, torch.tensor([0.0, -20.0]))


def test_warm_up():
    vae, x, objective = pv.VAE(4, 2), data(), BetaELBO(beta=2.0, warmup=4)
    with seeded(0):
        full = objective.per_datum(vae.model, vae.guide, x)
    kl = dist.kl.kl_divergence(vae.encode(x), vae.prior(x))
    for epoch, weight in ((0, 0.0), (1, 0.5), (4, 2.0), (9, 2.0)):
        objective.begin(epoch)
        with seeded(0):
            value = objective.per_datum(vae.model, vae.guide, x)
        torch.testing.assert_close(value, full + (2 - weight) * kl)
    states = []
    vae = pv.VAE(4, 2)
    fit(vae.model, vae.guide, x, num_epochs=3, seed=0, objective=objective, callback=states.append)
    fit(vae.model, vae.guide, x, num_epochs=6, objective=objective, resume=states[-1])
    again = BetaELBO(beta=2.0, warmup=4)
    assert again == objective
    assert objective._weight == 2.0
    for wrong in ({"beta": -1.0}, {"warmup": -1}, {"free_nats": math.nan}):
        with pytest.raises(ValueError, match="give a number, 0 or more"):
            BetaELBO(**wrong)


def test_sticking_the_landing():
    """At the exact guide its gradient is 0 at each draw, where the ELBO's is 0 in the mean."""
    scenario = LinearGaussian.make()
    x = scenario.data(7)

    def guide(x):
        loc = pyro.param("loc", scenario.posterior_mean(x))
        tril = pyro.param("tril", torch.linalg.cholesky(scenario.cov))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))

    assert gradients(STL(), scenario.model, guide, x).abs().max() < 1e-9
    assert gradients(ELBO(), scenario.model, guide, x).abs().max() > 0.1


@pytest.mark.parametrize("reverse", [False, True])
def test_dreg_is_iwae_in_expectation_with_less_noise(reverse):
    model, guide, log_p = two_layers(reverse)
    x = torch.tensor([-1.0, 0.5, 2.0]).repeat(100)
    one, other = (gradients(o, model, guide, x, 80) for o in (IWAE(8), DReG(8)))
    assert same_in_expectation(one, other)
    assert (one.var(0) > 4 * other.var(0)).all()
    with seeded(0):
        values = [o.per_datum(model, guide, x) for o in (IWAE(8), DReG(8))]
    error = values[0].std() / len(x) ** 0.5
    with seeded(0):
        torch.testing.assert_close(values[0], DReG(8).per_datum(model, guide, x))
    assert values[0].mean() < log_p(x).mean() + 4 * error


def test_model_and_guide_that_share_parameters():
    """The encoder in the prior too, as a mixture of posteriors has it: both parts count."""
    net, x = torch.nn.Linear(4, 2), torch.randn(40, 4)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            centre = net(torch.ones(4)).expand(len(x), 2)
            z = pyro.sample("z", dist.Normal(centre, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat(1, 2), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 0.7).to_event(1))

    one, other = (gradients(o, model, guide, x, 100) for o in (IWAE(5), DReG(5)))
    assert same_in_expectation(one, other)


def test_iwae_under_a_subsampling_plate():
    """Pyro's RenyiELBO scales weights inside the logarithm, and lies above log p(x)."""
    scenario = LinearGaussian.make()
    x = scenario.data(4, seed=3).repeat(10, 1)  # any four rows are as good as all

    def model(x):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            z = pyro.sample("z", scenario.prior(4))
            pyro.sample("x", scenario.likelihood(z), obs=x[rows])

    def guide(x):
        mean = scenario.posterior_mean(x)
        scale = pyro.param("scale", 2 * scenario.cov.diagonal().sqrt())
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            pyro.sample("z", dist.Normal(mean[rows], scale).to_event(1))

    truth = scenario.log_evidence(x).mean()
    for objective, gap in ((IWAE(5), 0.5), (DReG(5), 0.5), (AnalyticELBO(3), 1.5), (STL(3), 1.5)):
        draws = torch.stack([objective.per_datum(model, guide, x).mean() for _ in range(50)])
        error = draws.std() / 50**0.5
        assert draws.mean() < truth + 2 * error, objective
        assert draws.mean() > truth - gap - 4 * error, objective
    loss = IWAE(5).loss(model, guide, x)
    assert abs(loss / 40 + truth) < 4
    renyi = RenyiELBO(alpha=0.0, num_particles=5, vectorize_particles=False)
    above = [-renyi.loss(model, guide, x) / 40 for _ in range(50)]
    assert sum(above) / 50 > truth + 0.1


def test_an_objective_of_ones_own_trains():
    x, learned = (torch.arange(50)[:, None] % 2 == torch.tensor([0, 1, 0, 1])).double(), []
    for objective in (None, Renyi(), f"{__name__}.Renyi"):
        with seeded(0):
            vae = pv.VAE(4, 2)
        options = {"num_epochs": 20, "lr": 0.01, "seed": 0, "objective": objective}
        result = fit(vae.model, vae.guide, x, valid=x, **options)
        assert result.elbo[-1] > result.elbo[0]
        learned.append(result.elbo)
    assert learned[1] == learned[2]
    assert learned[1] != learned[0]


EACH = [AnalyticELBO(2), BetaELBO(warmup=2, free_nats=0.02), STL(), IWAE(4), DReG(4), Trimmed(4)]


def normal(x):
    """One normal of all data, without latents: maximum likelihood in closed form."""
    loc, log_scale = pyro.param("loc", torch.zeros(())), pyro.param("log_scale", torch.zeros(()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, log_scale.exp()), obs=x)


@pytest.mark.parametrize(("share", "kept"), [(0.1, 90), (0.0, 100)])
def test_a_share_of_rows_is_ignored(share, kept):
    """A tenth lies far off: mean and spread are those of the others, exactly, or of all."""
    x = torch.cat([torch.linspace(-1, 1, 90), torch.linspace(3, 5, 10)])
    options = {"num_epochs": 500, "batch_size": 100, "lr": 0.05, "lr_schedule": "one-cycle"}
    fit(normal, None, x, objective=Trimmed(1, share), seed=0, **options)
    spread, mean = torch.std_mean(x[:kept], correction=0)
    torch.testing.assert_close(pyro.param("loc"), mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(pyro.param("log_scale").exp(), spread, rtol=1e-5, atol=0)


def test_the_rows_that_are_ignored_are_the_least_probable_ones():
    model, log_p = mixture()
    x = data(20)
    value = Trimmed(3, 0.25).per_datum(pv.program.summing_out(model, None, x), None, x)
    each = log_p(x)
    assert (value == 0).sum() == 5
    assert each[value == 0].max() <= each[value != 0].min()
    torch.testing.assert_close(value[value != 0], each[value != 0])


@pytest.mark.parametrize("share", [-0.1, 0.5, math.nan])
def test_what_is_no_share_of_rows(share):
    with pytest.raises(ValueError, match="share is .*; give a number from 0 to below 0.5"):
        Trimmed(share=share)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("objective", EACH, ids=lambda o: o.name)
def test_it_is_compiled(objective):
    x, learned = data(16), []
    for compile in (False, True):
        with seeded(0):
            vae = pv.VAE(4, 2, (6,))
        run = {"num_epochs": 3, "batch_size": 16, "seed": 0, "lr": 0.01}
        result = fit(vae.model, vae.guide, x, objective=objective, compile=compile, **run)
        learned.append(result.elbo)
    torch.testing.assert_close(*map(torch.tensor, learned))


def test_what_is_summed_out_is_not_compiled():
    model, _ = mixture()
    with pytest.warns(UserWarning, match="the SVI step runs uncompiled, slower"):
        fit(model, None, data(), num_epochs=1, compile=True)


def test_discrete_latents_that_no_guide_draws_are_summed_out():
    model, log_p = mixture()
    x = data(40)
    states = []
    fit(model, None, x, valid=x, num_epochs=1, batch_size=40, lr=0.1, seed=0,
        optimizer=torch.optim.SGD, callback=states.append)  # fmt: skip
    before, after = (s["parameters"] for s in states)
    for name, value in before.items():
        pyro.get_param_store()[name] = value.clone()
    ours = [pyro.param(name) for name in before]
    value = log_p(x).mean()
    for (name, p), grad in zip(before.items(), torch.autograd.grad(value, ours), strict=True):
        torch.testing.assert_close(after[name], p + 0.1 * grad)
    assert states[1]["elbo"][0] == pytest.approx(value.item())
    for name, value in after.items():
        pyro.get_param_store()[name] = value.clone()
    assert states[1]["valid_elbo"][0] == pytest.approx(log_p(x).mean().item())


def test_discrete_latents_beside_a_guide():
    """As Pyro's own way of it has it, and not a draw of k from its prior."""
    x = data()

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(k.to(x.dtype), 1.0))
            loc = pyro.param("loc", torch.zeros(4))
            pyro.sample("x", dist.Bernoulli(logits=z[..., None] + loc).to_event(1), obs=x)

    def guide(x):
        loc = pyro.param("q", torch.zeros(4))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ loc, 1.0))

    summed = objectives.ELBO().prepared(model, guide, x)
    losses = []
    for run in (
        lambda: ELBO().loss(summed, guide, x),
        lambda: -ELBO().per_datum(summed, guide, x).sum(),
        lambda: TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(
            config_enumerate(model), guide, x
        ),
    ):
        with seeded(0):
            losses.append(run())
    torch.testing.assert_close(*losses[:2])
    torch.testing.assert_close(*losses[1:])


def test_maximum_likelihood_of_a_model_without_latents():
    x = torch.randn(50, 3)
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.randn(50)

    def model(x, y):
        slope = pyro.param("slope", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ slope, 1.0), obs=y)

    result = fit(model, None, (x, y), valid=(x, y), num_epochs=300, batch_size=50, lr=0.1)
    best = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    torch.testing.assert_close(pyro.param("slope").detach(), best, atol=1e-3, rtol=0)
    log_p = dist.Normal(x @ best, 1.0).log_prob(y).mean().item()
    assert result.valid_elbo[-1] == pytest.approx(log_p, abs=1e-4)


def test_a_latent_that_nobody_draws():
    vae, x = pv.VAE(4, 2), data()

    def guide(x):
        pyro.module("encoder", vae.encoder)

    for objective in (None, Trace_ELBO(), IWAE()):
        with pytest.raises(TypeError, match="guide is None; training needs one, .* site 'z'$"):
            fit(vae.model, None, x, objective=objective)
    with pytest.raises(ValueError, match="the guide does not draw site 'z'; draw it there"):
        fit(vae.model, guide, x)


def outside(x):
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([4]).to_event(1), obs=x)


def draws_w(x):
    pyro.sample("w", dist.Normal(0.0, 1.0))


def plateless(x):
    pyro.sample(
        "x",
        dist.Normal(pyro.param("loc", torch.zeros(4)).expand(len(x), 4), 1.0).to_event(2),
        obs=x,
    )


def drawn(x):
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Categorical(logits=pyro.param("q", torch.zeros(2))))


@pytest.mark.parametrize(
    ("model", "guide", "words"),
    [
        (
            outside,
            lambda x: pyro.sample("w", dist.Normal(0.0, 1.0)),
            "one plate .* and site 'w' is in none",
        ),
        (
            plateless,
            None,
            "all sites in one plate over the .* rows it is given, and site 'x' is in none",
        ),
        (mixture()[0], drawn, "'k' is Categorical, whose draws have no gradient"),
        (mixture()[0], None, "the guide does not draw site 'k'"),
    ],
)
def test_programs_without_a_value_for_each_datum(model, guide, words):
    x = data().float()
    with pytest.raises(ValueError, match=words):
        IWAE().per_datum(model, guide, x)
    if "does not draw" not in words:
        with pytest.raises(ValueError, match=words):
            fit(model, guide, x, objective=IWAE())


def test_names():
    assert objective_of(None) == objective_of("elbo") == ELBO()
    assert objective_of(Renyi) == objective_of(f"{__name__}.Renyi") == Renyi()
    with pytest.raises(ValueError, match="no objective named 'elb'; did you mean elbo"):
        objective_of("elb")
    assert objective_of("iwae(50)") == IWAE(50)
    assert objective_of("beta-elbo(warmup=20)") == BetaELBO(warmup=20)
    assert objective_of(f"{__name__}.Renyi(3)") == Renyi(3)
    for wrong, words in {
        "iwae(k=3)": r"the objective iwae cannot be had .*; it takes num_particles",
        "iwae(0)": "num_particles is 0; give a positive integer",
        "iwae(": r"cannot be read; write options as in 'name\(3, option=0.5\)'",
        "iwae(print)": "cannot be read",
        "iwae()()": "cannot be read",
    }.items():
        with pytest.raises(ValueError, match=words):
            objective_of(wrong)
    with pytest.raises(ValueError, match="math.inf is no subclass of pyrovae.Objective"):
        objective_of("math.inf")

    class Named(pv.Objective):
        name = "test-named"

        def __init__(self, size):
            self.size = size

        def per_datum(self, model, guide, *data):
            return -torch.ones(self.size)

    try:
        with pytest.raises(TypeError, match="Named cannot be made without arguments"):
            objective_of("test-named")
        assert Named(3).loss(None, None) == 3
        with pytest.raises(TypeError, match="the name 'test-named' is that of"):

            class Other(Named):
                name = "test-named"
    finally:
        known.pop("test-named")


def test_options_are_known_by_name_and_type():
    vae, x = pv.VAE(4, 2), data()
    with pytest.raises(TypeError, match="fit has no option 'batchsize'; did you mean batch_size?"):
        fit(vae.model, vae.guide, x, batchsize=3)
    with pytest.raises(TypeError, match="fit has no option 'zzz'; choose from valid, num"):
        fit(vae.model, vae.guide, x, zzz=3)
    named = ["num_epochs", "batch_size", "lr", "seed"]
    assert [f.name for f in fields(Settings)] == [*named, *Options.__annotations__]
    hints = get_type_hints(Settings)
    assert all(hints[name] == kind for name, kind in get_type_hints(Options).items())
