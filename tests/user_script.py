"""What a user writes; type checkers have to know its names' types (`make lint`)."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Callable
from typing import assert_type

import torch

import pyrovae as pv
from pyrovae.data import Splits
from pyrovae.data.rows import Rows
from pyrovae.evidence.results import Evidence
from pyrovae.evidence.samplers.annealing import Bounds
from pyrovae.evidence.weights import LogWeights
from pyrovae.models.vae import VAE
from pyrovae.program import Check, log_weights
from pyrovae.svi import Fit

Fn = Callable[..., object]


class Half(pv.Objective):
    name = "half"

    def per_datum(self, model: Fn, guide: Fn | None, *data: torch.Tensor) -> torch.Tensor:
        return assert_type(log_weights(model, guide, *data), torch.Tensor).mean(0) / 2


def main() -> None:
    splits = assert_type(pv.data.load("digits"), Splits)
    vae = assert_type(pv.VAE(x_dim=64, z_dim=8), VAE)
    x = assert_type(splits.test.x, torch.Tensor | Rows)
    assert_type(pv.svi.fit(vae.model, vae.guide, x, num_epochs=1, seed=0), Fit)
    assert_type(pv.svi.fit(vae.model, None, x, objective=Half(), valid=x, patience=3), Fit)
    pv.svi.fit(vae.model, vae.guide, x, patience="3")  # pyright: ignore[reportArgumentType]
    pv.svi.fit(vae.model, vae.guide, x, patient=3)  # pyright: ignore[reportCallIssue]
    assert_type(pv.check(vae.model, vae.guide, x), Check)
    evidence = assert_type(pv.evaluate(vae.model, vae.guide, x, seed=0), Evidence)
    assert_type(
        pv.importance_sampling(vae.model, vae.guide, x[:], num_particles=100, seed=0), LogWeights
    )
    assert_type(pv.bdmc(vae.model, x[:], guide=vae.guide, seed=0), Bounds)
    pv.save(vae, "runs/a", evidence=str(evidence))
    assert_type(pv.load("runs/a"), pv.Model)
