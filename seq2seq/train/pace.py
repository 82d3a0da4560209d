"""The speed of this machine with the model of a run: some steps and a small search, on a model that is then dropped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial

import numpy as np
import torch

from seq2seq.config import Config, DecodeConfig
from seq2seq.data.loader import load_steps
from seq2seq.data.prepare import PreparedData
from seq2seq.decode.engine import TorchEngine
from seq2seq.decode.translator import Translator
from seq2seq.device import training_dtype
from seq2seq.memory import memory_explained
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.loss import LossOf
from seq2seq.model_folder import build_model
from seq2seq.train.distributed import Processes
from seq2seq.train.gradients import gradients_for
from seq2seq.train.initial import freeze
from seq2seq.train.loss_scale import LossScale
from seq2seq.train.microbatches import microbatches_of, too_large
from seq2seq.train.optim import MovingAverage, Optimizer
from seq2seq.train.recipe import Pace
from seq2seq.train.validation import measured_decode

_UNTIMED, _FEWEST, _MOST = 2, 3, 40  # steps
_SECONDS = 5.0  # of timed steps are enough; the first seconds are slower than those of a run
_LINES, _SEARCH_SECONDS = 32, 2.0  # of the text to validate with, and four times as many until they take so long
_FORWARD_SHARE = 1 / 3  # of a step's time: the validation loss needs no gradients


def measure_pace(config: Config, data: PreparedData, processes: Processes) -> Pace:
    """Time usual steps, and the search for some validation lines with outputs as long as their sources.

    All processes call it together, and get the pace of the slowest. Random numbers are drawn from the global generator.

    Raises:
        OutOfMemoryError: a step does not fit into memory.
    """
    dtype = training_dtype(config.train.precision, processes.device)
    model = build_model(config, data.tokenizers).to(processes.device).train()
    freeze(model, config.init.freeze)
    step = _step_seconds(config, data, processes, model, dtype)
    translator = Translator(TorchEngine(model.eval(), dtype), config, data.tokenizers)
    measured = [(data.valid, data.valid_text), *([data.guard] if data.guard else [])]
    src = [line for _, text in measured for line in text.src]
    search = _search_seconds(translator, measured_decode(config), src, processes.device.type)
    tokens = sum(int(corpus.tgt_lengths.sum()) for corpus, _ in measured)
    loss = step * _FORWARD_SHARE * tokens / config.train.batch_tokens
    validation = loss + search / processes.world_size
    return Pace(*(max(values) for values in zip(*processes.all_gather((step, validation)), strict=True)))


def _step_seconds(
    config: Config, data: PreparedData, processes: Processes, model: Seq2SeqModel, dtype: torch.dtype
) -> float:
    corpus, microbatches = data.train, microbatches_of(config, data.mixture, processes)
    optimizer = Optimizer(model, config.optim, in_bf16=processes.all_multiply_bf16_fast())
    average = MovingAverage(model, 0.99)
    loss_scale = LossScale(processes.device) if dtype == torch.float16 else None
    loss = LossOf(model, config.train.label_smoothing, dtype)
    plan = data.mixture.plan(config.train.batch_tokens, config.seed, epoch=0)
    seconds: list[float] = []
    with closing(gradients_for(config, loss, processes, microbatches.accumulate, loss_scale)) as gradients:
        while len(seconds) < _UNTIMED + _FEWEST:  # a small corpus has fewer steps
            for step in load_steps(corpus, plan, microbatches, processes.device):
                with memory_explained(partial(too_large, config, f"a first step, {step.shape}")):
                    gradients.warm_up(step.batches[0], processes.say)
                    started = time.monotonic()
                    sums = gradients(step.batches, step.num_labels, seed=0)
                    torch.nn.utils.clip_grad_norm_(optimizer.named.values(), 1.0)
                    optimizer.step(0.0, torch.zeros_like(sums[0]))
                    average.update(1)
                    if processes.device.type == "cuda":
                        torch.cuda.synchronize(processes.device)
                seconds.append(time.monotonic() - started)
                timed = seconds[_UNTIMED:]
                enough = len(timed) >= _MOST or (len(timed) >= _FEWEST and sum(timed) >= _SECONDS)
                if processes.any(enough):
                    return float(np.mean(timed))
    return float(np.mean(seconds[_UNTIMED:]))


def _search_seconds(translator: Translator, decode: DecodeConfig, src: Sequence[str], device: str) -> float:
    """For all lines. A few alone would seem slow: the device can do more at once."""
    decode = decode.model_copy(update={"max_length_ratio": 1.0, "max_length_offset": 2})
    number, seconds = min(_LINES, len(src)), 0.0
    while True:
        lines = [src[place] for place in np.linspace(0, len(src) - 1, number).astype(int)]
        for _ in range(2 if device == "cuda" else 1):  # the first search on CUDA captures its graphs
            started = time.monotonic()
            translator.translate(lines, decode)
            seconds = time.monotonic() - started
        if seconds >= _SEARCH_SECONDS or number == len(src):
            return seconds * len(src) / number
        number = min(4 * number, len(src))
