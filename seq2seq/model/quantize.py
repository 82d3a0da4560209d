"""Copies of a model for translation with other dtypes of weights: int8 on the CPU, bf16 on CUDA.

For int8, each row of a weight is rounded to integer multiples of its scale, the row's largest absolute value / 127;
each row of activations is rounded in the same way during the computation. Products are summed exactly, in int32, and
multiplied by both scales. A row's scale and sums depend on that row only, so its result does not depend on the batch.

Shapes: ``T`` tokens, ``I`` inputs and ``O`` outputs of a layer.
"""

from __future__ import annotations

import copy
import functools
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.model.embeddings import EmbeddingModel
from seq2seq.model.interface import Seq2SeqModel

_ROWS, _INPUTS, _OUTPUTS, _TRIES = 8, 256, 512, 5  # sizes and repeats of the timed product


@functools.cache
def is_int8_slow() -> bool:
    """Whether an int8 product takes longer than an fp32 product on this CPU.

    With VNNI instructions, PyTorch's int8 kernel takes 1/4 of the time of fp32. On other CPUs its plain loop takes 8 to
    10 times the time. The product is measured (best CPU time of a few tries), because no list of CPU features is right
    for all processors and versions of PyTorch.
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
    """x: [rows, columns] -> int8 [rows, columns] and scales [rows, 1]; x is about their product."""
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
        out = sums.view(torch.float32).copy_(sums).mul_(scales)  # in the same memory, because reading it is slow
        if self.bias is None:
            return out.mul_(self.scales)
        return torch.addcmul(self.bias, out, self.scales, out=out)


def _shallow_copy(model: Seq2SeqModel) -> Seq2SeqModel:
    """A copy that shares its parameters and buffers with ``model``."""
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def quantize(model: Seq2SeqModel) -> Seq2SeqModel:
    """A copy for translation with int8 linear layers and output; the other tensors are shared with ``model``."""
    model = _shallow_copy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child.weight, child.bias))
        if isinstance(module, EmbeddingModel):
            module.quantized_output = Int8Linear(module.output_weight, module.output_bias)
    return model


def with_weights_in(dtype: torch.dtype, model: Seq2SeqModel) -> Seq2SeqModel:
    """A copy for translation with matrices of ``dtype``; the other tensors are shared with ``model``.

    Without it, autocast in a CUDA graph would cast all matrices at every step. :func:`update_weights` follows the model
    when it changes.
    """
    model = _shallow_copy(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            for name, parameter in list(module.named_parameters()):
                setattr(module, name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
    for module in list(model.modules()):
        if isinstance(module, EmbeddingModel):
            module.output = nn.Embedding.from_pretrained(module.output_weight.detach().to(dtype))
    return model.eval()


@torch.no_grad()
def update_weights(copied: Seq2SeqModel, model: Seq2SeqModel) -> None:
    """Give a copy by :func:`with_weights_in` the present weights of its model; its tensors keep their addresses."""
    for name, mine in copied.named_parameters():
        theirs = model.get_parameter(name)
        if mine.data_ptr() != theirs.data_ptr():
            mine.copy_(theirs)
