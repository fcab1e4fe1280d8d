"""The float32 products of evaluation: never less than float32, and every setting restored."""

from itertools import product

import pytest
import torch

import pyrovae as pv
from pyrovae import precision
from pyrovae.program import evaluation

MKLDNN, CUDA = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul


def error():
    generator = torch.Generator().manual_seed(1)
    x, w = (torch.randn(256, 512, generator=generator, dtype=torch.float32) for _ in range(2))
    return ((x @ w.T).double() - x.double() @ w.double().T).abs().max().item()


def settings():
    """All of them, and whether a backend follows what is set for all."""
    read = [torch.backends.fp32_precision, MKLDNN.fp32_precision, CUDA.fp32_precision]
    for value in ("ieee", "tf32"):
        torch.backends.fp32_precision = value
        read += [MKLDNN.fp32_precision, CUDA.fp32_precision]
    torch.backends.fp32_precision = read[0]
    MKLDNN.fp32_precision = CUDA.fp32_precision = "ieee"
    read.append(torch.get_float32_matmul_precision())
    MKLDNN.fp32_precision, CUDA.fp32_precision = read[1:3]
    return read


@pytest.fixture(autouse=True)
def as_imported():
    """Every setting of a fresh process, before and after."""

    def reset():
        torch.set_float32_matmul_precision("highest")
        MKLDNN.fp32_precision = CUDA.fp32_precision = torch.backends.fp32_precision = "none"

    reset()
    yield
    reset()


@pytest.fixture(params=[True, False], ids=["medium is exact", "medium rounds"])
def exact(request, monkeypatch):
    """The answer of either kind of CPU."""
    monkeypatch.setattr(precision, "medium_is_exact", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    return request.param


def choose(name, overall, mkldnn, cuda):
    torch.set_float32_matmul_precision(name)
    torch.backends.fp32_precision = overall
    for backend, value in ((MKLDNN, mkldnn), (CUDA, cuda)):
        if value:
            backend.fp32_precision = value


def test_whatever_was_set_comes_back(exact):
    names, overall = ("highest", "high", "medium"), ("none", "ieee", "tf32", "bf16")
    for choice in product(names, overall, (None, *overall), (None, *overall[:-1])):
        choose(*choice)
        before = settings()
        choose(*choice)
        with precision.float32_matmul():
            assert torch.get_float32_matmul_precision() == ("medium" if exact else "highest")
        assert settings() == before, choice


@pytest.mark.parametrize("setting", ["global", "one backend"])
def test_products_are_float32_whatever_was_set(setting):
    if setting == "global":
        torch.set_float32_matmul_precision("medium")
    else:
        MKLDNN.fp32_precision = "bf16"
    with evaluation():
        assert error() < 5e-4


@pytest.mark.parametrize("overall", ["none", "ieee"])
def test_a_backend_goes_on_to_follow_what_is_set_for_all(exact, overall):
    torch.backends.fp32_precision = overall
    with precision.float32_matmul():
        pass
    torch.backends.fp32_precision = "tf32"
    assert MKLDNN.fp32_precision == CUDA.fp32_precision == "tf32"


def test_settings_come_back_from_an_error(exact):
    MKLDNN.fp32_precision = "bf16"
    before = settings()
    with pytest.raises(ArithmeticError), precision.float32_matmul():
        raise ArithmeticError
    assert settings() == before


def test_with_a_gpu_in_use_nothing_is_chosen(monkeypatch):
    monkeypatch.setattr(precision, "medium_is_exact", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with precision.float32_matmul():
        assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("mkldnn", ["none", "tf32", "bf16"])
def test_training_takes_what_was_set(exact, mkldnn):
    """And float32 where nothing was."""
    vae, seen = pv.VAE(x_dim=4, z_dim=1, hidden_dims=(3,)), []
    MKLDNN.fp32_precision = mkldnn

    def guide(x):
        seen.append(MKLDNN.fp32_precision)
        vae.guide(x)

    pv.svi.fit(vae.model, guide, torch.ones(4, 4), num_epochs=1, seed=0, progress=False)
    assert seen[-1] == (mkldnn if mkldnn != "none" else "bf16" if exact else "ieee")
    assert MKLDNN.fp32_precision == mkldnn


def test_what_rounds_to_bfloat16_is_not_exact(monkeypatch):
    """Whatever this CPU does: the check itself sees a product of bfloat16, and one of float32."""
    linear = torch.nn.functional.linear

    def exact(x, w):
        return linear(x.double(), w.double()).to(x.dtype)

    def rounded(x, w):
        return exact(x.bfloat16().to(x.dtype), w.bfloat16().to(w.dtype))

    monkeypatch.setattr(torch.nn.functional, "linear", exact)
    assert precision.medium_is_exact.__wrapped__()
    kinds = {torch.float32: rounded, torch.float64: exact}
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w: kinds[x.dtype](x, w))
    assert not precision.medium_is_exact.__wrapped__()
