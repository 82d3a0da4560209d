"""Copies of a model for translation with other dtypes of weights: int8 on the CPU, bf16 on CUDA.

For int8, each row of a weight is rounded to integer multiples of its scale, the row's largest absolute value / 127;
each row of activations is rounded in the same way during the computation. Products are summed exactly, in int32, and
multiplied by both scales. A row's scale and sums depend on that row only, so its result does not depend on the batch.

Two layers compute this, with the kernels of PyTorch (:class:`Int8Linear`) and of FBGEMM (:class:`FbgemmLinear`);
:func:`int8_layer` measures which of them pays on this CPU for a model of this size.

Shapes: ``T`` tokens, ``I`` inputs and ``O`` outputs of a layer.
"""

from __future__ import annotations

import copy
import functools
import time
import warnings
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.model.embeddings import EmbeddingModel
from seq2seq.model.interface import Seq2SeqModel


def _quantize_rows(x: Tensor, largest: int = 127) -> tuple[Tensor, Tensor]:
    """x: [rows, columns] -> int8 [rows, columns] up to ``largest`` and scales [rows, 1]; x is about their product."""
    quotients = x.abs()
    scales = quotients.amax(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny * largest).mul_(1 / largest)
    return torch.div(x, scales, out=quotients).round_().to(torch.int8), scales


class Int8Linear(nn.Module):
    """``nn.Linear`` with an int8 weight, for CPUs with VNNI instructions.

    There PyTorch's kernel takes 1/4 of the time of fp32; on other CPUs its plain loop takes 8 to 10 times the time.
    """

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


class FbgemmLinear(nn.Module):
    """``nn.Linear`` with an int8 weight, for x86 CPUs without VNNI instructions.

    Their instruction for int8 adds two products in 16 bits, which hold two of 255 x 64, but not of 255 x 127. So a row
    of a weight is rounded to multiples of its largest absolute value / 64. Weights have fewer outliers than activations
    and lose less by it.
    """

    scales: Tensor  # [O]
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Quantise ``weight`` [O, I].

        Raises:
            RuntimeError or AttributeError: this CPU, or this version of PyTorch, does not have the kernel.
        """
        super().__init__()
        quantized, scales = _quantize_rows(weight.detach().float(), 64)
        self.register_buffer("scales", scales.squeeze(1))
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        ones, zeros = torch.ones(len(weight), dtype=torch.float64), torch.zeros(len(weight), dtype=torch.int64)
        engine = torch.backends.quantized.engine
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch will give these tensors up
            torch.backends.quantized.engine = "fbgemm"
            try:
                packed = torch._make_per_channel_quantized_tensor(quantized, ones, zeros, 0)
                self._packed = torch.ops.quantized.linear_prepack(packed, None)
            finally:
                torch.backends.quantized.engine = engine

    def forward(self, x: Tensor) -> Tensor:
        """[T, I] -> [T, O]."""
        x = x.float()
        largest = x.abs().amax(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32  # rounds to multiples of 1 / 127
        out = multiply(x / largest, 1 / 127, 128, self._packed).mul_(largest)
        if self.bias is None:
            return out.mul_(self.scales)
        return torch.addcmul(self.bias, out, self.scales, out=out)


_ROWS, _TRIES = 64, 4  # of the timed layers
_GAIN = 1.2  # times as fast as fp32: less is not worth the rounding, and may be chance

Shapes = tuple[tuple[int, int], ...]  # inputs and outputs of each linear layer


def linear_shapes(model: Seq2SeqModel) -> Shapes:
    """Inputs and outputs of all that :func:`quantize` replaces, the output of the model included."""
    linear = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    outputs = [m.output_weight.shape[::-1] for m in model.modules() if isinstance(m, EmbeddingModel)]
    return (*linear, *((inputs, count) for inputs, count in outputs))


def _seconds(layer: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The least CPU time that ``layer`` took for ``x`` in a few tries."""
    best = float("inf")
    for _ in range(_TRIES):
        started = time.thread_time()
        layer(x)
        best = min(best, time.thread_time() - started)
    return best


@functools.cache
@torch.inference_mode()
def int8_layer(shapes: Shapes) -> type[Int8Linear] | type[FbgemmLinear] | None:
    """The first int8 layer with which layers of these shapes are clearly faster than in fp32; None if there is none.

    They are measured, because no list of CPU features is right for all processors and versions of PyTorch, and because
    narrow layers gain nothing on any: rounding takes longer than the product.
    """
    layers: tuple[type[Int8Linear] | type[FbgemmLinear], ...] = (Int8Linear, FbgemmLinear)
    seconds = dict.fromkeys((None, *layers), 0.0)  # None: fp32
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the search, and because several would wait for each other on a busy machine
    try:
        for (inputs, outputs), count in Counter(shapes).items():
            x, weight = torch.ones(_ROWS, inputs), torch.ones(outputs, inputs)
            seconds[None] += count * _seconds(functools.partial(F.linear, weight=weight), x)
            for layer in layers:
                try:
                    seconds[layer] += count * _seconds(layer(weight, None), x)
                except (RuntimeError, AttributeError):  # this CPU, or this version of PyTorch, lacks the kernel
                    seconds[layer] = float("inf")
    finally:
        torch.set_num_threads(num_threads)
    return next((layer for layer in layers if seconds[layer] * _GAIN < seconds[None]), None)


def _shallow_copy(model: Seq2SeqModel) -> Seq2SeqModel:
    """A copy that shares its parameters and buffers with ``model``."""
    return copy.deepcopy(model, memo={id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def quantize(model: Seq2SeqModel, layer: type[nn.Module]) -> Seq2SeqModel:
    """A copy for translation with int8 linear layers and output; the other tensors are shared with ``model``.

    ``layer`` is the class of these layers, as :func:`int8_layer` gives it.
    """
    model = _shallow_copy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, layer(child.weight, child.bias))
        if isinstance(module, EmbeddingModel):
            module.quantized_output = layer(module.output_weight, module.output_bias)
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
