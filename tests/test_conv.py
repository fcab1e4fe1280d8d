"""Images as such: networks that see (C, H, W), and the numbers in rows all the same."""

import math
import re

import pytest
import torch

import pyrovae as pv
from pyrovae import report
from pyrovae.__main__ import main
from pyrovae.data import DataError, Split, Splits
from pyrovae.nn import ConvDecoder, ConvEncoder, ConvNet
from pyrovae.rng import seeded

EACH = [
    ("normal", "full"),
    ("mixture(5)", "flow(2, context=3)"),
    ("vamp(6)", "diagonal"),
    ("flow(2)", "full"),
]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 1, 9)])
@pytest.mark.parametrize("channels", [(2,), (3, 2)])
def test_the_decoder_is_the_encoder_in_reverse(shape, channels):
    loc, scale = ConvEncoder(shape, channels, 4)(torch.randn(6, *shape))
    assert loc.shape == scale.shape == (6, 4)
    assert (scale > 0).all()
    decoder = ConvDecoder(4, channels[::-1], shape)
    z = torch.randn(5, 6, 4)
    assert decoder(z).shape == (5, 6, *shape)
    torch.testing.assert_close(decoder(z)[2], decoder(z[2]))  # particles are rows like others
    layers = [p.shape for p in decoder.net.parameters() if p.ndim == 4]
    theirs = [p.shape for p in ConvEncoder(shape, channels, 4).net.parameters() if p.ndim == 4]
    assert layers == theirs[::-1]


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
def test_images_are_their_rows(likelihood):
    torch.manual_seed(0)
    vae = pv.ConvVAE((2, 4, 6), z_dim=3, channels=(2, 3), likelihood=likelihood)
    images = torch.bernoulli(torch.rand(7, 2, 4, 6))
    rows = images.flatten(1)
    options = {"num_particles": 5, "seed": 0}
    one, other = (
        pv.importance_sampling(vae.model, vae.guide, x, **options) for x in (images, rows)
    )
    assert torch.equal(one.log_w, other.log_w)
    q, z = vae.encode(rows), torch.randn(7, 3)
    assert torch.equal(q.mean, vae.encoder(images)[0])
    p = vae.likelihood(vae.decoder(z).flatten(1))
    assert torch.equal(vae.decode(z).log_prob(rows), p.log_prob(rows))
    vae.start_at(images)
    with torch.no_grad():
        for p in vae.decoder.net.parameters():
            p.zero_()
    expected = rows.mean(0).clamp(0.001, 0.999) if likelihood == "bernoulli" else rows.mean(0)
    torch.testing.assert_close(vae.decode(z).mean[0], expected)
    with pytest.raises(ValueError, match=r"takes floating \(N, 48\) or \(N, 2, 4, 6\)"):
        vae.encode(images[:, :1])


@pytest.mark.usefixtures("float32")
def test_the_pair_trains_and_has_its_page():
    splits = pv.data.load("digits", binarize="static")
    x = splits.train.x[:200]
    vae = pv.ConvVAE.for_data(splits, z_dim=2, channels=(4, 8))
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    found = pv.svi.fit(vae.model, vae.guide, x, num_epochs=3, lr=0.01, seed=0, progress=False)
    assert found.elbo[-1] > found.elbo[0]
    assert not [k for k, v in vae.state_dict().items() if torch.equal(v, before[k])]
    evidence = pv.evaluate(vae.model, vae.guide, x[:30], num_particles=20, seed=0)
    page = report.render(vae, Split(x[:30]), (8, 8), evidence, {}, {"data": "digits"}, "a run")
    assert re.search(
        r"A ConvVAE of 64 dimensions \(8 × 8\) .*2 latent dimensions, .*bernoulli", page
    )


@pytest.mark.parametrize(("prior", "posterior"), EACH)
def test_priors_and_posteriors(prior, posterior, tmp_path):
    """Gradients reach every parameter; evidence is that of a grid; and it is read again."""
    parts = {"prior": prior, "posterior": posterior, "activation": "gated"}
    with seeded(0):
        x = torch.rand(12, 1, 3, 5).round()
        vae = pv.ConvVAE((1, 3, 5), 2, (2, 3), **parts).start_at(x)
    value = pv.svi.objectives.ELBO().per_datum(vae.model, vae.guide, x)
    grads = torch.autograd.grad(value.sum(), list(vae.parameters()))
    assert all(g.isfinite().all() for g in grads)
    assert sum(not g.any() for g in grads) <= 1  # the first weights of a mixture are equal
    draws = {"num_particles": 1_000, "seed": 0, "proposal": pv.Defensive(0.5)}
    post = pv.importance_sampling(vae.model, vae.guide, x, **draws)
    axis = torch.linspace(-8, 8, 161)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_p = vae.decode(z).log_prob(x.flatten(1)[:, None]) + vae.prior(z).log_prob(z)
    exact = log_p.logsumexp(1) + 2 * math.log(0.1)
    error = (post.log_evidence() - exact) / post.std_error()
    assert error.abs().max() < 5
    pv.save(vae, tmp_path / "run")
    again = pv.load(tmp_path / "run")
    assert again.config() == vae.config()
    z = torch.randn(12, 2)
    for one, other in ((vae.encode(x), again.encode(x)), (vae.prior(x), again.prior(x))):
        torch.testing.assert_close(one.log_prob(z), other.log_prob(z))
    torch.testing.assert_close(vae.decode(z).mean, again.decode(z).mean)


def test_pseudo_inputs_are_images_in_rows():
    images = torch.rand(20, 2, 4, 6)
    vae = pv.ConvVAE((2, 4, 6), 3, (2,), prior="vamp(5)").start_at(images)
    rows = vae.own_prior.inputs
    assert all((row == images.flatten(1)).all(1).any() for row in rows)
    loc, scale = vae.encoder(rows.unflatten(1, (2, 4, 6)))
    p = vae.prior(images)
    torch.testing.assert_close(p.mean, loc.mean(0).expand(20, 3))
    second = (loc.square() + scale.square()).mean(0)
    torch.testing.assert_close(p.variance[0], second - loc.mean(0).square())


def test_units_of_images():
    """A gate of convolutions is of channels, and what units there are is saved."""
    x = torch.randn(5, 2, 4, 6)
    net = ConvNet((2, 4, 6), (3,), 7, "gated")
    value, gate = net[0](x).chunk(2, 1)
    torch.testing.assert_close(net(x), net[3]((value * torch.sigmoid(gate)).flatten(1)))
    decoder = ConvDecoder(3, (4, 2), (1, 3, 5), "gated")
    assert decoder(torch.randn(5, 3)).shape == (5, 1, 3, 5)
    value, gate = decoder.net[:2](z := torch.randn(5, 3)).chunk(2, 1)
    gated = value * torch.sigmoid(gate)
    torch.testing.assert_close(decoder.net[2](decoder.net[:2](z)), gated)
    for activation, unit in (("silu", torch.nn.SiLU), ("tanh", torch.nn.Tanh)):
        vae = pv.ConvVAE.from_config(pv.ConvVAE((1, 4, 4), 2, activation=activation).config())
        for net in (vae.encoder, vae.decoder):
            assert sum(isinstance(m, unit) for m in net.modules()) == 2
    with pytest.raises(ValueError, match="no activation 'silo'; did you mean silu"):
        pv.ConvVAE((1, 4, 4), 2, activation="silo")


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_prior_and_posterior_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = "--num-epochs 1 --num-particles 50 --no-progress --estimators importance".split()
    asked = ["svi", *run, *"--model conv-vae --z-dim 2 --model.channels 4 8".split()]
    vamp = ["--model.prior", "vamp(5)", "--model.activation", "gated"]
    assert main([*asked, *vamp, "--out", "vamp"]) == 0
    config = pv.load("vamp").config()
    assert (config["prior"], config["activation"]) == ("vamp(num_components=5)", "gated")
    assert main([*asked, "--model.posterior", "full", "--out", "full"]) == 0
    assert pv.load("full").config()["posterior"] == "full"
    assert main(["evidence", "full", "--rows", "20", *run[2:]]) == 0
    assert main([*asked, "--model.posterior", "ful"]) == 2
    assert "there is no posterior named 'ful'; did you mean full?" in capsys.readouterr().err
    assert main([*asked, *vamp, "--model.posterior", "full"]) == 2
    assert "the prior vamp is a mixture of Q(z|u)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_convolutions_give_the_same_bytes_in_two_processes():
    vae, x = pv.ConvVAE((1, 8, 8), z_dim=2), pv.data.load("digits", binarize="static").test.x
    options = {"num_particles": 20, "seed": 0, "progress": False}
    values = [
        pv.evaluate(vae.model, vae.guide, x, workers=workers, **options).best().value
        for workers in (1, 2)
    ]
    assert torch.equal(*values)


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_networks_of_rows_take_images_too(posterior):
    vae = pv.VAE((1, 2, 3), z_dim=2, hidden_dims=(4,), posterior=posterior)
    again = pv.VAE.from_config(vae.config())
    assert again.image_shape == (1, 2, 3)
    x = torch.ones(5, 1, 2, 3)
    assert pv.check(vae.model, vae.guide, x).ok
    assert vae.start_at(x).sample(2).shape == (2, 6)


def test_what_is_no_image_is_told():
    with pytest.raises(ValueError, match=r"x_dim is \(2, 3\); give one size, or \(C, H, W\)"):
        pv.VAE((2, 3), 2)
    with pytest.raises(ValueError, match="channels is 0; give a positive integer"):
        pv.ConvVAE((1, 4, 4), 2, (0,))
    part = Split(torch.zeros(3, 4))
    with pytest.raises(DataError, match="ConvVAE is for images, and these data are rows"):
        pv.ConvVAE.for_data(Splits(part, part, part, None, None, {}))
