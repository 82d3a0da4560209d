"""The usual training loop over padded batches, which peers are measured in.

A peer brings its model and its loss; the steps, the optimizer (PyTorch's fused AdamW), clipping and precision are the
same for all. Its own data pipeline and bookkeeping are not measured, which favours it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import workload
from bench.meter import peak_memory_bytes, synchronise, versions
from bench.workload import BOS_ID, PAD_ID, PeerShape, Sentences, StepPairs, TrainSpec


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

    def to(self, device: str) -> PaddedBatch:
        """The same batch on ``device``."""
        src, src_lengths, tgt_in, labels = (
            x.to(device, non_blocking=True) for x in (self.src, self.src_lengths, self.tgt_in, self.labels)
        )
        return PaddedBatch(src, src_lengths, tgt_in, labels, self.num_labels)


def pad(sentences: Sentences) -> Tensor:
    """[sentences, longest] int64."""
    return nn.utils.rnn.pad_sequence([torch.from_numpy(s) for s in sentences], batch_first=True, padding_value=PAD_ID)


def collate(step: StepPairs) -> PaddedBatch:
    """Pad the pairs of a step."""
    labels = pad(step.tgt)
    tgt_in = labels.roll(1, dims=1)
    tgt_in[:, 0] = BOS_ID  # what rolls off the end is padding, or the longest sentence's EOS
    lengths = torch.tensor([len(s) for s in step.src])
    return PaddedBatch(pad(step.src), lengths, tgt_in, labels, step.num_tgt)


def train(values: dict[str, Any], build: Callable[[PeerShape], nn.Module], package: str) -> dict[str, Any]:
    """Run and time a peer's job.

    Args:
        build: makes the model, whose forward takes a :class:`PaddedBatch` and returns the label-smoothed loss per real
            target token.
        package: the distribution it comes from, for its version.
    """
    started = values.pop("started")
    spec = TrainSpec(**values)
    torch.set_num_threads(spec.threads)
    torch.manual_seed(workload.SEED)
    steps, vocab_size = workload.load_steps(spec.steps_file)
    model = build(workload.peer_shape(spec, vocab_size)).to(spec.device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        workload.LEARNING_RATE,
        workload.BETAS,
        workload.EPS,
        weight_decay=0.0,
        fused=True,
    )
    startup, waited, cells, num_src, num_tgt, loss_value = 0.0, 0.0, 0, 0, 0, 0.0
    step_seconds: list[float] = []
    begin = last = time.perf_counter()
    for number, step in enumerate(steps, start=1):
        if number == spec.warmup + 1:
            synchronise(spec.device)
            begin = last = time.perf_counter()
            waited, cells, num_src, num_tgt, step_seconds = 0.0, 0, 0, 0, []
        batch = collate(step).to(spec.device)
        waited += time.perf_counter() - last
        cells += batch.src.numel() + batch.labels.numel()
        num_src, num_tgt = num_src + step.num_src, num_tgt + step.num_tgt
        for group in optimizer.param_groups:
            group["lr"] = workload.LEARNING_RATE * min(1.0, number / workload.WARMUP_STEPS)
        with torch.autocast(spec.device, dtype=torch.bfloat16, enabled=spec.half):
            loss = model(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), workload.CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if spec.device == "cpu" or number in (1, len(steps)):
            loss_value = loss.item()
        now = time.perf_counter()
        step_seconds.append(now - last)
        last = now
        if number == 1:
            startup = time.time() - started
    synchronise(spec.device)
    return {
        "seconds": time.perf_counter() - begin,
        "step_seconds": step_seconds,
        "wait_seconds": waited,
        "startup_seconds": startup,
        "peak_bytes": peak_memory_bytes(spec.device),
        "src_tokens": num_src,
        "tgt_tokens": num_tgt,
        "fill": (num_src + num_tgt) / cells,
        "last_loss": loss_value,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "versions": versions("torch", package),
    }
