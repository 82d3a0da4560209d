"""The processes of a run: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from seq2seq.device import choose_device

_BUCKET_NUMBERS = 2**21  # sent together: one by one small tensors take three times as long, all at once a third longer


@dataclass(frozen=True)
class Processes:
    """This process among all of the run."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process; the same answer everywhere."""
        return bool(self.sum([float(flag)])[0])

    def sum(self, values: list[float]) -> list[float]:
        """Sums over the processes, in float64."""
        if self.count == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        result: list[float] = total.tolist()
        return result

    def sum_tensors(self, tensors: list[Tensor]) -> None:
        """Replace each tensor, of the same shapes everywhere, by its sum over the processes."""
        if self.count == 1:
            return
        buckets: list[list[Tensor]] = [[]]
        for tensor in tensors:
            if sum(other.numel() for other in buckets[-1]) >= _BUCKET_NUMBERS:
                buckets.append([])
            buckets[-1].append(tensor)
        flat = [torch.cat([tensor.flatten() for tensor in bucket]) for bucket in buckets]
        exchanges = [dist.all_reduce(numbers, async_op=True) for numbers in flat]
        for bucket, numbers, exchange in zip(buckets, flat, exchanges, strict=True):
            assert exchange is not None
            exchange.wait()
            for tensor, total in zip(bucket, numbers.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values


@contextmanager
def joined_processes(device_name: str) -> Iterator[Processes]:
    """Join the processes that torchrun started (as its environment variables say), for as long as the block lasts."""
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = choose_device(device_name, int(os.environ.get("LOCAL_RANK", 0)))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
    try:
        yield Processes(rank, count, device)
    finally:
        dist.destroy_process_group()
