"""The float32 products of evaluation: never less than float32, and the setting restored."""

import pytest
import torch

from pyrovae import precision
from pyrovae.program import evaluation


def error():
    generator = torch.Generator().manual_seed(1)
    x, w = (torch.randn(256, 512, generator=generator, dtype=torch.float32) for _ in range(2))
    return ((x @ w.T).double() - x.double() @ w.double().T).abs().max().item()


@pytest.mark.parametrize("name", ["highest", "high", "medium"])
def test_products_are_float32_whatever_was_set(name):
    torch.set_float32_matmul_precision(name)
    try:
        with evaluation():
            assert error() < 5e-4
        assert torch.get_float32_matmul_precision() == name
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(("exact", "chosen"), [(True, "medium"), (False, "highest")])
def test_medium_is_chosen_where_it_is_exact(monkeypatch, exact, chosen):
    monkeypatch.setattr(precision, "medium_is_exact", lambda: exact)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with precision.float32_matmul():
        assert torch.get_float32_matmul_precision() == chosen
    assert torch.get_float32_matmul_precision() == "highest"


def test_with_a_gpu_in_use_nothing_is_chosen(monkeypatch):
    monkeypatch.setattr(precision, "medium_is_exact", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with precision.float32_matmul():
        assert torch.get_float32_matmul_precision() == "highest"


def test_a_setting_of_one_backend_comes_back():
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        with evaluation():
            assert error() < 5e-4
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_rounds_to_bfloat16_is_not_exact(monkeypatch):
    """Whatever this CPU does: the check itself sees a product of bfloat16."""
    linear = torch.nn.functional.linear

    def rounded(x, w):
        if x.dtype == torch.float32:
            return linear(x.bfloat16().float(), w.bfloat16().float())
        return linear(x, w)

    monkeypatch.setattr(torch.nn.functional, "linear", rounded)
    try:
        assert not precision.medium_is_exact.__wrapped__()
    finally:
        torch.set_float32_matmul_precision("highest")
