"""Validation: the loss on held-out pairs, and BLEU and chrF of their translations, shared among the processes.

The text of ``data.guard``, if there is one, is measured in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from seq2seq.config import Config, DecodeConfig
from seq2seq.data.corpus import Corpus
from seq2seq.data.loader import Step, load_steps
from seq2seq.data.mixture import names_of
from seq2seq.data.packed import Indices
from seq2seq.data.plan import plan_epoch, step_budgets
from seq2seq.data.prepare import MeasuredText, PreparedData
from seq2seq.decode.engine import TorchEngine
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.evaluate import Scores, score
from seq2seq.faults import Faults, find_faults
from seq2seq.memory import memory_explained
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.loss import smoothed_cross_entropy
from seq2seq.train.checkpoint import Progress
from seq2seq.train.distributed import Processes
from seq2seq.train.forgetting import Forgetting
from seq2seq.train.microbatches import MicroBatches

BATCH_TOKENS = 1024  # target tokens computed together
_CHANCE = 0.1  # below it, BLEU and chrF cannot compare models


@dataclass(frozen=True)
class Validation:
    """How good a model is on the validation text."""

    loss: float  # nats per target token, without label smoothing
    scores: Scores
    faults: Faults = field(default_factory=Faults)
    examples: tuple[tuple[str, str, str], ...] = ()  # source, translation, reference: the same lines each time
    losses: Mapping[str, float] = field(default_factory=dict)  # by dataset, if the text is from several
    guard: Validation | None = None  # the same model on data.guard

    def metrics(self, prefix: str = "valid") -> dict[str, float]:
        """For the metrics file."""
        perplexity = math.exp(min(self.loss, 700.0))
        names = (f"{prefix}_{name}" for name in ("loss", "ppl", "bleu", "chrf"))
        values = dict(zip(names, (self.loss, perplexity, self.scores.bleu, self.scores.chrf), strict=True))
        values |= {f"{prefix}_loss.{name}": loss for name, loss in self.losses.items()}
        return values | (self.guard.metrics("guard") if self.guard else {})

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are finite, so that they can be compared."""
        return all(map(math.isfinite, (self.loss, self.scores.bleu, self.scores.chrf)))

    def score(self, metric: str) -> float:
        """The number of train.metric; higher is better."""
        return {"bleu": self.scores.bleu, "chrf": self.scores.chrf, "loss": -self.loss}[metric]


def _rank(metric: str, score: float, chrf: float, loss: float) -> tuple[float, ...]:
    """The sort key of a validation: of equal scores (as printed), chrF decides, and then the loss.

    BLEU and chrF near 0 count as equal.
    """
    if metric == "loss":
        return (score,)
    return (round(score, 2) if score >= _CHANCE else 0.0, round(chrf, 2) if chrf >= _CHANCE else 0.0, -round(loss, 3))


def update_best(progress: Progress, validation: Validation, metric: str, max_forgetting: float | None = None) -> bool:
    """Update the best validation so far, and the number of validations since then.

    A score near 0 does not use up patience while the loss still falls: the model still learns. A model that has
    forgotten more than ``max_forgetting`` does, whatever its score: it is no improvement, and one that trains on the
    same text seldom learns again what it has forgotten.

    Returns:
        Whether this is the best model so far; of equal ones the first stays the best.
    """
    if not validation.is_finite:  # it would compare as better
        progress.validations_since_best += 1
        return False
    score, chrf, loss = validation.score(metric), validation.scores.chrf, validation.loss
    learns = progress.lowest_loss is None or round(loss, 3) < round(progress.lowest_loss, 3)
    if learns:
        progress.lowest_loss = loss
    forgetting = Forgetting(progress.guard_start, max_forgetting)
    if validation.guard is not None and not forgetting.allows(validation.guard.scores.bleu):
        progress.validations_since_best += 1
        return False
    if progress.best_score is not None:
        best_loss = math.inf if progress.best_loss is None else progress.best_loss
        best = _rank(metric, progress.best_score, progress.best_chrf or 0.0, best_loss)
        if not _rank(metric, score, chrf, loss) > best:
            counts = metric == "loss" or score >= _CHANCE or not learns
            progress.validations_since_best = progress.validations_since_best + 1 if counts else 0
            return False
    progress.best_score, progress.best_chrf, progress.best_loss = score, chrf, loss
    faults = validation.faults
    progress.best_empty, progress.best_looping, progress.best_copied = faults.empty, faults.looping, faults.copied
    progress.best_step, progress.validations_since_best = progress.step, 0
    return True


def losses_by_part(
    model: Seq2SeqModel,
    corpus: Corpus,
    text: MeasuredText,
    config: Config,
    processes: Processes,
    dtype: torch.dtype,
) -> tuple[float, dict[str, float]]:
    """Negative log-likelihood per target token of a text, in nats; the same by dataset, if it has several.

    ``corpus`` is made of ``text``; ``model`` is in evaluation mode; ``dtype`` is what it computes in.
    """
    part = np.array(text.parts)[corpus.lines]
    total, losses = 0.0, {}
    for number, name in enumerate(names_of(text.datasets)):
        pairs = np.flatnonzero(part == number)
        if pairs.size:
            of_part = corpus_loss(model, corpus, pairs, config, processes, dtype)
            total += of_part
            losses[name] = of_part / int(corpus.tgt_lengths[pairs].sum())
    return total / int(corpus.tgt_lengths.sum()), losses if len(text.datasets) > 1 else {}


@torch.inference_mode()
def corpus_loss(
    model: Seq2SeqModel, corpus: Corpus, pairs: Indices, config: Config, processes: Processes, dtype: torch.dtype
) -> float:
    """Negative log-likelihood of these pairs of a corpus, in nats, summed over all target tokens."""
    lengths, tokens = (corpus.src_lengths, corpus.tgt_lengths), config.train.batch_tokens
    budgets = step_budgets(lengths[0][pairs], lengths[1][pairs], tokens)
    plan = plan_epoch(*lengths, budgets, seed=0, epoch=0, pairs=pairs)
    number = max(1, tokens // processes.world_size // BATCH_TOKENS)
    cut = MicroBatches(processes.rank, processes.world_size, number)
    total = 0.0
    for step in load_steps(corpus, plan, cut, processes.device):
        with memory_explained(partial(_describe, step, config)):
            for batch in step.batches:
                with torch.autocast(processes.device.type, dtype=dtype, enabled=dtype != torch.float32):
                    hidden = model(batch)
                    _, nll = smoothed_cross_entropy(hidden, model.output_weight, batch.labels, 0.0, model.output_bias)
                total += float(nll)
    return processes.sum(total)


def _describe(step: Step, config: Config) -> str:
    texts = "data.valid and data.guard" if config.data.guard else "data.valid"
    return (
        f"the validation loss, {step.shape}: lower train.batch_tokens ({config.train.batch_tokens}) in a new run_dir, "
        f"or remove the longest lines from {texts}"
    )


def measured_decode(config: Config) -> DecodeConfig:
    """The decoding options of validation and test: as configured, but not quantised, so equal on all devices."""
    return config.decode.model_copy(update={"quantize": None})


def translate_all(
    translator: Translator, text: MeasuredText, config: Config, processes: Processes
) -> list[Translation]:
    """Translate all lines, shared among the processes. Every process gets the same result."""
    mine = text.take(range(processes.rank, len(text.src), processes.world_size))
    translated = dict[int, Translation]()
    for tag in dict.fromkeys(mine.tags):
        chosen = [line for line, other in enumerate(mine.tags) if other == tag]
        decode = measured_decode(config).model_copy(update={} if tag is None else {"tag": tag})
        found = translator.translate_stream(mine.take(chosen).src, decode)
        translated |= ((line, best) for line, (best, *_) in zip(chosen, found, strict=True))
    hypotheses = [Translation("", 0.0, 0.0)] * len(text.src)
    for rank, share in enumerate(processes.all_gather([translated[line] for line in range(len(mine.src))])):
        hypotheses[rank :: processes.world_size] = share
    return hypotheses


def score_lines(hypotheses: list[str], text: MeasuredText, config: Config) -> Scores:
    """The scores of the translations of a text."""
    return score(hypotheses, [text.ref], target_language=config.data.target_language)


def validate(
    model: Seq2SeqModel,
    engine: TorchEngine,
    data: PreparedData,
    config: Config,
    processes: Processes,
    dtype: torch.dtype,
) -> Validation:
    """Validate ``model`` on the validation text, and on that of data.guard. The model stays in evaluation mode.

    ``engine``: of ``model``; the same one for all validations, so that it prepares its graphs once.
    """
    model.eval()
    engine.update()
    translator = Translator(engine, config, data.tokenizers)

    def measured(corpus: Corpus, text: MeasuredText) -> Validation:
        loss, losses = losses_by_part(model, corpus, text, config, processes, dtype)
        hypotheses = [one.text for one in translate_all(translator, text, config, processes)]
        scores = score_lines(hypotheses, text, config)
        shown = [(text.src[line], hypotheses[line], text.ref[line]) for line in _examples(text.src)]
        return Validation(loss, scores, find_faults(text.src, hypotheses, text.ref), tuple(shown), losses)

    result = measured(data.valid, data.valid_text)
    return result if data.guard is None else replace(result, guard=measured(*data.guard))


def _examples(src: list[str]) -> list[int]:
    """Which lines to show: of middle lengths, which are more typical than very short and very long ones."""
    order = sorted((line for line in range(len(src)) if src[line].strip()), key=lambda line: (len(src[line]), line))
    return list(dict.fromkeys(order[len(order) * part // 8] for part in (3, 4, 6)))
