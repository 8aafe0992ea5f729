"""The learner's fast products are torch's products, and nothing else is touched."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from open_rs.train import policy
from open_rs.train.products import _Linear, fast_products
from train.tiny_policy import gradient_of, recorded_batch, tiny_model, tiny_policy

CPU = torch.device("cpu")


def gradients(layer: nn.Linear, x: Tensor, fast: bool) -> list[Tensor]:
    """The output, and the derivatives of a curved function of it."""
    x = x.clone().requires_grad_()
    leaves = [x, *layer.parameters()]
    with fast_products(CPU if fast else torch.device("meta")):
        y = layer(x)
        return [y, *torch.autograd.grad((y * y.sin()).sum(), leaves)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24), (1, 1, 24), (24,)], ids=str)
@pytest.mark.parametrize("wide", [8, 24, 96])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...], wide: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, wide, bias=bias), torch.randn(shape)
    for ours, theirs in zip(gradients(layer, x, True), gradients(layer, x, False), strict=True):
        assert ours.is_contiguous()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    layer, x = nn.Linear(8, 4).requires_grad_(False), torch.randn(3, 8, requires_grad=True)
    with fast_products(CPU):
        layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None
    assert layer.bias.grad is None


def kind(x: Tensor, weight: Tensor) -> str:
    with fast_products(CPU):
        node = F.linear(x, weight).grad_fn
    return type(node).__name__


@pytest.mark.parametrize(
    ("dtype", "rows", "fast"), [(torch.float32, 3, True), (torch.bfloat16, 3, False), (torch.float32, 0, False)]
)
def test_what_goes_through_onednn(dtype: torch.dtype, rows: int, fast: bool) -> None:
    weight = torch.randn(4, 8, dtype=dtype, requires_grad=True)
    assert (kind(torch.randn(rows, 8, dtype=dtype), weight) == f"{_Linear.__name__}Backward") == fast


def test_outside_the_block_torch_is_as_it_was() -> None:
    weight = torch.randn(4, 8, requires_grad=True)
    with fast_products(CPU):
        pass
    assert "_Linear" not in type(F.linear(torch.randn(3, 8), weight).grad_fn).__name__


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "adapter"])
def test_the_gradient_of_a_batch_is_the_same_with_them_and_without(lora: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = recorded_batch()
    fast = gradient_of(tiny_policy(tiny_model(lora=lora)), batch)
    monkeypatch.setattr(policy, "fast_products", lambda _: nullcontext())
    slow = gradient_of(tiny_policy(tiny_model(lora=lora)), batch)
    assert not torch.equal(fast, slow), "both took the same way"
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-7)
