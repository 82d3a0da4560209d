"""The usual training loop over padded batches, which peers are measured in.

A peer brings its model and its loss; the steps, the optimizer (PyTorch's fused AdamW), clipping and precision are the
same for all. Its own data pipeline and bookkeeping are not measured, which favours it.
"""

from __future__ import annotations

import pickle
import time
from argparse import Namespace
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import peers, workload
from bench.peers import PaddedBatch, PeerShape
from bench.process import peak_memory_bytes, synchronise
from bench.workload import BOS_ID, PAD_ID, StepPairs, shape_of


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


def make_optimizer(model: nn.Module, betas: tuple[float, float]) -> torch.optim.AdamW:
    """PyTorch's fused AdamW; each step has a learning rate of its own."""
    settings: dict[str, Any] = {"betas": betas, "eps": workload.EPS, "weight_decay": 0.0, "fused": True}
    return torch.optim.AdamW(model.parameters(), workload.LEARNING_RATE, **settings)


def train_step(
    loss_of: Callable[[PaddedBatch], Tensor], optimizer: torch.optim.AdamW, batch: PaddedBatch, lr: float
) -> Tensor:
    """Take a step; returns the loss, which stays on the device."""
    group, device = optimizer.param_groups[0], batch.src.device.type
    group["lr"] = lr
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        loss = loss_of(batch)
    loss.backward()
    nn.utils.clip_grad_norm_(group["params"], workload.CLIP_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def run(spec: Namespace, name: str, package: str) -> dict[str, Any]:
    """Job: train and time the peer ``name`` of :mod:`bench.peers`, which comes from the distribution ``package``."""
    torch.set_num_threads(spec.threads)
    torch.manual_seed(workload.SEED)
    steps: list[StepPairs] = pickle.loads((Path(spec.folder) / "steps.pickle").read_bytes())
    model, loss_of = getattr(peers, name)(PeerShape(*shape_of(spec), spec.joint_pieces))
    model.to(spec.device).train()
    optimizer = make_optimizer(model, workload.BETAS)
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
        lr = workload.LEARNING_RATE * min(1.0, (number + 1) / workload.WARMUP_STEPS)
        loss = train_step(loss_of, optimizer, batch, lr)
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
        "versions": {package: version(package)},
    }
