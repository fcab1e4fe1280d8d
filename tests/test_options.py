"""Options that samplers share, and the way from a public function to its formula."""

import inspect
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import torch
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae.evidence.samplers import options
from pyrovae.evidence.samplers.options import AnnealingRun, Run
from pyrovae.evidence.samplers.scheme import Scheme

ROOT = str(Path(pv.__file__).parent)
SAMPLERS = str(Path(options.__file__).parent)
SMALL = dict(num_temperatures=3, num_particles=2)


def call(name, **options):
    oracle = LinearGaussian.make()
    x = oracle.data(3)
    if name == "importance_sampling":
        return pv.importance_sampling(
            oracle.model, oracle.mean_field, x, num_particles=4, seed=0, **options
        )
    if name == "prior_sampling":
        return pv.prior_sampling(oracle.model, x, num_particles=4, seed=0, qmc=False, **options)
    return getattr(pv, name)(oracle.model, x, seed=0, **SMALL, **options)


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("importance_sampling", "tolerence", "tolerance"),
        ("importance_sampling", "propsal", "proposal"),
        ("prior_sampling", "chunksize", "chunk_size"),
        ("ais", "num_leapfrogs", "num_leapfrog"),
        ("bdmc", "schedul", "schedule"),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest(name, wrong, right):
    with pytest.raises(TypeError, match=f"^{name} has no option '{wrong}'; did you mean {right}?"):
        call(name, **{wrong: 1})


def test_an_option_unlike_all_is_answered_with_all():
    with pytest.raises(TypeError, match="no option 'xyz'; choose from guide, num_temp.*, plate$"):
        call("bdmc", xyz=1)


def test_options_are_those_that_are_checked():
    """The names that type checkers know are the fields that hold defaults."""
    for typed, held in (
        (options.RunOptions, (Run,)),
        (options.SamplingOptions, (Run, Scheme)),
        (options.AISOptions, (AnnealingRun,)),
    ):
        names = {f.name for cls in held for f in fields(cls)}
        assert typed.__optional_keys__ - {"proposal"} == names - {
            "num_particles",
            "proposal",
            "qmc",
        }
        assert not typed.__required_keys__


@pytest.mark.parametrize("name", ["importance_sampling", "prior_sampling", "ais", "bdmc"])
def test_no_more_than_eight_parameters(name):
    parameters = inspect.signature(getattr(pv, name)).parameters.values()
    assert sum(p.kind is not p.VAR_KEYWORD for p in parameters) <= 8


source = cache(inspect.getsource)


def way_to(line, name):
    """The package's functions on the stack where one that holds this line is run."""
    found, before = [], sys.getprofile()

    def watch(frame, event, arg):
        code = frame.f_code
        if event != "call" or found or not code.co_filename.startswith(SAMPLERS):
            return
        if line not in source(code):
            return
        while frame:
            if frame.f_code.co_filename.startswith(ROOT):
                found.append(frame.f_code.co_name)
            frame = frame.f_back

    sys.setprofile(watch)
    try:
        call(name)
    finally:
        sys.setprofile(before)
    return found[::-1]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("importance_sampling", "log_w = log_p - log_q"),
        ("prior_sampling", "log_w = log_likelihood_of_all("),
        ("ais", "log_w += (b[t + 1] - b[t]) * (state.log_f[1] - state.log_f[0])"),
    ],
)
def test_a_formula_is_five_functions_away(name, line):
    way = way_to(line, name)
    assert way[:2] == ["alone", name]  # the first has threads wait for each other
    assert len(way) <= 5, way


def test_a_run_is_done_as_asked():
    assert call("importance_sampling", plate=None).log_w.shape == (4,)
    together = call("importance_sampling").log_w
    assert not torch.equal(call("importance_sampling", block_size=1).log_w, together)
    assert torch.equal(call("importance_sampling", block_size=3).log_w, together)
