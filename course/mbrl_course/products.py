"""Linear layers whose matrix products are made by the faster of two libraries.

For float32 products PyTorch on x86 asks Intel's MKL, which leaves the AVX-512 units of AMD's processors idle.
oneDNN, which PyTorch carries too, uses them: a product of two 256 x 256 matrices took 0.16 ms by oneDNN and
0.33 ms by MKL (one thread of an AMD EPYC, Zen 5). Zen 4 has such instructions too, but carries each out in
two halves, so that MKL loses nothing there, and is ahead where members are batched: a gradient step of five
members of 2 x 64 took 1.7 ms by MKL and 3.3 ms by oneDNN. The results differ by rounding alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WORTHWHILE = 2**20
"""Multiplications in one product from which on the longer way to oneDNN pays."""


def _processor() -> Mapping[str, Any]:
    """What PyTorch knows of the processor; nothing, in its older releases."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def _onednn_is_faster() -> bool:
    """Whether this is one of AMD's processors with whole AVX-512 units, Zen 5, and PyTorch has oneDNN."""
    about = _processor()
    # of AMD's processors Zen 5 is the first one with this instruction
    zen5 = str(about.get("cpu_name", "")).startswith("AMD") and bool(about.get("avx512_vp2intersect"))
    return zen5 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


ONEDNN_IS_FASTER = _onednn_is_faster()


def _bfloat16_is_emulated() -> bool:
    """Whether this is an x86 processor without instructions for products in bfloat16."""
    about = _processor()
    instructions = ("avx512_bf16", "amx_bf16", "avx_ne_convert")
    return about.get("architecture") == "x86_64" and not any(about.get(name) for name in instructions)


BFLOAT16_IS_EMULATED = _bfloat16_is_emulated()


def warn_of_emulation() -> None:
    """Says how slow bfloat16 is where it is emulated; measured with the plans of `make bench` (Zen 3)."""
    if BFLOAT16_IS_EMULATED:
        text = "this processor has no instructions for bfloat16: plans take some fifteen times as long as in "
        warnings.warn(text + "float32, the precision to choose here", stacklevel=2)


def by_onednn(x: Tensor, fan_in: int, fan_out: int) -> bool:
    """Whether a layer with the inputs x [..., N, in] is computed by oneDNN: its products are large enough.

    Not where `torch.compile` is at work, which chooses by itself.
    """
    if torch.compiler.is_compiling() or not ONEDNN_IS_FASTER:
        return False
    return x.is_cpu and x.dtype == torch.float32 and x.shape[-2] * fan_in * fan_out >= WORTHWHILE


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [N, in] times weight [out, in] transposed, plus bias [out], if any: [N, out], without a gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """`_product` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight.T) if needs_x else None,
            _product(gradient.T, x.T) if needs_weight else None,
            gradient.sum(dim=0) if needs_bias else None,
        )


def _products(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`_product` for E members: x [E, N, in], weight [E, in, out], bias [E, 1, out], if any: [E, N, out]."""
    biases = [None] * len(x) if bias is None else bias.flatten(1)
    outputs = [_product(*member) for member in zip(x, weight.mT, biases, strict=True)]
    return torch.stack(outputs) if len(outputs) > 1 else outputs[0].unsqueeze(0)


class _EnsembleLinear(torch.autograd.Function):
    """`_products` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _products(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _products(gradient, weight.mT) if needs_x else None,
            _products(x.mT, gradient) if needs_weight else None,
            gradient.sum(dim=1, keepdim=True) if needs_bias else None,
        )


def onednn_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer of E members: x [E, N, in], weight [E, in, out], bias [E, 1, out] -> [E, N, out]."""
    return _EnsembleLinear.apply(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear`, by oneDNN where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Inputs [..., in] to outputs [..., out]."""
        if x.dim() == 2 and by_onednn(x, self.in_features, self.out_features):
            return _Linear.apply(x, self.weight, self.bias)
        return super().forward(x)
