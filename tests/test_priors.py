"""Priors P(z) and families of Q(z|X): against closed forms, Pyro's transforms, and each other."""

import math

import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch

import pyrovae as pv
from pyrovae import guides, priors
from pyrovae.__main__ import main
from pyrovae.distributions import NormalMixture
from pyrovae.flows import Flowed, couplings
from pyrovae.nn import ACTIVATIONS, MLP, Residual
from pyrovae.rng import seeded

PRIORS = ["normal", "mixture(5)", "vamp(6)", "flow(2)"]
POSTERIORS = ["diagonal", "full", "flow(2, context=3)"]
EACH = [(p, q) for p in PRIORS for q in POSTERIORS if q == "diagonal" or p != "vamp(6)"]


def mixture(k=7, d=3):
    return torch.randn(k), 2 * torch.randn(k, d), 0.05 + torch.rand(k, d)


def test_mixture_is_torchs():
    logits, locs, scales = mixture()
    theirs = dist.MixtureSameFamily(
        dist.Categorical(logits=logits), dist.Normal(locs, scales).to_event(1)
    )
    ours = NormalMixture(logits, locs, scales).expand((4,))
    z = 3 * torch.randn(5, 4, 3)
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))
    torch.testing.assert_close(ours.mean, theirs.mean.expand(4, 3))
    torch.testing.assert_close(ours.variance, theirs.variance.expand(4, 3))
    assert ours.log_prob(torch.zeros(3)).shape == (4,)
    draws = ours.sample((50_000,))[:, 0]
    assert draws.shape == (50_000, 3)
    error = (draws.mean(0) - theirs.mean) / (theirs.stddev / 50_000**0.5)
    assert error.abs().max() < 4.5
    spread = (draws.var(0) / theirs.variance - 1).abs().max()
    assert spread < 0.1


def test_mixture_is_exact_in_float32():
    """Squares of means far apart, beside scales that are small, cancel."""
    parts = torch.zeros(50), 30 * torch.randn(50, 20), torch.full((50, 20), 0.02)
    logits, locs, scales = (t.float() for t in parts)
    z = locs + scales * torch.randn(50, 20).float()
    found = NormalMixture(logits, locs, scales).log_prob(z)
    exact = NormalMixture(logits.double(), locs.double(), scales.double()).log_prob(z.double())
    assert found.dtype == torch.float32
    assert (found.double() - exact).abs().max() < 1e-4


def test_vamp_is_the_mixture_of_posteriors():
    x = torch.rand(40, 6)
    vae = pv.VAE(6, 2, (5,), prior="vamp(4)").start_at(x)
    inputs = vae.own_prior.inputs
    assert all((row == x).all(1).any() for row in inputs)
    z = torch.randn(3, 2)
    each = vae.encode(inputs).log_prob(z[:, None])  # (3, 4)
    torch.testing.assert_close(vae.prior(z).log_prob(z), each.logsumexp(1) - math.log(4))
    with pytest.raises(ValueError, match="the prior vamp is a mixture of Q.*'diagonal'"):
        pv.VAE(6, 2, prior="vamp", posterior="full").prior(x)


def test_vamp_learns_its_inputs_and_the_encoder_through_them():
    x = torch.rand(40, 6).round()
    vae = pv.VAE(6, 2, (5,), prior="vamp(4)").start_at(x)
    states = []
    run = {"num_epochs": 1, "seed": 0, "progress": False, "callback": states.append}
    pv.svi.fit(vae.model, vae.guide, x, **run)
    before, after = (s["parameters"] for s in states)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("inputs" in name for name in moved)
    assert len(before) == len({p.data_ptr() for p in vae.parameters()})  # each of them once
    z = torch.randn(1, 2)
    vae.prior(z).log_prob(z).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in vae.encoder.parameters())


def test_a_coupling_is_pyros():
    net = couplings(4, 0, 1, (8,))
    f = net(None)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)

    def hypernet(first):
        shift, raw = net.transforms[0].hyper(first).unflatten(-1, (2, 2)).unbind(-1)
        return shift, raw / (1 + (raw / math.log(1e-3)).abs())

    order = torch.tensor([0, 2, 1, 3])  # zuko's mask takes each second number
    swap = T.Permute(order)
    theirs = T.ComposeTransform([swap, T.AffineCoupling(2, hypernet), swap.inv])
    z = torch.randn(9, 4)
    u = theirs(z)
    torch.testing.assert_close(f(z), u)
    ours = Flowed(dist.Normal(torch.zeros(9, 4), 1.0).to_event(1), f)
    log_p = dist.Normal(0.0, 1.0).log_prob(u).sum(-1) + theirs.log_abs_det_jacobian(z, u)
    torch.testing.assert_close(ours.log_prob(z), log_p)


def test_a_flow_of_a_context():
    """Its density is that of the noise times the determinant; its draws go back to the noise."""
    q = guides.Flow(3, num_transforms=3, context=2, hidden_dims=(7,))
    h = torch.randn(5, q.outputs, requires_grad=True)
    d = q(h)
    z = d.rsample()
    assert torch.autograd.grad(z.sum(), h, retain_graph=True)[0].abs().sum() > 0
    u = d.transform(z)
    rows = torch.autograd.functional.jacobian(lambda z: d.transform(z).sum(0), z).permute(1, 0, 2)
    exact = d.base.log_prob(u) + torch.linalg.slogdet(rows)[1]
    torch.testing.assert_close(d.log_prob(z), exact)
    torch.testing.assert_close(d.transform.inv(u), z)
    both = d.log_prob(torch.stack([z, z + 1]))  # particles to the left
    torch.testing.assert_close(both[0], exact)
    assert d.expand((4, 5)).rsample((2,)).shape == (2, 4, 5, 3)


def test_full_covariance():
    q = guides.Full(3)
    h = torch.randn(5, q.outputs)
    d = q(h)
    assert q.outputs == 9
    torch.testing.assert_close(d.loc, h[:, :3])
    lower = d.scale_tril
    assert (lower == lower.tril()).all()
    torch.testing.assert_close(lower[:, 1, 0], h[:, 6])
    torch.testing.assert_close(lower[:, 2, 0], h[:, 7])
    torch.testing.assert_close(lower[:, 2, 1], h[:, 8])
    torch.testing.assert_close(
        lower.diagonal(dim1=-2, dim2=-1), guides.Diagonal(3)(h[:, :6]).base_dist.scale
    )
    assert guides.Full(1)(torch.randn(2, 2)).sample().shape == (2, 1)


@pytest.mark.parametrize(("prior", "posterior"), EACH)
def test_each_with_each(prior, posterior, tmp_path):
    """Gradients reach every parameter; evidence is that of a grid; and it is read again."""
    x = torch.rand(12, 6).round()
    with seeded(0):
        vae = pv.VAE(6, 2, (5,), prior=prior, posterior=posterior, activation="gated")
    vae.start_at(x)
    value = pv.svi.objectives.ELBO().per_datum(vae.model, vae.guide, x)
    grads = torch.autograd.grad(value.sum(), list(vae.parameters()))
    assert all(g.isfinite().all() for g in grads)
    assert sum(not g.any() for g in grads) <= 1  # the first weights of a mixture are equal
    axis = torch.linspace(-8, 8, 161)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_p = vae.decode(z).log_prob(x[:, None]) + vae.prior(z).log_prob(z)
    exact = log_p.logsumexp(1) + 2 * math.log(0.1)
    draws = {"num_particles": 1_000, "seed": 0, "proposal": pv.Defensive(0.5)}
    post = pv.importance_sampling(vae.model, vae.guide, x, **draws)
    error = (post.log_evidence() - exact) / post.std_error()
    assert error.abs().max() < 5
    pv.save(vae, tmp_path / "run")
    again = pv.load(tmp_path / "run")
    z = torch.randn(12, 2)
    for one, other in ((vae.encode(x), again.encode(x)), (vae.prior(x), again.prior(x))):
        torch.testing.assert_close(one.log_prob(z), other.log_prob(z))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation):
    net = MLP(3, (5, 4), 2, activation)
    x = torch.randn(7, 3, requires_grad=True)
    assert net(x).shape == (7, 2)
    assert torch.autograd.grad(net(x).sum(), x)[0].abs().sum() > 0
    assert pv.VAE(3, 2, activation=activation).config().get("activation", "tanh") == activation


def test_gates():
    net = MLP(3, (5,), 2, "gated")
    x = torch.randn(7, 3)
    value, gate = net[0](x).chunk(2, -1)
    torch.testing.assert_close(net(x), net[2](value * torch.sigmoid(gate)))


@pytest.mark.parametrize(("activation", "posterior"), [("silu", "diagonal"), ("gated", "full")])
def test_residual_layers(activation, posterior, tmp_path):
    """Each adds to the one before it, at first nothing; and the network is read again."""
    options = {"activation": activation, "posterior": posterior, "residual": True}
    vae = pv.VAE(6, 2, (5, 5, 5), **options)
    plain = pv.VAE(6, 2, (5, 5, 5), activation=activation, posterior=posterior)
    assert [p.shape for p in vae.parameters()] == [p.shape for p in plain.parameters()]
    for net in (vae.encoder, vae.decoder):
        assert sum(isinstance(m, Residual) for m in net.modules()) == 2
    net, a, z = vae.decoder, ACTIVATIONS[activation](), torch.randn(7, 2)
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
    torch.testing.assert_close(net(z), layers[-1](a(layers[0](z))))
    value = pv.svi.objectives.ELBO().per_datum(vae.model, vae.guide, torch.rand(12, 6).round())
    assert all(g.any() for g in torch.autograd.grad(value.sum(), list(vae.parameters())))
    with torch.no_grad():
        for p in vae.parameters():
            p.normal_()
    h = layers[0](z)
    for linear in layers[1:-1]:
        h = h + linear(a(h))
    torch.testing.assert_close(net(z), layers[-1](a(h)))
    pv.save(vae, tmp_path / "run")
    torch.testing.assert_close(pv.load(tmp_path / "run").decode(z).mean, vae.decode(z).mean)
    for widths in ((5,), (5, 4)):
        with pytest.raises(ValueError, match="residual layers are two or more of one width"):
            pv.VAE(6, 2, widths, residual=True)


def test_what_is_no_prior_or_posterior():
    for wrong, words in (
        ({"prior": "vmap"}, "there is no prior named 'vmap'; did you mean vamp?"),
        ({"prior": "mixture(0)"}, "num_components is 0; give a positive integer"),
        ({"prior": "mixture(width=3)"}, "it takes z_dim, x_dim, num_components"),
        ({"prior": priors.Normal(3, 4)}, "the prior is for z_dim 3 and x_dim 4"),
        ({"posterior": "ful"}, "there is no posterior named 'ful'; did you mean full"),
        ({"posterior": guides.Full(3)}, "the posterior is for z_dim 3, and z_dim is 2"),
        ({"activation": "tanhh"}, "there is no activation 'tanhh'; did you mean tanh?"),
    ):
        with pytest.raises(ValueError, match=words):
            pv.VAE(6, 2, **wrong)
    with pytest.raises(TypeError, match="posterior is 3; give a name"):
        pv.VAE(6, 2, posterior=3)
    full = pv.VAE(6, 2, posterior="full", encoder=pv.nn.Encoder(6, (5,), 2))
    with pytest.raises(TypeError, match=r"returned a tuple; return what Q.*, \(N, 5\)"):
        full.encode(torch.zeros(3, 6))
    with pytest.raises(ValueError, match="a flow of couplings needs two dimensions or more"):
        pv.VAE(6, 1, prior="flow")
    with pytest.raises(ValueError, match="weights was asked for; give smaller networks"):
        pv.VAE(6, 2, prior="flow(4, hidden_dims=[1000000, 1000000])")


def test_of_ones_own():
    class Wide(priors.Prior):
        name = "test-wide"

        def __init__(self, z_dim, x_dim, scale=3.0):
            super().__init__(z_dim, x_dim)
            self.scale = scale

        def config(self):
            return {"scale": self.scale}

        def forward(self, x, encode):
            return dist.Normal(x.new_zeros(len(x), self.z_dim), self.scale).to_event(1)

    try:
        vae = pv.VAE(6, 2, prior="test-wide(2.5)")
        assert vae.prior(torch.zeros(3, 6)).stddev.unique().item() == 2.5
        assert vae.config()["prior"] == "test-wide(scale=2.5)"
        assert pv.VAE.from_config(vae.config()).own_prior.scale == 2.5
    finally:
        del priors.families["test-wide"]


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = "--num-epochs 1 --num-particles 50 --z-dim 2 --hidden-dims 8 --no-progress".split()
    asked = ["--model.prior", "vamp(5)", "--model.activation", "gated", "--objective", "iwae(3)"]
    assert main(["svi", *short, *asked, "--estimators", "importance", "--out", "run"]) == 0
    vae = pv.load("run")
    assert vae.config()["prior"] == "vamp(num_components=5)"
    assert vae.activation == "gated"
    assert "likelihood bernoulli; prior vamp(5); activation gated; objective iwae(3)" in " ".join(
        capsys.readouterr().out.split()
    )
    rows = "--rows 20 --estimators importance --num-particles 50 --no-progress".split()
    assert main(["evidence", "run", *rows]) == 0
    assert main(["svi", *short, "--out", "again", "--likelihood", "normal(floor=0.2)"]) == 0
    assert pv.load("again").likelihood.floor == 0.2
    assert main(["svi", *short, "--model.prior", "vmap"]) == 2
    assert "there is no prior named 'vmap'; did you mean vamp?" in capsys.readouterr().err
