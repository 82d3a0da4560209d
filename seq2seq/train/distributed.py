"""The processes of a run: one, or those that torchrun started."""

from __future__ import annotations

import os
import re
import signal
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

from seq2seq.device import choose_device
from seq2seq.errors import ToldElsewhereError, UserError

_ANSWER = timedelta(minutes=30)  # until a process that is there and does not answer counts as lost
_WORK_OF_ONE = timedelta(days=7)  # the others wait while the main process prepares data, however much
_BEAT_SECONDS = 1.0
_BUCKET_NUMBERS = 2**21  # sent together: one by one small tensors take three times as long, all at once a third longer


class Heartbeats:
    """A thread of each process counts up in the store, so that the others can tell a busy process from a dead one."""

    def __init__(self, store: Any, rank: int, count: int) -> None:
        self._store, self._count = store, count
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(store.clone(), rank), daemon=True)
        self._thread.start()

    def _beat(self, store: Any, rank: int) -> None:
        with suppress(RuntimeError):  # the process that kept the store has ended
            while not self._over.wait(_BEAT_SECONDS):
                store.add(f"heartbeat {rank}", 1)

    def close(self) -> None:
        """End the thread before the process ends: Python would stop it in the middle of a call to the store."""
        self._over.set()
        self._thread.join(3 * _BEAT_SECONDS)

    def all_beat(self) -> bool:
        """Whether each process counts on; call it from one thread. Takes three beats."""
        try:
            store = self._store.clone()
            before = [store.add(f"heartbeat {rank}", 0) for rank in range(self._count)]
            time.sleep(3 * _BEAT_SECONDS)
            after = [store.add(f"heartbeat {rank}", 0) for rank in range(self._count)]
        except RuntimeError:
            return False
        return all(late > early for early, late in zip(before, after, strict=True))


@dataclass(frozen=True)
class Processes:
    """This process among all of the run."""

    rank: int
    count: int
    device: torch.device
    waiting: dist.ProcessGroup | None = None  # all of them; made for waits longer than an exchange may take
    heartbeats: Heartbeats | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            with _exchange():
                dist.barrier(self.waiting)

    def others_live(self) -> bool:
        """Whether all other processes are there, busy or not; takes some seconds."""
        return self.heartbeats is None or self.heartbeats.all_beat()

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process; the same answer everywhere."""
        return bool(self.sum([float(flag)])[0])

    def sum(self, values: list[float]) -> list[float]:
        """Sums over the processes, in float64."""
        if self.count == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        with _exchange():
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
        with _exchange():
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
        with _exchange():
            dist.all_gather_object(values, value)
        return values

    def check_same(self, what: str, value: object) -> None:
        """Raise UserError, in every process, where ``value`` is not the same in all.

        Machines that share no disk would otherwise train as many different models.
        """
        values = self.gather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise UserError(
                    f"{what}: {values[0]} in process 0, {other} in process {rank}; run_dir, data and data.cache_dir "
                    "must be on a disk that all machines of the run share"
                )


@contextmanager
def _exchange() -> Iterator[None]:
    """Around what needs all processes: where one has ended, the others learn of it here."""
    try:
        yield
    except RuntimeError as error:  # of whichever kind the backend has for it
        reason = re.sub(r"^\[.*?\] ", "", str(error)).split(". ")[0].strip()
        raise UserError(
            f"another process of this run has ended, or does not answer ({reason}); the same command continues from "
            "the last checkpoint"
        ) from error


@contextmanager
def joined_processes(device_name: str) -> Iterator[Processes]:
    """Join the processes that torchrun started (as its environment variables say), for as long as the block lasts.

    Where the block fails in one process, all others fail with their next exchange. The first one to fail raises its
    error; of the others, those that would raise a UserError raise ToldElsewhereError.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = choose_device(device_name, int(os.environ.get("LOCAL_RANK", 0)))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(0, 1, device)
        return
    store = _meeting_place()
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_ANSWER)
    if dist.is_torchelastic_launched():
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        with closing(Heartbeats(store, rank, count)) as heartbeats:
            group = dist.new_group(backend="gloo", timeout=_WORK_OF_ONE)
            yield Processes(rank, count, device, group, heartbeats)
    except BaseException as error:
        if not _is_first_to_fail(store) and isinstance(error, UserError):
            raise ToldElsewhereError from error
        raise
    finally:
        dist.destroy_process_group()


def _meeting_place() -> Any:
    """The store through which the processes find each other.

    torchrun keeps one store when it starts the processes again, and in it the addresses of the dead ones, where the new
    ones would wait for an answer; so each start has its own part. (On several machines the starts are counted apart.)
    """
    store, _, _ = next(dist.rendezvous("env://", timeout=_ANSWER))  # type: ignore[attr-defined]
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"
    return dist.PrefixStore(f"start {start}", store)  # type: ignore[attr-defined]


def _is_first_to_fail(store: Any) -> bool:
    """Whether no other process has asked this since they started; also where that cannot be known."""
    try:
        number: int = store.add("failed", 1)
        return number == 1
    except RuntimeError:  # the process that kept the store has ended
        return True


def _end_with(parent: int) -> None:
    """Ask this process to end, as torchrun would, once torchrun itself is gone: it would train on, unknown to all."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
