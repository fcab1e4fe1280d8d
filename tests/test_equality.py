"""Results are equal where their contents are, and asking never raises."""

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae.equality import ByContent, same
from pyrovae.evidence.samplers.annealing import AnnealedWeights


@dataclass(frozen=True, eq=False)
class Pair(ByContent):
    table: torch.Tensor
    names: tuple[str, ...] = ()
    array: np.ndarray | None = None


def test_tensors_are_compared_element_by_element():
    table = torch.arange(6.0).reshape(2, 3)
    one = Pair(table, ("a",), np.ones(2))
    assert one == Pair(table.clone(), ("a",), np.ones(2))
    assert one != Pair(table + 1, ("a",), np.ones(2))
    assert one != Pair(table[:1], ("a",), np.ones(2))
    assert one != Pair(table, ("b",), np.ones(2))
    assert one != Pair(table, ("a",), np.zeros(2))
    assert one != Pair(table, ("a",))
    assert one != "a pair"
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_nan_is_equal_to_nan():
    row = torch.tensor([1.0, torch.nan])
    assert Pair(row) == Pair(row.clone())
    assert Pair(row) != Pair(torch.tensor([torch.nan, 1.0]))
    assert same({"a": [float("nan"), 1]}, {"a": [float("nan"), 1]})
    assert not same({"a": 1}, {"b": 1})


def test_results_can_be_compared():
    """Tables, bounds and calibrations: by their numbers, and only with their like."""
    oracle = LinearGaussian.make()
    weights, annealed = pv.LogWeights(torch.randn(5, 4)), torch.rand(2)
    runs = AnnealedWeights(
        weights.log_w, temperatures=annealed, step_size=annealed, acceptance=annealed
    )
    options = dict(num_temperatures=2, num_particles=2, num_samples=9, seed=0)
    found = pv.calibrate(oracle.model, oracle.mean_field, oracle.data(4), **options)
    for result, changed in (
        (weights, {"log_w": weights.log_w + 1}),
        (runs, {"acceptance": annealed + 1}),
        (found.bounds, {"upper": found.bounds.upper + 1}),
        (found, {"ranks": found.ranks + 1}),
    ):
        assert result == deepcopy(result)
        assert result != replace(result, **changed)
    assert weights != runs
    assert weights != pv.LogWeights(weights.log_w, torch.full((4,), 5))
