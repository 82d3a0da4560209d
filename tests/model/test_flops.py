"""The FLOP count against PyTorch's own counter on the real model and loss, and against numbers worked out by hand."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.config import ModelConfig
from seq2seq.data.packed import PackedBatch
from seq2seq.model.flops import FlopsPerToken, training_flops
from seq2seq.model.kernels.recurrence import Recurrence
from seq2seq.model.loss import smoothed_cross_entropy
from tests.conftest import VOCABULARY
from tests.model.variants import CONVOLUTIONAL, RECURRENT

LENGTHS = [(7, 5), (3, 9), (6, 6)]
Pairs = list[tuple[list[int], list[int]]]


def _in_place(this: Any, a: list[int], b: list[int], *_: Any, **__: Any) -> int:
    """[..., m, k] times [..., k, n] added to what is there; the counter does not know this form."""
    return 2 * math.prod(a) * b[-1]


@contextmanager
def _counter() -> Iterator[FlopCounterMode]:
    mapping = dict.fromkeys((torch.ops.aten.addmm_, torch.ops.aten.baddbmm_), _in_place)
    # oneDNN's LSTM is one operation, which the counter does not know.
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        yield counter


def _count(run: Callable[[], object]) -> float:
    """What the counter sees in products of matrices with weights.

    Batched products are attention's own, or a fused kernel's; but in a recurrent layer they are those with weights.
    """
    aten, batched = torch.ops.aten, []

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            with _counter() as counter:
                result = function(*arguments)
            batched.append(counter.get_total_flops())
            return result

        return run

    with (
        patch.object(Recurrence, "forward", counted(Recurrence.forward)),
        patch.object(Recurrence, "backward", counted(Recurrence.backward)),
        _counter() as counter,
    ):
        run()
    counts = counter.get_flop_counts()["Global"]
    return sum(counts.get(op, 0) for op in (aten.mm, aten.addmm, aten.addmm_)) + sum(batched)


@pytest.mark.filterwarnings("ignore:TF32")  # PyTorch's, where oneDNN is set
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_position": "post", "activation": "gelu", "d_ff": 40},
        {"activation": "swiglu"},
        {"num_kv_heads": 2},
        {"num_kv_heads": 1, "activation": "swiglu", "norm": "rmsnorm", "positions": "rotary"},
        {"encoder_layers": 3, "decoder_layers": 1, "tie_embeddings": "none"},
        {"encoder_layers": 1, "decoder_layers": 3, "attention_window": 2},
        *RECURRENT.values(),
        *CONVOLUTIONAL.values(),
    ],
)
def test_the_count_is_that_of_the_real_training_step(
    options: dict[str, object],
    make_model: Callable[..., Any],
    make_pairs: Callable[[list[tuple[int, int]]], Pairs],
    batch_of: Callable[[Pairs], PackedBatch],
) -> None:
    """A layer forgotten or counted for the wrong side would make every reported FLOP/s wrong."""
    model, batch = make_model(**options), batch_of(make_pairs(LENGTHS))

    def step() -> None:
        loss, _ = smoothed_cross_entropy(model(batch), model.output_weight, batch.labels, 0.1)
        loss.backward()

    def forward() -> None:
        with torch.no_grad():
            smoothed_cross_entropy(model(batch), model.output_weight, batch.labels, 0.1)

    num_src, num_tgt = (sum(lengths) for lengths in zip(*LENGTHS, strict=True))
    counted = training_flops(model.config, VOCABULARY).total(num_src, num_tgt)
    if options.get("architecture") == "recurrent":
        counted += 6 * len(LENGTHS) * model.bridge.weight.numel()  # used once per sentence, not per token
    assert 3 * _count(forward) == counted
    assert _count(step) == counted


def test_the_base_model_by_hand() -> None:
    """Vaswani et al. 2017, base, with 32,000 pieces.

    Multiply-adds per source token: 6 encoder layers of 4 * 512^2 + 2 * 512 * 2048 = 3,145,728, and the keys and values
    of 6 decoder layers, 2 * 512^2 = 524,288 each. Per target token: 6 decoder layers of 6 * 512^2 + 2 * 512 * 2048 =
    3,670,016, and 512 * 32,000 = 16,384,000 for the logits.
    """
    counted = training_flops(ModelConfig(preset="base"), 32_000)
    assert counted == FlopsPerToken(src=6 * 22_020_096, tgt=6 * 38_404_096)
    assert counted.total(10, 20) == 6 * (220_200_960 + 768_081_920)
