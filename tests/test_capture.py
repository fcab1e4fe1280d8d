"""Compiled graphs of programs: the same numbers as the programs, or the programs themselves."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from scenarios import LinearGaussian
from torch.distributions import constraints

import pyrovae as pv
from pyrovae.evidence.samplers.annealing import anneal
from pyrovae.evidence.samplers.sampler import ImportanceSampler
from pyrovae.evidence.samplers.scheme import Scheme
from pyrovae.evidence.samplers.tuning import tune
from pyrovae.program import Captured, inspect, negative_elbo

pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture(autouse=True)
def warnings_of_the_compiler():
    """torch warns of many things the first time it compiles; of ours each is a failure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")
        yield


def vae_and_data(n=32):
    torch.manual_seed(1)
    vae = pv.VAE(x_dim=12, z_dim=3, hidden_dims=(8,))
    return vae, torch.bernoulli(torch.full((n, 12), 0.3))


def leaning(x):
    """Its latents lean on x: no draws are shared."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x[:, 0], 1.0))
        pyro.sample("x", dist.Normal(z[..., None] + 0 * x, 2.0).to_event(1), obs=x)


class Scaled:
    """A program of `pyro.param`, with a constraint, a scale and a mask."""

    def model(self, x):
        s = pyro.param("s", torch.tensor(0.7), constraint=constraints.positive)
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=0.5):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.poutine.mask(mask=x[:, 0] > 0):
                pyro.sample("x", dist.Normal(z[:, None], s).expand([len(x), 2]).to_event(1), obs=x)

    def guide(self, x):
        a = pyro.param("a", torch.tensor(0.1))
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=0.5):
            pyro.sample("z", dist.Normal(a * x.sum(1), 0.8))


def test_negative_elbo_is_the_loss_of_trace_elbo():
    scaled, x = Scaled(), torch.randn(20, 2)
    vae, bits = vae_and_data()
    for program, data in ((scaled, x), (vae, bits)):
        torch.manual_seed(3)
        ours = negative_elbo(program.model, program.guide, data)
        torch.manual_seed(3)
        theirs = Trace_ELBO().differentiable_loss(program.model, program.guide, data)
        torch.testing.assert_close(ours, theirs)


def test_loss_and_gradients_are_those_of_trace_elbo():
    """To 1e-5 relative on the same noise, also after a step: parameters are read, not baked in."""
    vae, x = vae_and_data()
    params = list(vae.parameters())

    def step(x):
        with torch.enable_grad():
            loss = negative_elbo(vae.model, vae.guide, x)
        return loss, torch.autograd.grad(loss, params)

    captured = Captured(step, "the loss")
    for seed in range(3):
        torch.manual_seed(seed)
        loss, grads = captured(x)
        torch.manual_seed(seed)
        reference = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)
        expected = torch.autograd.grad(reference, params)
        torch.testing.assert_close(loss, reference.detach(), rtol=1e-5, atol=0)
        for grad, other in zip(grads, expected, strict=True):
            assert (grad - other).norm() <= 1e-5 * other.norm()
        with torch.no_grad():
            for p, grad in zip(params, grads, strict=True):
                p -= 0.01 * grad
    assert captured(x)[0] != captured(x)[0]  # fresh draws in every call


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("make", [lambda: vae_and_data(), lambda: (Scaled(), torch.randn(50, 2))])
def test_fit_compiled_is_fit(make):
    results = []
    for compile in (False, True):
        pyro.clear_param_store()
        torch.manual_seed(2)
        program, x = make()
        fit = pv.svi.fit(
            program.model, program.guide, x, num_epochs=4, batch_size=20, compile=compile, seed=0
        )
        results.append(fit)
    eager, compiled = results
    assert compiled.elbo == pytest.approx(eager.elbo, rel=1e-4)
    assert compiled.elbo[0] != compiled.elbo[-1]


def reads_a_value(x):
    return -x if x.sum().item() > 0 else x  # the line


def test_a_function_that_reads_values_runs_itself_and_the_line_is_named():
    captured = Captured(reads_a_value, "log p(x)")
    x = torch.ones(3)
    with pytest.warns(UserWarning, match=r"reads a tensor's value at .*test_capture.py:\d+ \(ret"):
        assert torch.equal(captured(x), -x)
    assert torch.equal(captured(-x), -x)  # the other branch; and no second warning


def test_a_function_that_hides_values_from_the_graph_runs_itself():
    captured = Captured(lambda x: x + torch.as_tensor(x.numpy()), "log p(x)")
    x = torch.arange(3.0)
    with pytest.warns(UserWarning, match="off by 2: the program depends on something"):
        assert torch.equal(captured(x), 2 * x)


@pytest.mark.usefixtures("compiler")
def test_fit_notices_that_the_program_changes():
    """A weight that Python changes between epochs would stay as it was in the graph."""
    oracle = LinearGaussian.make()
    x = oracle.data(64)
    loc = torch.nn.Linear(5, 2)
    weight = {"kl": 1.0}

    def model(x):
        with pyro.plate("data", len(x)):
            with pyro.poutine.scale(scale=weight["kl"]):
                z = pyro.sample("z", oracle.prior(len(x)))
            pyro.sample("x", oracle.likelihood(z), obs=x)

    def guide(x):
        pyro.module("loc", loc)
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=weight["kl"]):
            pyro.sample("z", dist.Normal(loc(x), 0.3).to_event(1))

    def callback(state):
        weight["kl"] = 0.1 if len(state["elbo"]) == 2 else 1.0

    options = dict(num_epochs=3, batch_size=64, seed=0, callback=callback)
    start = {k: v.clone() for k, v in loc.state_dict().items()}
    eager = pv.svi.fit(model, guide, x, **options)
    loc.load_state_dict(start)
    with pytest.warns(UserWarning, match="the SVI step runs uncompiled, slower: its graph is off"):
        compiled = pv.svi.fit(model, guide, x, **options, compile=True)
    assert compiled.elbo == pytest.approx(eager.elbo, rel=1e-5)


def test_without_a_reparameterized_site_fit_goes_on_as_ever():

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        logits = pyro.param("logits", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logits.expand(len(x))))

    x, options = torch.tensor([0.0, 1.0, 1.0]), dict(num_epochs=2, lr=0.1, seed=0)
    with pytest.warns(UserWarning, match="site 'z' is Bernoulli, whose draws have no gradient"):
        pv.svi.fit(model, guide, x, **options, compile=True)


def test_without_a_compiler_all_runs_as_ever(monkeypatch):
    def none(*_, **__):
        raise RuntimeError("Failed to find C++ compiler")

    monkeypatch.setattr(torch, "compile", none)
    vae, x = vae_and_data()
    options = dict(num_epochs=1, batch_size=32, seed=0)
    with pytest.warns(UserWarning, match="Failed to find C"):
        compiled = pv.svi.fit(vae.model, vae.guide, x, **options, compile=True)
    vae, x = vae_and_data()
    assert compiled.elbo == pv.svi.fit(vae.model, vae.guide, x, **options).elbo


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_evidence_compiled_is_evidence():
    """Same draws, of all blocks, short ones too, and of all chunks."""
    vae, x = vae_and_data(70)
    options = dict(estimators=["elbo", "importance", "prior", "ais"], num_particles=200, seed=0)
    options |= dict(block_size=32, chunk_size=32 * 200, num_temperatures=20, num_chains=200)
    eager = pv.evaluate(vae.model, vae.guide, x, **options)
    compiled = pv.evaluate(vae.model, vae.guide, x, **options, compile=True)
    for name, estimate in compiled.estimates.items():
        assert (estimate.value - eager.estimates[name].value).abs().max() < 1e-3, name
        assert estimate.num_draws.eq(200).all()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    "how",
    [
        {"num_particles": 3_000},
        {"num_particles": 512, "qmc": True},
        {"num_particles": 300, "proposal": pv.Widened(1.1)},
        {"num_particles": 300, "proposal": pv.Defensive(0.1)},
        {"num_particles": 300, "proposal": pv.Refined(3)},
        {"num_particles": "auto", "tolerance": 0.2, "max_particles": 1_000},
    ],
)
def test_every_kind_of_draw_compiles(how):
    """Same draws, so the same weights."""
    vae, x = vae_and_data(70)
    options = {"seed": 0, "block_size": 32}
    eager = pv.importance_sampling(vae.model, vae.guide, x, **how, **options)
    compiled = pv.importance_sampling(vae.model, vae.guide, x, **how, **options, compile=True)
    torch.testing.assert_close(compiled.log_w, eager.log_w, atol=1e-3, rtol=0)


def test_blocks_of_every_length_have_the_same_draws():
    """From the guide, and from a prior that leans on x, which no data share; 1 to 8 rows."""
    vae, x = vae_and_data(16)
    scheme = Scheme(12_000)
    for model, guide in ((vae.model, vae.guide), (leaning, None)):
        eager = inspect(model, guide, x, block_size=8)
        compiled = eager.compiled()
        for size in range(1, 9):
            rows = range(8, 8 + size)
            one, other = (
                ImportanceSampler(p, scheme, 0, 4096).log_weights(rows).log_w
                for p in (eager, compiled)
            )
            torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
        assert any(graph._graph for graph in compiled.graphs.values())


def test_annealing_takes_the_same_way_in_blocks_of_every_length():
    """But for a run in which a step is accepted, or not, by less than rounding."""
    vae, x = vae_and_data(16)
    eager = inspect(vae.model, vae.guide, x, block_size=8)
    compiled = eager.compiled()
    kernel = tune(eager, 10, "tuned", 2, 0)
    parted = 0
    for size in range(1, 9):
        rows = range(8, 8 + size)
        one, other = (anneal(p, rows, 32, 0, kernel)[0] for p in (eager, compiled))
        parted += ((one - other).abs() > 1e-3).sum().item()
    assert parted <= 5  # of 32 x 36


@pytest.mark.usefixtures("compiler")
def test_the_prior_and_annealing_compile():
    _, x = vae_and_data(64)
    run = {"seed": 0, "num_particles": 300}
    for fn, more in ((pv.prior_sampling, {"block_size": 32}), (pv.ais, {"num_temperatures": 3})):
        a, b = (fn(leaning, x, **run, **more, compile=c) for c in (True, False))
        torch.testing.assert_close(a.log_w, b.log_w, atol=1e-3, rtol=0)


def test_log_likelihood_of_extreme_logits_is_right():
    """Compiled, log(1 + exp(-|l|)) is not torch's; float32-right it has to be all the same."""
    logits = torch.linspace(-120, 120, 241).expand(3, -1).contiguous()
    x = torch.bernoulli(torch.full((3, 241), 0.5))

    def log_p(logits, x):
        return dist.Bernoulli(logits=logits).log_prob(x)

    captured = Captured(log_p, "log p(x|z)")
    exact = dist.Bernoulli(logits=logits.double()).log_prob(x.double())
    torch.testing.assert_close(captured(logits, x).double(), exact, rtol=1e-6, atol=1e-6)


def test_a_program_run_one_by_one_is_not_compiled():
    def model(x):
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
            scale = torch.ones(3) * z.reshape(3).exp()
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    options = dict(estimators=["prior"], num_particles=4, compile=True, block_size=2)
    with (
        pytest.warns(UserWarning, match="one particle at a time"),
        pytest.warns(UserWarning, match="uncompiled, slower: does not broadcast over particles"),
    ):
        pv.evaluate(model, None, torch.zeros(3), **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu_steps_are_replayed_as_cuda_graphs():
    vae, x = vae_and_data()
    vae.to("cuda")
    fit = pv.svi.fit(vae.model, vae.guide, x.cuda(), num_epochs=3, compile=True, seed=0)
    assert fit.elbo[-1] > fit.elbo[0]
