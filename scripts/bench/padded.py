"""The usual training loop over padded batches, which peers are measured in.

A peer brings its model and its loss; the steps, the optimizer (PyTorch's fused AdamW), clipping and precision are the
same for all. Its own data pipeline and bookkeeping are not measured, which favours it.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench import workload
from bench.meter import peak_memory_bytes, synchronise, versions
from bench.workload import BOS_ID, PAD_ID, SHAPES, PeerShape, StepPairs, TrainSpec


@dataclass(frozen=True)
class PaddedBatch:
    """One step, padded on the right with PAD_ID to the longest sentence of each side.

    B sentences, S source tokens, T target tokens, EOS included.
    """

    src: Tensor  # [B, S] int64
    src_lengths: Tensor  # [B] int64
    tgt_in: Tensor  # [B, T] int64: BOS first, the last token left out
    labels: Tensor  # [B, T] int64: what is to be predicted
    num_labels: int  # real target tokens


def _pad(sentences: list[NDArray[np.int64]]) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.from_numpy(s) for s in sentences], batch_first=True, padding_value=PAD_ID)


def collate(step: StepPairs, device: str) -> PaddedBatch:
    """Pad the pairs of a step, on ``device``."""
    labels = _pad(step.tgt)
    tgt_in = labels.roll(1, dims=1)
    tgt_in[:, 0] = BOS_ID  # what rolls off the end is padding, or the longest sentence's EOS
    tensors = (_pad(step.src), torch.tensor([len(s) for s in step.src]), tgt_in, labels)
    src, lengths, tgt_in, labels = (tensor.to(device, non_blocking=True) for tensor in tensors)
    return PaddedBatch(src, lengths, tgt_in, labels, sum(map(len, step.tgt)))


def smoothed_loss(logits: Tensor, batch: PaddedBatch) -> Tensor:
    """The criterion of most peers, per real target token; ``logits`` are [B, T, V] or [B * T, V]."""
    return F.cross_entropy(
        logits.view(-1, logits.size(-1)),
        batch.labels.flatten(),
        ignore_index=PAD_ID,
        label_smoothing=workload.LABEL_SMOOTHING,
    )


def run(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Job: train and time the peer ``name``.

    Its module has ``PACKAGE``, the distribution it comes from, and ``Model``, which is made from a :class:`PeerShape`
    and whose forward takes a :class:`PaddedBatch` and returns the label-smoothed loss per real target token.
    """
    spec = TrainSpec(**values)
    peer = importlib.import_module(f"bench.peers.{name}")
    torch.set_num_threads(spec.threads)
    torch.manual_seed(workload.SEED)
    steps, vocab_size = workload.load_steps(spec.steps_file)
    model = peer.Model(PeerShape(*SHAPES[spec.size], vocab_size)).to(spec.device).train()
    settings: dict[str, Any] = {"betas": workload.BETAS, "eps": workload.EPS, "weight_decay": 0.0, "fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), workload.LEARNING_RATE, **settings)
    startup, loss_value = 0.0, 0.0
    waits, cells, seconds = ([0.0] * len(steps) for _ in range(3))  # of each step
    begin = last = time.perf_counter()
    for number, step in enumerate(steps):
        if number == spec.warmup:
            synchronise(spec.device)
            begin = last = time.perf_counter()
        batch = collate(step, spec.device)
        waits[number] = time.perf_counter() - last
        cells[number] = batch.src.numel() + batch.labels.numel()
        for group in optimizer.param_groups:
            group["lr"] = workload.LEARNING_RATE * min(1.0, (number + 1) / workload.WARMUP_STEPS)
        with torch.autocast(spec.device, dtype=torch.bfloat16, enabled=spec.device == "cuda"):
            loss = model(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), workload.CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if spec.device == "cpu" or number in (0, len(steps) - 1):
            loss_value = loss.item()
        now = time.perf_counter()
        seconds[number], last = now - last, now
        startup = startup or time.time() - spec.started
    synchronise(spec.device)
    all_seconds = time.perf_counter() - begin
    measured = steps[spec.warmup :]
    num_src, num_tgt = (sum(len(s) for step in measured for s in getattr(step, side)) for side in ("src", "tgt"))
    return {
        "seconds": all_seconds,
        "step_seconds": seconds[spec.warmup :],
        "wait_seconds": sum(waits[spec.warmup :]),
        "startup_seconds": startup,
        "peak_bytes": peak_memory_bytes(spec.device),
        "src_tokens": num_src,
        "tgt_tokens": num_tgt,
        "fill": (num_src + num_tgt) / sum(cells[spec.warmup :]),
        "last_loss": loss_value,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "versions": versions("torch", peer.PACKAGE),
    }
