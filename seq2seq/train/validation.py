"""Validation: the loss over held-out pairs, and BLEU and chrF of real decodes, shared among the processes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from seq2seq.config import Config, DecodeConfig
from seq2seq.data.batching import plan_epoch, step_budgets
from seq2seq.data.corpus import Corpus
from seq2seq.data.loader import Share, Step, load_steps
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.decode.translator import Translator
from seq2seq.evaluate import Scores, score, tokenizer_for
from seq2seq.memory import memory_explained
from seq2seq.model.transformer import Transformer
from seq2seq.train.distributed import Processes
from seq2seq.train.loss import smoothed_cross_entropy

_BATCH_TOKENS = 1024  # target tokens computed together


@dataclass(frozen=True)
class Validation:
    """How good a model is on the validation text."""

    loss: float  # nats per target token, without label smoothing
    scores: Scores

    def metrics(self) -> dict[str, float]:
        """For the metrics file."""
        perplexity = math.exp(min(self.loss, 700.0))
        names = ("valid_loss", "valid_ppl", "valid_bleu", "valid_chrf")
        return dict(zip(names, (self.loss, perplexity, self.scores.bleu, self.scores.chrf), strict=True))

    def improvement(self, metric: str) -> float:
        """The number that train.metric wants to grow."""
        return {"bleu": self.scores.bleu, "chrf": self.scores.chrf, "loss": -self.loss}[metric]


@torch.inference_mode()
def corpus_loss(model: Transformer, corpus: Corpus, config: Config, processes: Processes, dtype: torch.dtype) -> float:
    """Negative log-likelihood per target token over a corpus, in nats.

    ``model`` is in evaluation mode; ``dtype`` is what it computes in.
    """
    lengths, tokens = (corpus.src_lengths, corpus.tgt_lengths), config.train.step_tokens
    plan = plan_epoch(*lengths, step_budgets(*lengths, tokens), seed=0, epoch=0)
    share = Share(processes.rank, processes.count, accumulate=max(1, tokens // processes.count // _BATCH_TOKENS))
    total = 0.0
    for step in load_steps(corpus, plan, share, processes.device):
        with memory_explained(partial(_describe, step, config)):
            for batch in step.batches:
                with torch.autocast(processes.device.type, dtype=dtype, enabled=dtype != torch.float32):
                    hidden = model(batch)
                    _, nll = smoothed_cross_entropy(hidden, model.output_weight, batch.labels, 0.0)
                total += float(nll)
    (total,) = processes.sum([total])
    return total / int(np.sum(corpus.tgt_lengths))


def _describe(step: Step, config: Config) -> str:
    return (
        f"the validation loss, {step.shape}: lower train.batch_tokens ({config.train.step_tokens}) in a new run_dir, "
        "or take the longest lines out of data.valid"
    )


def measured_decode(config: Config) -> DecodeConfig:
    """How a run translates to measure itself: as configured, but with the weights as they are, on any device."""
    return config.decode.model_copy(update={"quantize": None})


def translate_and_score(
    translator: Translator, src: list[str], ref: list[str], config: Config, processes: Processes
) -> tuple[list[str], Scores]:
    """Translate every line, each process its share, and score them; the same result in every process."""
    mine = translator.translate(src[processes.rank :: processes.count], measured_decode(config))
    hypotheses = [""] * len(src)
    for rank, share in enumerate(processes.gather(mine)):
        hypotheses[rank :: processes.count] = share
    return hypotheses, score(hypotheses, [ref], tokenizer_for(config.data.target_language))


def validate(
    model: Transformer,
    corpus: Corpus,
    texts: tuple[list[str], list[str]],
    tokenizers: TokenizerPair,
    config: Config,
    processes: Processes,
    dtype: torch.dtype,
) -> Validation:
    """Measure ``model`` on the validation corpus and its raw text; leaves it in evaluation mode."""
    model.eval()
    loss = corpus_loss(model, corpus, config, processes, dtype)
    translator = Translator(model, config, tokenizers, dtype)
    _, scores = translate_and_score(translator, *texts, config, processes)
    return Validation(loss, scores)
