"""The learner's float32 products on a CPU by oneDNN, in place of the BLAS that torch was built with.

On one core of an AMD Zen 5 MKL reaches about 100 GFLOP/s and oneDNN 200 to 240; `benchmarks/products.py` tells for any
other processor. Results differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode


def fast_products(device: torch.device) -> AbstractContextManager[Any]:
    """While it is entered, linear layers in float32 on `device` go through oneDNN, forwards and backwards."""
    fitting = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return _LinearByOneDnn() if fitting else nullcontext()


class _LinearByOneDnn(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and not kwargs and args[0].dtype == args[1].dtype == torch.float32 and args[0].numel():
            return _Linear.apply(*args)
        return func(*args, **kwargs)


class _Linear(Function):
    """`x W^T + b` with `x` [..., in] and `W` [out, in]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore
        x, weight = ctx.saved_tensors
        rows = slopes.reshape(-1, slopes.shape[-1])  # [N, out]
        by_x, by_weight, by_bias, *_ = *ctx.needs_input_grad, False
        return (
            product(rows, weight.T).view(x.shape) if by_x else None,
            weight_gradient(rows, x.reshape(-1, x.shape[-1])) if by_weight else None,
            rows.sum(0) if by_bias else None,
        )


def weight_gradient(slopes: Tensor, x: Tensor) -> Tensor:
    """`slopes.T @ x` [out, in]; oneDNN is up to a third faster where the wider factor stands second."""
    if slopes.shape[1] > x.shape[1]:
        return product(x.T, slopes.T).T.contiguous()
    return product(slopes.T, x.T)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` of float32 matrices [n, in] and [out, in], whatever their strides."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
