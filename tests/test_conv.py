"""Images as such: networks that see (C, H, W), and the numbers in rows all the same."""

import re

import pytest
import torch

import pyrovae as pv
from pyrovae import report
from pyrovae.data import DataError, Split, Splits
from pyrovae.nn import ConvDecoder, ConvEncoder


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


def test_networks_of_rows_take_images_too():
    vae = pv.VAE((1, 2, 3), z_dim=2, hidden_dims=(4,))
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
