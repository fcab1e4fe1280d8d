"""What SVI maximises: values against definitions, and what a program must have for them."""

import math
from dataclasses import dataclass, fields
from functools import partial
from typing import get_type_hints

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae.program import log_weights
from pyrovae.rng import seeded
from pyrovae.svi import objectives
from pyrovae.svi.objectives import ELBO, objective_of
from pyrovae.svi.options import Options, Settings

fit = partial(pv.svi.fit, progress=False)


@dataclass(frozen=True)
class IWAE(pv.Objective):
    """log mean_s w_s, of S draws (Burda et al., 2015)."""

    num_particles: int = 5

    def per_datum(self, model, guide, *data):
        log_w = log_weights(model, guide, *data, num_particles=self.num_particles)
        return log_w.logsumexp(0) - math.log(self.num_particles)


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


def test_an_objective_of_ones_own_trains():
    x, learned = (torch.arange(50)[:, None] % 2 == torch.tensor([0, 1, 0, 1])).double(), []
    for objective in (None, IWAE(), f"{__name__}.IWAE"):
        with seeded(0):
            vae = pv.VAE(4, 2)
        options = {"num_epochs": 20, "lr": 0.01, "seed": 0, "objective": objective}
        result = fit(vae.model, vae.guide, x, valid=x, **options)
        assert result.elbo[-1] > result.elbo[0]
        learned.append(result.elbo)
    assert learned[1] == learned[2]
    assert learned[1] != learned[0]


@pytest.mark.usefixtures("compiler")
def test_it_is_compiled():
    x, learned = data(16), []
    for compile in (False, True):
        with seeded(0):
            vae = pv.VAE(4, 2)
        run = {"num_epochs": 2, "batch_size": 16, "seed": 0, "lr": 0.01}
        result = fit(vae.model, vae.guide, x, objective=IWAE(4), compile=compile, **run)
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
    assert objective_of(IWAE) == objective_of(f"{__name__}.IWAE") == IWAE()
    with pytest.raises(ValueError, match="no objective named 'elb'; did you mean elbo"):
        objective_of("elb")
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
        objectives._known.pop("test-named")


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
