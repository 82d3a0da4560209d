"""The processes of a run: one, or those that torchrun started."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from seq2seq.device import choose_device, multiplies_bf16_fast
from seq2seq.errors import ReportedElsewhereError, UserError

_ANSWER = timedelta(minutes=30)  # after that, a process that exists but does not answer counts as lost
_WORK_OF_ONE = timedelta(days=7)  # how long the others wait for the main process to prepare the data
_BEAT_SECONDS = 1.0
_BUCKET_NUMBERS = 2**21  # sent together: tensor by tensor takes three times as long, all in one a third longer


class Heartbeats:
    """A thread in each process increases a counter in the store, which shows that a busy process is not a dead one."""

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        self._store, self._world_size = store, world_size
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(store.clone(), rank), daemon=True)
        self._thread.start()

    def _beat(self, store: Any, rank: int) -> None:
        with suppress(RuntimeError):  # the process that kept the store has ended
            while not self._over.wait(_BEAT_SECONDS):
                store.add(f"heartbeat {rank}", 1)

    def close(self) -> None:
        """End the thread. Without this, Python would stop it in the middle of a call to the store."""
        self._over.set()
        self._thread.join(3 * _BEAT_SECONDS)

    def all_beat(self) -> bool:
        """Whether the counter of every process still increases. Takes three beats; call it from one thread."""
        try:
            store = self._store.clone()
            before = [store.add(f"heartbeat {rank}", 0) for rank in range(self._world_size)]
            time.sleep(3 * _BEAT_SECONDS)
            after = [store.add(f"heartbeat {rank}", 0) for rank in range(self._world_size)]
        except RuntimeError:
            return False
        return all(late > early for early, late in zip(before, after, strict=True))


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from this one."""

    rank: int
    world_size: int
    device: torch.device
    waiting: dist.ProcessGroup | None = None  # all processes; for waits longer than an exchange may take
    heartbeats: Heartbeats | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the messages of the run."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print a line on standard error in the main process, without breaking a progress bar."""
        if self.is_main:
            with suppress(OSError):  # the terminal is gone, but the run continues
                tqdm.write(text, file=sys.stderr)

    def barrier(self) -> None:
        """Return when every process has come here."""
        if self.world_size > 1:
            with _exchange():
                dist.barrier(self.waiting)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process first, and then in the others, which find its files."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def others_live(self) -> bool:
        """Whether all other processes are alive, busy or not. Takes some seconds."""
        return self.heartbeats is None or self.heartbeats.all_beat()

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process; every process gets the same answer."""
        return bool(self.sum(float(flag)))

    def sum(self, value: float) -> float:
        """Sum of a number over the processes, in float64."""
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        with _exchange():
            dist.all_reduce(total)
        return float(total)

    def all_reduce(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over the processes. Shapes must be the same in all processes."""
        if self.world_size == 1:
            return
        buckets: list[list[Tensor]] = [[]]
        for tensor in tensors:
            if sum(other.numel() for other in buckets[-1]) >= _BUCKET_NUMBERS:
                buckets.append([])
            buckets[-1].append(tensor)
        flat = [torch.cat([tensor.flatten() for tensor in bucket]) for bucket in buckets]
        with _exchange():
            exchanges = [dist.all_reduce(numbers, async_op=True) for numbers in flat]
            for bucket, numbers, exchange in zip(buckets, flat, exchanges, strict=True):
                assert exchange is not None
                exchange.wait()
                for tensor, total in zip(bucket, numbers.split([tensor.numel() for tensor in bucket]), strict=True):
                    tensor.copy_(total.view_as(tensor))

    def all_gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        with _exchange():
            dist.all_gather_object(values, value)
        return values

    def all_multiply_bf16_fast(self) -> bool:
        """Whether bf16 is fast on the devices of all processes (:func:`seq2seq.device.multiplies_bf16_fast`)."""
        return not self.any(not multiplies_bf16_fast(self.device))

    def check_same(self, what: str, value: object) -> None:
        """Raise UserError in every process if ``value`` is not the same in all of them.

        Machines that share no disk would otherwise train different models.
        """
        values = self.all_gather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise UserError(
                    f"{what}: {values[0]} in process 0, {other} in process {rank}; run_dir, data and data.cache_dir "
                    "must be on a disk that all machines of the run share"
                )


@contextmanager
def _exchange() -> Iterator[None]:
    """Put around every exchange: if one of the processes has ended, the others raise UserError here."""
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # of this process
        raise
    except RuntimeError as error:  # each backend has its own subclass
        reason = re.sub(r"^\[.*?\] ", "", str(error)).split(". ")[0].strip()
        raise UserError(
            f"another process of this run has ended, or does not answer ({reason}); to continue from the last "
            "checkpoint, run the same command again"
        ) from error


@contextmanager
def joined_processes(device_name: str) -> Iterator[Processes]:
    """Join the processes that torchrun started (see its environment variables) for the time of the block.

    If the block fails in one process, all others fail at their next exchange. The first process to fail raises its
    error. The others raise ReportedElsewhereError in place of a UserError, so that one message is printed.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = choose_device(device_name, int(os.environ.get("LOCAL_RANK", 0)))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Processes(0, 1, device)
        return
    store = _meeting_place()
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=_ANSWER)
    if dist.is_torchelastic_launched():
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        with closing(Heartbeats(store, rank, world_size)) as heartbeats:
            group = dist.new_group(backend="gloo", timeout=_WORK_OF_ONE)
            yield Processes(rank, world_size, device, group, heartbeats)
    except BaseException as error:
        if not _is_first_to_fail(store) and isinstance(error, UserError):
            raise ReportedElsewhereError from error
        raise
    finally:
        dist.destroy_process_group()


def _meeting_place() -> Any:
    """The store through which the processes find each other.

    When torchrun starts the processes again, its store still has the addresses of the dead ones, and the new ones would
    wait for their answer. So each start has its own part of the store. (Several machines count their starts
    separately.)
    """
    store, _, _ = next(dist.rendezvous("env://", timeout=_ANSWER))  # type: ignore[attr-defined]
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"
    return dist.PrefixStore(f"start {start}", store)  # type: ignore[attr-defined]


def _is_first_to_fail(store: Any) -> bool:
    """Whether no other process has asked this since the start; true if that cannot be known."""
    try:
        number: int = store.add("failed", 1)
        return number == 1
    except RuntimeError:  # the process that kept the store has ended
        return True


def _end_with(parent: int) -> None:
    """Send this process SIGTERM, as torchrun would, when torchrun itself is gone. Else it would train unnoticed."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
