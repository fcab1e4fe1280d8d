"""What a user writes; type checkers have to know its names' types (`make lint`)."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.distributions import TorchDistribution
from torch import Tensor

import pyrovae as pv
from pyrovae.data import Split, Splits
from pyrovae.data.rows import Rows
from pyrovae.evidence.samplers.annealing import AnnealedWeights
from pyrovae.export import Groups
from pyrovae.latents.walks import spherical
from pyrovae.models.base import Decodes, Encodes, Generates, HasPrior, Samples, named
from pyrovae.program import log_weights
from pyrovae.svi import Fit

Fn = Callable[..., object]


class IWAE5(pv.Objective):
    """An objective of their own."""

    name = "user-iwae"

    def per_datum(self, model: Fn, guide: Fn | None, *data: Tensor) -> Tensor:
        return log_weights(model, guide, *data, num_particles=5).logsumexp(0) - log(5)


class Coins(pv.data.DataSet):
    """A data set of their own."""

    name = "user-coins"

    def read(self, root: Path, download: bool) -> Split:
        return Split(torch.eye(10).repeat(5, 1))


class Laplace(pv.likelihoods.Likelihood):
    """A likelihood of their own."""

    name = "user-laplace"
    outputs = 2

    def forward(self, f: Tensor) -> TorchDistribution:
        loc, raw = f.chunk(2, dim=-1)
        return dist.Laplace(loc, pv.nn.positive(raw)).to_event(1)


class Mine(pv.Model):
    """A model of their own."""

    name = "user-mine"

    def __init__(self, x_dim: int, z_dim: int = 2) -> None:
        super().__init__()
        self.sizes = {"x_dim": x_dim, "z_dim": z_dim}
        self.net = torch.nn.Linear(z_dim, x_dim)

    def config(self) -> dict[str, int]:
        return self.sizes

    def model(self, x: Tensor) -> None:
        self.register(net=self.net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=x)


def models() -> None:
    splits = assert_type(pv.data.load("digits"), Splits)
    assert_type(splits.test.x, Tensor | Rows)
    vae = assert_type(pv.VAE(x_dim=64, z_dim=8, likelihood=Laplace), pv.VAE)
    assert_type(pv.VAE.for_data(splits, z_dim=2), pv.VAE)
    assert_type(pv.ConvVAE((1, 8, 8), z_dim=2).sample(3, seed=0), Tensor)
    oracle = pv.LinearGaussian(x_dim=64, z_dim=2)
    assert_type(oracle.log_evidence(splits.test.x[:]), Tensor)
    can: tuple[Encodes, Decodes, HasPrior, Samples] = (vae, oracle, vae, oracle)
    assert_type(can[0].encode(splits.test.x[:]), TorchDistribution)
    mixture = pv.GaussianMixture(64, num_components=10).start_at(splits.train.x[:], seed=0)
    assert_type(mixture.responsibilities(splits.test.x[:]), Tensor)
    bayesian = pv.BayesianGaussianMixture.for_data(splits, num_components=3, sigma=0.3)
    assert_type(bayesian.cavi(splits.train.x[:]), Tensor)
    assert_type(bayesian.log_predictive(splits.test.x[:]), Tensor)
    auto = pv.AutoEncoder.for_data(splits, z_dim=2)
    assert_type(auto.reconstruct(splits.test.x[:]), Tensor)
    generates: Generates = pv.CVAE(x_dim=64, y_dim=10, z_dim=2)
    assert_type(generates.generate(torch.arange(10)), torch.Tensor)
    assert_type(pv.NotMIWAE(x_dim=64, z_dim=8, mechanism="higher").sample(3), Tensor)
    assert_type(pv.TableVAE(x_dim=64, z_dim=8).sample(3), Tensor)
    assert_type(pv.HierarchicalVAE(x_dim=64, z_dims=(8, 2)).sample(3), Tensor)
    semi = pv.SemiSupervisedVAE.for_data(splits, z_dim=2, y_dim=10)
    assert_type(semi.classify(splits.test.x[:]), Tensor)
    pv.save(Mine(64), "runs/mine")
    assert_type(pv.load("runs/mine"), pv.Model)
    assert_type(named("user-mine"), type[pv.Model])


def training() -> None:
    vae, x = pv.VAE(x_dim=64, z_dim=8), pv.data.load("digits").train.x
    fit = pv.svi.fit(vae.model, vae.guide, x, num_epochs=1, objective="iwae", seed=0)
    assert_type(fit, Fit)
    coins = assert_type(pv.data.load("user-coins"), Splits)
    mine = Mine(10)
    pv.svi.fit(mine.model, None, coins.train.x, objective=IWAE5(), num_epochs=1)
    check = assert_type(pv.check(vae.model, vae.guide, x), pv.Check)
    assert_type(check.ok, bool)


def evidence() -> None:
    vae, x = pv.VAE(x_dim=64, z_dim=8), pv.data.load("digits").test.x[:]
    asked: list[pv.Estimator | str] = ["elbo", pv.Importance(100, proposal=pv.Widened(1.2))]
    asked += [
        pv.ELBO(100),
        pv.IWAE(100),
        pv.Jackknife(100),
        pv.Naive(),
        pv.AIS(),
        pv.Quadrature(),
        pv.Exact(),
    ]
    found = assert_type(
        pv.evaluate(vae.model, vae.guide, x, estimators=asked, seed=0), pv.Evidence
    )
    assert_type(found["elbo"].value, Tensor)
    difference = assert_type(pv.compare(found, found, estimator_b="elbo"), pv.Comparison)
    assert_type(difference.verdict, str)
    table = assert_type(
        pv.importance_sampling(
            vae.model, vae.guide, x, num_particles=100, proposal=pv.Defensive(), seed=0
        ),
        pv.LogWeights,
    )
    assert_type(table.log_evidence(), Tensor)
    assert_type(pv.prior_sampling(vae.model, x, num_particles=100, seed=0), pv.LogWeights)
    found = pv.certify(vae.model, vae.guide, x, tolerance=0.1, seed=0, workers=2)
    assert_type(found, pv.Certificate)
    assert_type(found.certified, torch.Tensor)
    pv.evaluate(vae.model, vae.guide, x, estimators=[pv.Sandwich(0.05), pv.Best(0.1)])
    assert_type(pv.ais(vae.model, x, guide=vae.guide, seed=0), AnnealedWeights)
    assert_type(pv.bdmc(vae.model, x, guide=vae.guide, seed=0), pv.Bounds)
    assert_type(pv.rate_distortion(vae.model, x, seed=0), pv.RateDistortion)
    held = assert_type(pv.latent(vae.model, vae.guide, x, seed=0), pv.Latent)
    assert_type(held["z"].active, Tensor)
    assert_type(spherical(held["z"].mean[0], held["z"].mean[1], 9), Tensor)
    given = assert_type(pv.posterior(vae.model, vae.guide, x, seed=0), pv.Draws)
    assert_type(given.expectation(lambda z: z["z"].square()), Tensor)
    assert_type(given.resample(10)["z"], Tensor)
    assert_type(given.predict("x", 10), Tensor)
    whole = assert_type(pv.impute(vae.model, vae.guide, x, seed=0), pv.Imputed)
    assert_type(whole.interval(0.8), tuple[Tensor, Tensor])
    number = assert_type(pv.regress(vae.model, vae.guide, x, column=0, seed=0), pv.Regressed)
    assert_type(number.crps(x[:, 0]), Tensor)
    rest = pv.given_rest(vae.model, vae.guide, x, columns=[0, 1], estimator=pv.AIS(), seed=0)
    assert_type(assert_type(rest, pv.GivenRest).log_p, Tensor)
    odd = pv.anomalies(
        vae.model, vae.guide, x, calibration=x, false_alarms=0.1, columns=3, num_particles=9
    )
    assert_type(assert_type(odd, pv.Anomalies).flagged, Tensor)
    assert_type(odd.columns, Tensor | None)
    made = assert_type(pv.generate(vae.model, 30, train=x, seed=0), pv.Generated)
    assert_type(made.p_value, Tensor)
    assert_type(made.two_sample(x).auc, float)
    pv.generate(vae, 3, near=x[:2], guide=vae.guide)
    stand = pv.order(vae.model, vae.guide, x, along=lambda z: z["z"][..., 0], seed=0)
    assert_type(assert_type(stand, pv.Ordered).rank, Tensor)
    assert_type(stand.spearman(range(len(x))), float)
    y = torch.arange(len(x)) % 2
    two = [vae.model, vae.model], [vae.guide, vae.guide]
    told = pv.classify(*two, x, calibration=(x, y), prior=[0.4, 0.6], num_particles=9, seed=0)
    assert_type(assert_type(told, pv.Classified).probability, Tensor)
    assert_type(told.none, Tensor | None)
    assert_type(pv.quadrature(vae.model, x), Tensor)
    assert_type(pv.calibrate(vae.model, vae.guide, x, seed=0), pv.Calibration)
    assert_type(pv.psis(table.log_w), tuple[np.ndarray, np.ndarray])
    pv.importance_sampling(vae.model, vae.guide, x, num_particles=9, proposal=pv.Refined())
    pv.importance_sampling(vae.model, vae.guide, x, num_particles=9, proposal=pv.Laplace())
    pv.ais(vae.model, x, guide=vae.guide, num_temperatures=2, proposal=pv.Laplace(1.0, df=8))
    assert_type(pv.to_arviz(vae.model, vae.guide, x, seed=0), Groups)


def in_pipelines() -> None:
    x = np.zeros((40, 3))
    density = assert_type(pv.sklearn.VAEDensity(z_dim=2).fit(x), pv.sklearn.VAEDensity)
    assert_type(density.score(x), float)
    assert_type(density.score_samples(x), np.ndarray[tuple[Any, ...], np.dtype[np.float64]])
    pv.sklearn.VAEImputer(num_steps=100).fit(x).transform(x)
    odd = pv.sklearn.VAEAnomaly(false_alarms=0.1).fit(x)
    assert_type(odd, pv.sklearn.VAEAnomaly)


def pictures() -> None:
    vae, x = pv.VAE(x_dim=64, z_dim=2), pv.data.load("digits").test.x[:]
    figure = assert_type(pv.plots.plates(vae.model, vae.guide, x), Figure)
    pv.plots.save(figure, Path("plates.png"))
    assert_type(pv.plots.manifold(vae.decode, (8, 8)), Figure)
    assert_type(pv.plots.convergence(pv.evaluate(vae.model, vae.guide, x)), Figure)
    assert_type(pv.plots.intervals(pv.certify(vae.model, vae.guide, x)), Figure)
