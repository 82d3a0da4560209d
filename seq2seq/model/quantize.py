"""Weights in other number formats, for translating: in 8-bit integers on the CPU, in bf16 on CUDA.

In 8-bit integers, a weight is rounded to whole multiples of its row's largest over 127, and so is every row of
activations as it comes. Products are summed in 32-bit integers, exactly, and one multiplication by both scales makes
floats of them. As a row's scale and its sums depend on that row alone, so does its result: not on the batch.

Shapes: ``T`` tokens, ``I`` inputs and ``O`` outputs of a layer.
"""

from __future__ import annotations

import copy
import functools
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.model.transformer import Transformer

_ROWS, _INPUTS, _OUTPUTS, _TRIES = 8, 256, 512, 5  # of the product that is timed


@functools.cache
def is_int8_slow() -> bool:
    """Whether a product of int8 takes longer on this CPU than one of fp32.

    PyTorch multiplies them with the instructions named VNNI where it has a kernel for them: it then takes a quarter of
    the time of fp32. Elsewhere a plain loop takes 8 to 10 times as long. One product is timed, in CPU time and the
    best of a few, because no list of instructions is right for all processors and versions of PyTorch.
    """
    x, weight = torch.ones(_ROWS, _INPUTS), torch.ones(_OUTPUTS, _INPUTS)
    small_x, small_weight = x.to(torch.int8), weight.to(torch.int8).t()
    best = [float("inf")] * 2
    for _ in range(_TRIES):
        for number, product in enumerate((lambda: torch._int_mm(small_x, small_weight), lambda: F.linear(x, weight))):
            started = time.thread_time()
            product()
            best[number] = min(best[number], time.thread_time() - started)
    return best[0] > best[1]


def _quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x: [rows, columns] -> int8 numbers [rows, columns], and scales [rows, 1] that they are to be multiplied by."""
    quotients = x.abs()
    scales = quotients.amax(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny * 127).mul_(1 / 127)
    return torch.div(x, scales, out=quotients).round_().to(torch.int8), scales


class Int8Linear(nn.Module):
    """``nn.Linear`` with an int8 weight."""

    weight: Tensor  # [I, O] int8, in memory [O, I]
    scales: Tensor  # [O]
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantise ``weight`` [O, I]."""
        super().__init__()
        quantized, scales = _quantize_rows(weight.detach().float())
        self.register_buffer("weight", quantized.t())
        self.register_buffer("scales", scales.squeeze(1))
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """[T, I] -> [T, O]."""
        quantized, scales = _quantize_rows(x.float())
        sums = torch._int_mm(quantized, self.weight)
        out = sums.view(torch.float32).copy_(sums).mul_(scales)  # in the same memory: most of the time is reading it
        if self.bias is None:
            return out.mul_(self.scales)
        return torch.addcmul(self.bias, out, self.scales, out=out)


def _shallow_copy(model: Transformer) -> Transformer:
    """A copy whose parameters and buffers are those of ``model``."""
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def quantize(model: Transformer) -> Transformer:
    """A copy for translating whose linear layers and output are int8; what is not replaced is shared with ``model``."""
    model = _shallow_copy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child.weight, child.bias))
    model.quantized_output = Int8Linear(model.output_weight, None)
    return model


def with_weights_in(dtype: torch.dtype, model: Transformer) -> Transformer:
    """A copy for translating whose matrices are of ``dtype``; the rest is shared with ``model``.

    Autocast would cast them all at every step, once that is in a graph.
    """
    model = _shallow_copy(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            for name, parameter in list(module.named_parameters()):
                setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
    model.output = nn.Embedding.from_pretrained(model.output_weight.detach().to(dtype))
    return model
