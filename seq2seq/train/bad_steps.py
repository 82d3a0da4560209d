"""Bad steps are found without waiting for the device, skipped, and traced to their lines of text.

A step is bad if its loss or its gradient is not a finite number, or if its loss is far above those of the steps before
it. A bad step does not change the weights. The limit depends on mean and variance of the losses over about fifty
steps, which are saved with the run's progress: a continued run decides like one that was never stopped.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from seq2seq.config import TrainConfig
from seq2seq.data.corpus import Corpus
from seq2seq.data.formats.pairs import Text, places_of
from seq2seq.data.packed import Indices, pack_pairs
from seq2seq.data.symbols import EOS_ID
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.loss import token_losses
from seq2seq.train.checkpoint import Progress
from seq2seq.train.microbatches import split_step

_FORGET = 0.02  # weight of the newest loss in mean and variance
_FIRST_JUDGED = 100  # losses to have seen: those of the first steps fall too fast for a limit
# The limit changes at fixed steps only, not when losses are read from the device: saving reads them, too.
_STEPS_OF_A_LIMIT = 20
_TOKENS_AT_A_TIME = 4_096  # source and target tokens of the pairs whose losses are computed together


class BadSteps:
    """Finds bad steps. Every process has its own, and all of them decide the same."""

    def __init__(self, config: TrainConfig, progress: Progress) -> None:
        """``progress`` holds what it must remember, and is kept up to date."""
        self._sigmas, self._progress = config.spike_sigmas, progress

    def bad(self, loss: Tensor, norm: Tensor, too_large: Tensor | None = None) -> Tensor:
        """Whether a step is bad, on the device: fp32 [], 1 or 0.

        Args:
            loss: [] mean per target token of all processes.
            norm: [] of the gradient.
            too_large: bool [], whether gradients were only too large for fp16 (:class:`LossScale`). Then the loss
                alone decides.
        """
        limit = math.inf if self._progress.loss_limit is None else self._progress.loss_limit
        gradient_is_good = torch.isfinite(norm) if too_large is None else torch.isfinite(norm) | too_large
        good = torch.isfinite(loss) & gradient_is_good & (loss <= limit)
        return (~good).float()

    def judge(self, step: int, loss: float, norm: float, bad: bool) -> str | None:
        """Judge a step by its numbers, once they are read from the device; call it in the order of the steps.

        Returns:
            What is wrong, in words; None if the step is good.
        """
        progress, reason = self._progress, None
        if bad:
            progress.bad_in_a_row += 1
            if not math.isfinite(loss):
                reason = f"the loss is {loss}"
            elif not math.isfinite(norm):
                reason = f"the gradient norm is {norm}"
            else:
                reason = f"the loss jumped to {loss:.3f} from a mean of {progress.loss_mean:.3f}"
        else:
            progress.bad_in_a_row = 0
            progress.losses_seen += 1
            weight = max(_FORGET, 1 / progress.losses_seen)  # of an exponentially weighted mean and variance
            difference = loss - progress.loss_mean
            progress.loss_mean += weight * difference
            progress.loss_variance = (1 - weight) * (progress.loss_variance + weight * difference**2)
        if self._sigmas is not None and step % _STEPS_OF_A_LIMIT == 0 and progress.losses_seen >= _FIRST_JUDGED:
            progress.loss_limit = progress.loss_mean + self._sigmas * math.sqrt(progress.loss_variance)
        return reason


@torch.no_grad()
def losses_of_pairs(model: Seq2SeqModel, corpus: Corpus, pairs: Indices, dtype: torch.dtype) -> list[tuple[int, float]]:
    """The loss of each sentence pair alone, the largest first; NaN counts as largest.

    Returns:
        The pairs' numbers and their nats per target token, without dropout and label smoothing.
    """
    was_training = model.training
    model.eval()
    src_lengths, tgt_lengths = corpus.src_lengths[pairs], corpus.tgt_lengths[pairs]
    num_parts = -(-int(src_lengths.sum() + tgt_lengths.sum()) // _TOKENS_AT_A_TIME)
    found: dict[int, float] = {}
    for part in split_step(pairs, src_lengths, tgt_lengths, num_parts, by_length=True):
        if part.size:
            found |= zip(part.tolist(), _mean_losses(model, corpus, part, dtype), strict=True)
    model.train(was_training)
    in_order = [(pair, found[pair]) for pair in pairs.tolist()]
    return sorted(in_order, key=lambda item: -item[1] if math.isfinite(item[1]) else -math.inf)


def _mean_losses(model: Seq2SeqModel, corpus: Corpus, pairs: Indices, dtype: torch.dtype) -> list[float]:
    """The losses of a few pairs, which are computed together, in their order."""
    # Kernels with a padded grid fill it with the first token: a sentence whose numbers are NaN must not be the first.
    (src, src_lengths), (tgt, tgt_lengths) = (
        (np.insert(ids, 0, EOS_ID), np.insert(lengths, 0, 1))
        for ids, lengths in (corpus.take(side, pairs) for side in ("src", "tgt"))
    )
    device = model.output_weight.device
    batch = pack_pairs(src, src_lengths, tgt, tgt_lengths).to(device)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        hidden = model(batch)
        # The last norm gives fp32 even under autocast.
        losses = token_losses(model.logits, hidden.to(dtype), batch.labels)
    sums = np.add.reduceat(losses.double().cpu().numpy(), np.cumsum(tgt_lengths) - tgt_lengths)
    return (sums / tgt_lengths)[1:].tolist()  # type: ignore[no-any-return]


def describe(losses: list[tuple[int, float]], corpus: Corpus, text: Text) -> list[dict[str, object]]:
    """Records for ``bad_lines.jsonl`` from :func:`losses_of_pairs`: the places of both lines, and the loss."""
    lines = [int(corpus.lines[pair]) for pair, _ in losses]
    return [
        {"src": src, "tgt": tgt, "loss": round(loss, 4)}
        for (src, tgt), (_, loss) in zip(places_of(lines, text), losses, strict=True)
    ]
