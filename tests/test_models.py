"""Likelihoods, networks and the VAE."""

import copy
import math
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive
from scipy import integrate

import pyrovae as pv
from pyrovae import likelihoods
from pyrovae.nn import MLP, Encoder, positive


def test_bernoulli_takes_logits_where_probabilities_are_clamped():
    logit = torch.tensor([[-100.0]])
    assert pv.likelihoods.make("bernoulli")(logit).log_prob(torch.ones(1)).item() == -100
    clamped = dist.Bernoulli(probs=torch.sigmoid(logit.float())).log_prob(torch.ones(1).float())
    assert clamped.item() == pytest.approx(-15.94, abs=0.01)


def test_bernoulli_is_normalised():
    p = pv.likelihoods.make("bernoulli")(torch.tensor([0.3, -2.0]))
    corners = torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert p.log_prob(corners).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("logit", [-8.0, -0.3, 0.0, 1e-4, 2.0, 8.0])
def test_continuous_bernoulli_integrates_to_one(logit):
    p = pv.likelihoods.make("continuous-bernoulli")(torch.tensor([logit]))

    def density(x):
        return p.log_prob(torch.tensor([x])).exp().item()

    assert integrate.quad(density, 0, 1)[0] == pytest.approx(1, abs=1e-6)


def test_normal_given_and_learned_sigma():
    given = likelihoods.make("normal", sigma=0.3)
    f, x = torch.zeros(2, 4), torch.randn(2, 4)
    theirs = torch.distributions.Normal(0.0, 0.3).log_prob(x).sum(-1)
    torch.testing.assert_close(given(f).log_prob(x), theirs)
    assert not list(given.parameters())
    learned = likelihoods.make("normal")
    assert learned.sigma.item() == pytest.approx(1)
    with torch.no_grad():
        learned.raw_sigma.fill_(-1000.0)
    assert learned.sigma.item() == pytest.approx(0.01)  # the floor: the likelihood is bounded
    for wrong in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="sigma is"):
            likelihoods.make("normal", sigma=wrong)


def test_learned_sigma_trains():
    x = 5 + 0.5 * torch.randn(200, 3)
    vae = pv.VAE(3, 1, (2,), likelihood="normal").start_at(x)
    pv.svi.fit(vae.model, vae.guide, x, num_epochs=200, lr=0.02, seed=0, progress=False)
    assert vae.likelihood.sigma.item() == pytest.approx(0.5, abs=0.08)


def test_likelihood_by_name_class_or_instance():
    for given in ("normal", likelihoods.Normal, likelihoods.Normal()):
        assert isinstance(pv.VAE(3, 1, likelihood=given).likelihood, likelihoods.Normal)
    with pytest.raises(ValueError, match="did you mean bernoulli"):
        pv.VAE(3, 1, likelihood="bernouli")
    with pytest.raises(TypeError, match="give a name, a Likelihood class or an instance"):
        pv.VAE(3, 1, likelihood=3)


def test_a_new_family_is_one_class():
    class Laplace(likelihoods.Likelihood):
        name = "test-laplace"
        outputs = 2

        def forward(self, f):
            loc, raw_scale = f.chunk(2, dim=-1)
            return dist.Laplace(loc, positive(raw_scale)).to_event(1)

    class Wide(likelihoods.Normal):
        """No name of its own."""

    try:
        assert likelihoods.families["normal"] is likelihoods.Normal
        with pytest.raises(
            TypeError, match="'normal' is that of pyrovae.likelihoods.single.Normal"
        ):
            type("Other", (likelihoods.Likelihood,), {"name": "normal"})
        vae = pv.VAE(3, 2, likelihood="test-laplace")
        x = torch.randn(20, 3)
        pv.svi.fit(vae.model, vae.guide, x, num_epochs=1, progress=False)
        assert vae.decode(torch.zeros(5, 2)).event_shape == (3,)
        assert pv.evaluate(vae.model, vae.guide, x, num_particles=5, seed=0)
    finally:
        del likelihoods.families["test-laplace"]


# of the package, not of test modules that were collected before
OURS = sorted(
    n for n, c in likelihoods.families.items() if c.__module__ == f"{likelihoods.__name__}.single"
)


# families whose mean is no parameter of theirs, or that want whole numbers
ROUGHLY = "binomial", "categorical", "continuous-bernoulli", "discretized-logistic", "log-normal"


@pytest.mark.parametrize("name", OURS)
def test_start_is_the_mean_of_the_data(name):
    x = torch.rand(50, 3) * torch.tensor([0.1, 0.5, 1.0])
    x = pv.data.binarize(x) if name == "bernoulli" else x
    vae = pv.VAE(3, 2, likelihood=name).start_at(x)
    last = torch.nn.utils.parameters_to_vector([vae.decoder[-1].weight])
    with torch.no_grad():
        vae.decoder[-1].weight.zero_()
    mean = vae.decode(torch.zeros(1, 2)).mean[0]
    if name not in ROUGHLY:
        torch.testing.assert_close(mean, x.mean(0).clamp(0.001, 0.999))
    assert last.abs().sum() > 0


def test_mlp_and_encoder():
    net = MLP(3, (5, 4), 2)
    shapes = [tuple(p.shape) for p in net.parameters()]
    assert shapes == [(5, 3), (5,), (4, 5), (4,), (2, 4), (2,)]
    assert all((p == 0).all() for n, p in net.named_parameters() if n.endswith("bias"))
    loc, scale = Encoder(3, (5,), 2)(torch.full((7, 3), -1e6))
    assert loc.shape == scale.shape == (7, 2)
    assert (scale > 0).all()
    assert positive(torch.tensor([-1e9, 1e9])).tolist() == [1e-4, pytest.approx(1e9)]


def test_model_and_guide_are_the_plate_diagram():
    vae = pv.VAE(x_dim=4, z_dim=2)
    x = torch.ones(7, 4)
    trace = pyro.poutine.trace(vae.model).get_trace(x)
    z, seen = trace.nodes["z"], trace.nodes["x"]
    assert [f.name for f in z["cond_indep_stack"]] == ["data"]
    assert z["fn"].batch_shape == (7,)
    assert z["fn"].event_shape == (2,)
    assert seen["is_observed"]
    assert torch.equal(seen["value"], x)
    trace.compute_log_prob()
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z["value"]).sum(-1)
    torch.testing.assert_close(z["log_prob"], prior)
    guide = pyro.poutine.trace(vae.guide).get_trace(x)
    assert set(guide.stochastic_nodes) == {"data", "z"}
    torch.testing.assert_close(guide.nodes["z"]["fn"].mean, vae.encode(x).mean)


def test_log_weights_are_the_tutorials_formula():
    """log P(X|z) + log N(z; 0, I) - log N(z; mu(X), sigma(X)^2), written out by hand."""
    vae, x = pv.VAE(x_dim=4, z_dim=2), pv.data.binarize(torch.rand(7, 4))
    program = pv.program.inspect(vae.model, vae.guide, x)
    z, log_q = program.propose(range(7), 5)
    log_w = program.log_joint(z, range(7), 5) - log_q
    with torch.no_grad():
        mu, sigma = vae.encoder(x)
        logits = vae.decoder(z["z"])
    log_x = -torch.nn.functional.binary_cross_entropy_with_logits(
        logits, x.expand(5, 7, 4), reduction="none"
    )
    log_ratio = -(z["z"] ** 2) / 2 + ((z["z"] - mu) / sigma) ** 2 / 2 + sigma.log()
    torch.testing.assert_close(log_w, log_x.sum(-1) + log_ratio.sum(-1))


def test_runs_under_pyros_predictive():
    vae = pv.VAE(x_dim=4, z_dim=2)
    draws = Predictive(vae.model, guide=vae.guide, num_samples=5)(torch.ones(3, 4))
    assert draws["z"].shape == (5, 3, 2)


def test_sampling_needs_no_encoder():
    vae = pv.VAE(x_dim=4, z_dim=2)
    del vae.encoder
    stream = torch.get_rng_state()
    x = vae.sample(6, seed=0)
    assert torch.equal(torch.get_rng_state(), stream)
    assert x.shape == (6, 4)
    assert set(x.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(x, vae.sample(6, seed=0))
    assert not torch.equal(x, vae.sample(6, seed=1))


def test_samples_have_the_models_mean():
    vae = pv.VAE(x_dim=3, z_dim=2)
    x = vae.sample(20_000, seed=0)
    z = torch.randn(20_000, 2)
    expected = vae.decode(z).mean.mean(0)
    assert ((x.mean(0) - expected) / (2 * 0.25 / 20_000) ** 0.5).abs().max() < 4


def test_reconstruct_decodes_the_mean():
    vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4)
    torch.testing.assert_close(vae.reconstruct(x), vae.decode(vae.encode(x).mean).mean)
    assert not vae.reconstruct(x).requires_grad


@pytest.mark.parametrize(
    "x",
    [torch.ones(3, 5), torch.ones(4), torch.ones(2, 3, 4), torch.ones(3, 4, dtype=torch.uint8)],
)
def test_wrong_shape_or_dtype(x):
    with pytest.raises(ValueError, match=r"this VAE takes floating \(N, 4\)"):
        pv.VAE(x_dim=4, z_dim=2).encode(x)


def test_config_rebuilds_the_architecture():
    vae = pv.VAE(4, 2, (5, 3), likelihoods.Normal(sigma=0.2))
    again = pv.VAE.from_config(vae.config())
    assert again.config() == vae.config()
    again.load_state_dict(vae.state_dict())
    assert again.likelihood.sigma == 0.2


class Convolutions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Conv2d(1, 2, 2)

    def forward(self, x):
        loc, raw = self.net(x.reshape(-1, 1, 3, 3)).flatten(1).chunk(2, -1)
        return loc, positive(raw)


class Transposed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.ConvTranspose2d(1, 1, 2)

    def forward(self, z):
        return self.net(z.reshape(-1, 1, 2, 2)).flatten(1)


def test_networks_of_your_own(tmp_path):
    x = torch.bernoulli(torch.full((20, 9), 0.3))

    def made():
        return pv.VAE(9, 4, encoder=Convolutions(), decoder=Transposed())

    vae = made()
    before = copy.deepcopy(vae.state_dict())
    pv.svi.fit(vae.model, vae.guide, x, num_epochs=1, seed=0, progress=False)
    assert not [n for n, p in vae.state_dict().items() if torch.equal(p, before[n])]
    pv.save((vae.model, vae.guide), tmp_path, x)
    again = made()
    pv.load(tmp_path, (again.model, again.guide), x)
    options = {"num_particles": 3, "seed": 0}
    one, other = (pv.importance_sampling(v.model, v.guide, x, **options) for v in (vae, again))
    assert torch.equal(one.log_w, other.log_w)
    with pytest.raises(TypeError, match="ends in a ConvTranspose2d, not a Linear layer; set"):
        vae.start_at(x)
    with pytest.raises(TypeError, match=r"returned a Tensor; return \(mu\(x\), sigma\(x\)\)"):
        pv.VAE(9, 4, encoder=torch.nn.Linear(9, 8)).encode(x)


class Learned(torch.nn.Module):
    """P(z) = N(m, I), m learned."""

    def __init__(self):
        super().__init__()
        self.m = torch.nn.Parameter(torch.tensor([1.0, 0.5]))

    def forward(self, x):
        return dist.Normal(self.m.expand(len(x), 2), 1.0).to_event(1)


def test_another_prior():
    """log P(X) is that of the prior written out, and the prior's parameters are learned."""
    vae, x = pv.VAE(3, 2, (4,), prior=Learned()), torch.bernoulli(torch.full((20, 3), 0.5))
    m, estimate = vae.own_prior.m.detach().clone(), pv.quadrature(vae.model, x[:4])
    edges = torch.linspace(-8, 8, 161)
    z = torch.cartesian_prod(edges, edges)
    log_prior = -((z - m) ** 2).sum(-1) / 2 - math.log(2 * math.pi)
    with torch.no_grad():
        log_joint = vae.decode(z[:, None]).log_prob(x[:4]) + log_prior[:, None]
    expected = log_joint.logsumexp(0) + 2 * math.log(0.1)
    torch.testing.assert_close(estimate, expected, atol=1e-4, rtol=0, check_dtype=False)
    pv.svi.fit(vae.model, vae.guide, x, num_epochs=2, seed=0, progress=False)
    assert not torch.equal(vae.own_prior.m, m)
    assert vae.sample(5).shape == (5, 3)
    wide = pv.VAE(3, 2, prior=lambda x: dist.Normal(x.new_zeros(len(x), 2), 3.0).to_event(1))
    assert wide.prior(x).variance[0, 0] == 9
    for other in (vae, wide):
        with pytest.raises(ValueError, match="could not be loaded again: its"):
            pv.save(other, "nowhere")


def test_a_deep_copy_trains_on_its_own():
    vae = pv.VAE(4, 2)
    x = torch.ones(5, 4)
    pyro.poutine.trace(vae.model).get_trace(x)
    other = copy.deepcopy(vae)
    pyro.poutine.trace(other.model).get_trace(x)
    names = [n for n in pyro.get_param_store() if "decoder" in n]
    assert len(names) == 2 * len(list(vae.decoder.parameters()))


def test_float32_in_float32_out(float32):
    vae = pv.VAE(4, 2)
    x = torch.ones(3, 4)
    assert vae.encode(x).mean.dtype == vae.sample(2).dtype == torch.float32


def test_public_names():
    assert set(pv.__all__) <= set(dir(pv))
    for name in pv.__all__:
        assert getattr(pv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = pv.nope
    assert "pyrovae" in sys.modules
    assert np.isfinite(pv.VAE(4, 2).sample(1).numpy()).all()
