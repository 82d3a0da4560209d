"""What the processes of a run exchange, and how they end when one of them does."""

import os
import signal
import subprocess
import time
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from seq2seq.cli import train as train_command
from seq2seq.cli.main import main
from seq2seq.errors import UserError
from seq2seq.train import distributed
from seq2seq.train.distributed import Processes
from tests.forked import Process
from tests.toy import environments


# Three processes exchange numbers; after a hundred exchanges, process 1 says so and meets what the argument says.
def run_program(how: str) -> int:
    def train(_: object) -> None:
        with distributed.joined_processes("cpu") as processes:
            for number in range(10**9):
                if processes.rank == 1 and number == 100:
                    if how == "error":
                        raise UserError("planted")
                    os.kill(os.getpid(), signal.SIGKILL)
                assert processes.sum(1.0) == 3.0

    with mock.patch.object(train_command, "run", train):
        return main(["train", "x"])


@pytest.mark.parametrize("bucket", [1, 5, 1000])
def test_every_tensor_is_summed_once_whatever_bucket_it_travels_in(
    bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process has the same numbers here, so a sum is twice as much."""
    sent: list[int] = []

    def all_reduce(tensor: Tensor, async_op: bool) -> mock.Mock:
        assert async_op
        sent.append(tensor.numel())
        return mock.Mock(wait=lambda: tensor.mul_(2))

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(distributed, "_BUCKET_NUMBERS", bucket)
    tensors = [torch.arange(6.0).view(2, 3), torch.tensor(7.0), torch.arange(4.0), torch.ones(1, 2)]
    wanted = [2 * tensor for tensor in tensors]
    Processes(0, 2, torch.device("cpu")).all_reduce(tensors)
    assert all(torch.equal(one, other) for one, other in zip(tensors, wanted, strict=True))
    assert sent == {1: [6, 1, 4, 2], 5: [6, 5, 2], 1000: [13]}[bucket]


@pytest.mark.parametrize("how", ["error", "kill"])
def test_when_one_ends_all_end_and_one_tells_why(how: str) -> None:
    """Guards against processes that wait for a dead one, against a traceback of each, and against messages that say
    the same several times or hide the cause."""
    _store, variables = environments(3)
    processes = [Process(run_program, (how,), env=env, stderr=subprocess.PIPE) for env in variables]
    try:
        told = b"".join(process.communicate(timeout=300)[1] for process in processes).decode()
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [2, 2 if how == "error" else -signal.SIGKILL, 2]
    expected = "planted" if how == "error" else "another process of this run has ended"
    assert told.startswith(f"seq2seq train: error: {expected}"), told
    assert told.count("\n") == 1, told


def test_a_new_start_does_not_meet_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun keeps its store when it starts the processes again; with the addresses of the dead ones in it, the new
    ones waited for an answer without end."""
    kept = dist.HashStore()
    monkeypatch.setattr(dist, "rendezvous", lambda url, **_: iter([(kept, 0, 2)]))
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    first = distributed._meeting_place()
    first.set("address", "of one who dies")
    assert distributed._is_first_to_fail(first)
    assert distributed._meeting_place().check(["address"])
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    second = distributed._meeting_place()
    assert not second.check(["address"])
    assert distributed._is_first_to_fail(second)
    assert not distributed._is_first_to_fail(first)


def test_no_process_outlives_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a run that goes on, unknown to all, beside the one that takes its place."""
    parents = iter([7, 7, 1])
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "kill", lambda *arguments: sent.append(arguments))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    distributed._end_with(7)
    assert sent == [(os.getpid(), signal.SIGTERM)]
    assert not list(parents), "too soon"


def test_machines_that_do_not_share_a_disk_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against processes of which some continue and some start anew: their weights would differ from then on."""
    for theirs, problem in ((40, None), (0, "the step to continue after: 40 in process 0, 0 in process 1")):

        def gather(values: list[object], value: object, theirs: int = theirs) -> None:
            values[:] = [value, theirs]

        monkeypatch.setattr(dist, "all_gather_object", gather)
        processes = Processes(0, 2, torch.device("cpu"))
        if problem is None:
            processes.check_same("the step to continue after", 40)
        else:
            with pytest.raises(UserError, match=problem):
                processes.check_same("the step to continue after", 40)


@pytest.mark.parametrize("slow_processes", [0, 1, 2])
def test_bf16_only_where_all_are_fast(slow_processes: int) -> None:
    """Guards against processes on unlike processors, whose weights would drift apart."""
    processes = Processes(0, 3, torch.device("cpu"))
    with mock.patch.object(Processes, "sum", return_value=float(slow_processes)):
        assert processes.all_multiply_bf16_fast() is (slow_processes == 0)
