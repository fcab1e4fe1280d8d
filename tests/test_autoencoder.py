"""The autoencoder, and any program of factors alone: trained, drawn, and refused a log P(X)."""

import json
import re
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch.nn.functional import binary_cross_entropy_with_logits

import pyrovae as pv
from pyrovae.commands import evidence, report, svi
from pyrovae.errors import DataError, NoDensity
from pyrovae.plots import training

WHY = r"^there is no log P\(X\): the model observes no data .* factor 'reconstruction' alone"
ASKED = {
    "evaluate": lambda ae, x: pv.evaluate(ae.model, ae.guide, x),
    "exact": lambda ae, x: pv.evaluate(ae.model, ae.guide, x, estimators="exact"),
    "best": lambda ae, x: pv.evaluate(ae.model, ae.guide, x, estimators="best"),
    "an estimator": lambda ae, x: pv.Importance(9)(ae.model, ae.guide, x),
    "importance": lambda ae, x: pv.importance_sampling(ae.model, ae.guide, x, num_particles=9),
    "a guide": lambda ae, x: pv.importance_sampling(ae.model, nothing, x, num_particles=9),
    "prior": lambda ae, x: pv.prior_sampling(ae.model, x, num_particles=9),
    "ais": lambda ae, x: pv.ais(ae.model, x, num_temperatures=3, num_particles=2),
    "bdmc": lambda ae, x: pv.bdmc(ae.model, x, num_temperatures=3, num_particles=2),
    "certify": lambda ae, x: pv.certify(ae.model, ae.guide, x),
    "quadrature": lambda ae, x: pv.quadrature(ae.model, x),
    "calibrate": lambda ae, x: pv.calibrate(ae.model, ae.guide, x),
    "rate_distortion": lambda ae, x: pv.rate_distortion(ae.model, x),
    "to_arviz": lambda ae, x: pv.to_arviz(ae.model, ae.guide, x),
    "all at once": lambda ae, x: pv.evaluate(ae.model, ae.guide, x, plate=None),
}


def nothing(x):
    """A guide that draws nothing."""


def made(likelihood="bernoulli"):
    return pv.AutoEncoder(6, 2, (5,), likelihood)


def bits(n=20):
    return torch.bernoulli(torch.full((n, 6), 0.4))


def test_maximises_the_reconstruction():
    """Of Bernoulli pixels that is torch's cross entropy; the validation's decides on the epoch."""
    ae, x, valid = made(), bits(6), bits(30)
    fit = pv.svi.fit(
        ae.model, ae.guide, x, valid=valid, num_epochs=60, lr=0.05, seed=0, progress=False
    )
    logits = ae.decoder(ae.encoder(valid))
    loss = binary_cross_entropy_with_logits(logits, valid, reduction="sum") / len(valid)
    assert max(fit.valid_elbo) == fit.valid_elbo[fit.best_epoch - 1] == pytest.approx(-loss.item())
    assert fit.best_epoch < 60  # of which later ones fit the training data alone
    assert fit.elbo[-1] > fit.elbo[fit.best_epoch - 1]
    torch.testing.assert_close(ae.reconstruction(valid).mean(), -loss)
    assert re.search(r": reconstruction -[\d.]+, valid -[\d.]+ nats per datum\)$", repr(fit))


@pytest.mark.slow
def test_a_graph_of_a_step_learns_the_same():
    learned = []
    for compiled in (False, True):
        torch.manual_seed(0)
        ae = made("normal")
        run = {"num_epochs": 3, "batch_size": 10, "seed": 0, "progress": False}
        pv.svi.fit(ae.model, None, bits() + 0.1, compile=compiled, **run)
        learned.append(torch.cat([p.flatten() for p in ae.parameters()]))
    torch.testing.assert_close(*learned)


@pytest.mark.parametrize("name", ASKED)
def test_has_no_log_p(name):
    with pytest.raises(NoDensity, match=WHY) as raised:
        ASKED[name](made(), bits())
    assert "\n" not in str(raised.value)


def test_check_says_so(capsys):
    found = pv.check(made().model, None, bits())
    assert not found
    assert re.search(WHY, found.verdict)
    assert "reconstruction  observed  Unit" in capsys.readouterr().out


def test_any_program_of_factors_alone_is_refused():
    """Also with latents; with what it observes beside them it is evaluated."""

    def model(x, observed):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            p = dist.Normal(z, 1.0)
            if observed:
                pyro.sample("x", p, obs=x)
            else:
                pyro.factor("a", p.log_prob(x))
            pyro.factor("b", torch.zeros(len(x)))

    x = torch.randn(7)
    with pytest.raises(NoDensity, match=r"has factors 'a', 'b' alone, which need not"):
        pv.prior_sampling(model, x, False, num_particles=3)
    w = pv.prior_sampling(model, x, True, num_particles=2_000, seed=0)
    truth = dist.Normal(0.0, 2**0.5).log_prob(x)
    assert ((w.log_evidence() - truth).abs() < 4 * w.std_error()).all()


def test_without_factors_the_guide_is_asked_for():
    vae = pv.VAE(6, 2)
    with pytest.raises(ValueError, match="estimator 'elbo' needs a guide"):
        pv.evaluate(vae.model, None, bits())


def test_what_observes_nothing_is_no_autoencoder():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    with pytest.raises(ValueError, match="the model observes nothing"):
        pv.prior_sampling(model, bits(), num_particles=3)


def test_codes_are_points_and_there_is_no_prior():
    ae, x = made(), bits()
    q = ae.encode(x)
    assert (q.batch_shape, q.event_shape) == ((20,), (2,))
    assert torch.equal(q.mean, ae.code(x))
    assert torch.equal(ae.reconstruct(x), ae.decode(q.mean).mean)
    for protocol in (pv.models.base.HasPrior, pv.models.base.Samples):
        assert not isinstance(ae, protocol)


def test_takes_nets_of_ones_own():
    ae = pv.AutoEncoder(6, 2, encoder=torch.nn.Linear(6, 2), decoder=torch.nn.Linear(2, 6))
    before = ae.encoder.weight.detach().clone(), ae.decoder.weight.detach().clone()
    pv.svi.fit(ae.model, ae.guide, bits(), num_epochs=1, seed=0, progress=False)
    assert not torch.equal(ae.encoder.weight, before[0])
    assert not torch.equal(ae.decoder.weight, before[1])


@pytest.mark.parametrize("x", [torch.zeros(5, 3), torch.zeros(6), torch.zeros(5, 6).int()])
def test_other_shapes_are_refused(x):
    with pytest.raises(ValueError, match=r"this autoencoder takes floating \(N, 6\)"):
        made().code(x)


def test_grey_pixels_have_no_probability():
    with pytest.raises(DataError, match="outside the support of the likelihood 'bernoulli'; bin"):
        pv.svi.fit(made().model, None, torch.full((20, 6), 0.5), num_epochs=1, progress=False)


def test_diagram_has_its_factor():
    found = pv.plots.plates(made().model, None, bits())
    assert "exp reconstruction(x)" in " ".join(t.get_text() for t in found.axes[0].texts)
    assert "P(" not in found.get_label()


def test_curve_is_of_the_reconstruction():
    [axes] = training([-3.0, -2.0], [-3.1, -2.5], 2, "reconstruction", "reconstruction").axes
    assert axes.get_ylabel() == "reconstruction (nats per datum)"
    assert not any("ELBO" in text.get_text() for text in axes.get_legend().get_texts())


def command(tmp_path, *more):
    run = ["--model", "autoencoder", "--num-epochs", "3", "--model.z_dim", "2"]
    return svi.main([*run, "--out", str(tmp_path / "run"), *more])


SAID = r"There is no log P\(X\): .*\bwith x on both sides\b.*\.$"


@pytest.mark.usefixtures("float32")
def test_every_command(tmp_path, capsys):
    """Trains, goes on, draws what there is; what asks for log P(X) is told why there is none."""
    folder = tmp_path / "run"
    assert command(tmp_path) == 0
    told = capsys.readouterr().out
    assert len(re.findall(SAID, told, re.M)) == 1
    assert "reconstruction -" in told
    assert "nats/datum" not in told
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert drawn == {"training", "reconstructions", "latent_space"}
    assert not (folder / "evidence.nc").exists()
    assert isinstance(pv.load(folder), pv.AutoEncoder)
    page = (folder / "report.html").read_text()
    assert "There is no log P(X)" in page
    for heading in ("The latent space", "Pictures", "Run it again"):
        assert f">{heading}</h2>" in page
    for heading in ("Each datum", "How to read it"):
        assert f">{heading}</h2>" not in page
    assert 'class="answer"' not in page

    for more in ([], ["--dry-run"], ["--estimators", "exact"], ["--estimators", "prior", "ais"]):
        assert evidence.main([str(folder), *more]) == 2
        assert re.search(r"^error: there is no log P\(X\): ", capsys.readouterr().err)
    assert not list(folder.glob("evidence*"))

    (folder / "report.html").unlink()
    assert report.main([str(folder)]) == 0
    assert (folder / "report.html").read_text() == page
    capsys.readouterr()
    assert command(tmp_path, "--num-epochs", "4", "--resume", "--json") == 0
    out = capsys.readouterr()
    found = json.loads(out.out)
    assert found["estimators"] == []
    assert found["protocol"]["factors"] == "reconstruction"
    assert re.search(SAID, found["protocol"]["no_log_p"])
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("float32")
def test_no_evidence_of_an_earlier_run_stays(tmp_path, capsys):
    """A page never shows the numbers of the model whose folder it was."""
    more = ["--estimators", "elbo", "--num-particles", "3", "--model", "vae", "--overwrite"]
    assert command(tmp_path, *more) == 0
    assert (tmp_path / "run" / "evidence.nc").exists()
    assert command(tmp_path, "--overwrite") == 0
    assert not (tmp_path / "run" / "evidence.nc").exists()


PROGRAM = """
import pyro, torch

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 3)

    def model(self, x):
        pyro.module("net", self.net)
        with pyro.plate("data", len(x)):
            pyro.factor("fit", -(self.net(x) - x).square().sum(-1))

def make():
    return Own().model, None
"""


def test_a_program_of_ones_own_is_trained_as_well(tmp_path, capsys, monkeypatch):
    """By factors alone, and its folder tells as much."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("factored.py").write_text(PROGRAM)
    np.save("x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    named = ["--program", "factored:make", "--data", "x.npy"]
    assert svi.main([*named, "--num-epochs", "2", "--out", "run"]) == 0
    told = capsys.readouterr().out
    assert "has the factor 'fit' alone" in told
    assert ": fit -" in told
    assert evidence.main(["run", "--program", "factored:make"]) == 2
    assert "error: there is no log P(X)" in capsys.readouterr().err
    assert report.main(["run", "--program", "factored:make"]) == 0
    assert "There is no log P(X)" in Path("run/report.html").read_text()
    assert report.main(["run"]) == 5
    assert "evidence.nc is not there" in capsys.readouterr().err
