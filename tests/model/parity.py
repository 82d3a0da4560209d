"""How a model is compared with a plain one that computes one sentence pair at a time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.data.packed import PackedBatch
from seq2seq.data.symbols import BOS_ID


def assert_trains_like(
    plain_model: Callable[[Any, Tensor, Tensor], Tensor],
    model: Any,
    pairs: list[tuple[list[int], list[int]]],
    batch: PackedBatch,
    atol: float = 2e-5,
) -> None:
    """The loss of ``batch`` and every gradient are those of its ``pairs``, one by one.

    ``plain_model``: (model, source [L'], decoder input [L]) -> hidden states [L, D], with the weights of the model.
    """
    found = F.cross_entropy(model.logits(model(batch)), batch.labels, reduction="sum")
    expected = torch.zeros(())
    for src, tgt in pairs:
        hidden = plain_model(model, torch.tensor(src), torch.tensor([BOS_ID, *tgt[:-1]]))
        expected = expected + F.cross_entropy(model.logits(hidden), torch.tensor(tgt), reduction="sum")
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(loss, list(model.parameters())) for loss in (found, expected))
    for (name, _), one, other in zip(model.named_parameters(), ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
        assert one.any(), name
