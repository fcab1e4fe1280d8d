import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae.checks import nan_is_missing


@pytest.mark.parametrize("size", [True, 0, -1, 1.5, "3", np.float64(2.0), np.bool_(True)])
def test_what_is_no_size(size):
    vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4)
    program = vae.model, vae.guide
    for call, name in (
        (lambda: pv.VAE(size, 2), "x_dim"),
        (lambda: pv.VAE(4, size), "z_dim"),
        (lambda: pv.VAE(4, 2, (8, size)), "hidden_dims"),
        (lambda: pv.LinearGaussian(4, size), "z_dim"),
        (lambda: pv.svi.fit(*program, x, num_epochs=size), "num_epochs"),
        (lambda: pv.svi.fit(*program, x, batch_size=size), "batch_size"),
        (lambda: pv.svi.fit(*program, x, valid=x, patience=size), "patience"),
        (lambda: pv.evaluate(*program, x, num_particles=size), "num_particles"),
        (lambda: pv.evaluate(*program, x, block_size=size), "block_size"),
        (lambda: pv.importance_sampling(*program, x, num_particles=size), "num_particles"),
        (lambda: pv.prior_sampling(vae.model, x, num_particles=size), "num_particles"),
        (lambda: pv.ais(vae.model, x, num_particles=size), "num_particles"),
        (lambda: pv.bdmc(vae.model, x, num_temperatures=size), "num_temperatures"),
        (lambda: pv.quadrature(vae.model, x, max_points=size), "max_points"),
        (lambda: pv.calibrate(*program, x, num_samples=size), "num_samples"),
    ):
        with pytest.raises(ValueError, match=f"{name} is .*; give a positive integer"):
            call()


@pytest.mark.parametrize("number", [True, 0, -1.0, float("nan"), float("inf"), "1", None])
def test_what_is_no_positive_number(number):
    vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4)
    program, auto = (vae.model, vae.guide), {"num_particles": "auto"}
    calls = [
        (lambda: pv.svi.fit(*program, x, lr=number), "lr"),
        (lambda: pv.importance_sampling(*program, x, **auto, tolerance=number), "tolerance"),
        (lambda: pv.evaluate(*program, x, **auto, tolerance=number), "tolerance"),
        (lambda: pv.quadrature(vae.model, x, tolerance=number), "tolerance"),
        (lambda: pv.Widened(number), "scale"),
        (lambda: pv.Defensive(number), "weight"),
        (lambda: pv.Refined(lr=number), "lr"),
    ]
    if number is not None:  # which asks for none of these
        calls += [
            (lambda: pv.svi.fit(*program, x, clip_norm=number), "clip_norm"),
            (lambda: pv.Widened(df=number), "df"),
        ]
    for call, name in calls:
        with pytest.raises(ValueError, match=f"{name} is .*; give a positive number"):
            call()


@pytest.mark.parametrize("seed", [True, -1, 0.5, "0", 2**63])
def test_what_is_no_seed(seed):
    vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4)
    for call in (
        lambda: pv.evaluate(vae.model, vae.guide, x, seed=seed),
        lambda: pv.svi.fit(vae.model, vae.guide, x, seed=seed),
    ):
        with pytest.raises(ValueError, match="seed is .*; give an integer from 0 to 2"):
            call()


def test_numbers_of_numpy_are_as_good():
    vae, x = pv.VAE(x_dim=np.int64(4), z_dim=np.int32(2)), torch.ones(3, 4)
    many = {"num_particles": np.int64(30), "block_size": np.int64(2), "seed": np.int64(0)}
    theirs = pv.evaluate(vae.model, vae.guide, x, **many)
    ours = pv.evaluate(vae.model, vae.guide, x, num_particles=30, block_size=2, seed=0)
    assert torch.equal(theirs["importance"].value, ours["importance"].value)
    assert theirs.to_xarray().attrs == ours.to_xarray().attrs
    sizes = {"num_epochs": np.int64(1), "batch_size": np.int64(2), "seed": np.int64(0)}
    pv.svi.fit(vae.model, vae.guide, x, **sizes, lr=np.float32(1e-3), progress=False)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.uint8, torch.bool, torch.float16, torch.complex64, torch.float64],
)
def test_data_of_a_type_that_a_program_does_not_take(dtype):
    vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4).to(dtype)
    program, few = (vae.model, vae.guide), {"num_particles": 3}
    for call in (
        lambda: pv.evaluate(*program, x, **few, progress=False),
        lambda: pv.importance_sampling(*program, x, **few),
        lambda: pv.ais(vae.model, x, **few),
        lambda: pv.svi.fit(*program, x, num_epochs=1, progress=False),
    ):
        with pytest.raises(TypeError, match=f"data of type {dtype} .*; give float32 or float64"):
            call()


def test_what_is_no_program():
    vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4)
    for call, said in (
        (lambda: pv.evaluate(None, vae.guide, x), "the model is None; give a Pyro callable"),
        (lambda: pv.evaluate(vae, vae.guide, x), "a VAE, which has no forward .*; give its .mod"),
        (lambda: pv.evaluate(x, vae.model, vae.guide), "the model is tensor"),
        (lambda: pv.svi.fit(vae.model, None, x), "the guide is None; training needs one"),
        (lambda: pv.svi.fit(vae.model, "guide", x), "the guide is 'guide'; give a Pyro callable"),
        (lambda: pv.svi.fit(vae.model, vae.guide, None), "the data are NoneType; give tensors"),
        (lambda: pv.svi.fit(vae.model, vae.guide, x, valid=3), "the data are int; give tensors"),
    ):
        with pytest.raises(TypeError, match=said):
            call()


def test_options_of_another_kind():
    vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(3, 4)
    program, few = (vae.model, vae.guide), {"num_particles": 3}
    for names in (None, 3, [3]):
        with pytest.raises(TypeError, match="estimators is .*; give 'best' or another name, a"):
            pv.evaluate(*program, x, estimators=names, **few)
    with pytest.raises(ValueError, match="no estimator named 'annealing'; did you mean ais or "):
        pv.evaluate(*program, x, estimators=["annealing"], **few)
    for widths in (4, "4", None):
        with pytest.raises(TypeError, match="hidden_dims is .*; give a list of widths"):
            pv.VAE(4, 2, widths)
    for proposal in ("wide", 3, pv.Widened, x):
        with pytest.raises(TypeError, match=r"proposal is .*; give a pv.Laplace\(\)"):
            pv.importance_sampling(*program, x, proposal=proposal, **few)
    for seconds in (float("nan"), -1, "1", True):
        with pytest.raises(ValueError, match="max_seconds is .*; give a number, 0 or more"):
            pv.importance_sampling(*program, x, max_seconds=seconds, num_particles="auto")
    for name, value in (("optimizer", 3), ("transform", "adam"), ("callback", "adam")):
        with pytest.raises(TypeError, match=f"{name} is {value!r}; give"):
            pv.svi.fit(*program, x, **{name: value})
    for state in (3, {}):
        with pytest.raises(pv.storage.StateError, match="resume is no state of a training"):
            pv.svi.fit(*program, x, resume=state)
    with pytest.raises(ValueError, match="holds inf at row 1, column 2, or a number that"):
        pv.evaluate(*program, torch.where(torch.arange(12).reshape(3, 4) == 6, torch.inf, x))


def test_what_is_marked_for_missing_values_is_an_argument():
    with pytest.raises(TypeError, match="takes names of arguments"):

        @nan_is_missing
        def bare(x): ...

    with pytest.raises(ValueError, match="no argument 'y'; name one of x, z"):

        @nan_is_missing("x", "y")
        def other(x, z): ...
