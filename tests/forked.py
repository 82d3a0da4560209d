"""Processes of their own, without the seconds that a new Python takes to import PyTorch.

They are forked from a server that has imported all that the commands need and has done nothing else. Each is a real
process: it has a number, streams, signals and an exit status of its own. What is forked has not started as Python
starts: how the interpreter opens its streams, and what is imported when, is tested with ``subprocess``.
"""

import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any
from unittest import mock

_ROOT = Path(__file__).resolve().parents[1]


class _Stream:
    """A file descriptor that a child gets a copy of."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _detached, (DupFd(self.number),)


def _detached(copy: Any) -> int:
    number: int = copy.detach()
    return number


def _begin(
    target: Callable[..., Any], arguments: tuple[Any, ...], streams: list[int], env: dict[str, str], cwd: str
) -> None:
    """In the child: take over the streams, the environment and the folder, and run."""
    for number, copy in enumerate(streams):
        os.dup2(copy, number)
        os.close(copy)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        stream = open(number, mode, 1 if name == "stderr" else -1, encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.exit(target(*arguments))


class Process:
    """What the tests use of ``subprocess.Popen``, for ``target(*arguments)``; its result is the exit status.

    Streams are, as there, None (that of this process), ``subprocess.PIPE`` (unbuffered here), ``subprocess.DEVNULL``,
    or an open file.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        theirs: list[int] = []
        opened: list[int] = []
        mine: list[io.FileIO | None] = []
        for number, stream in enumerate((stdin, stdout, stderr)):
            end: io.FileIO | None = None
            if stream is None:
                theirs.append(number)
            elif stream == subprocess.DEVNULL:
                opened.append(os.open(os.devnull, os.O_RDWR))
                theirs.append(opened[-1])
            elif stream == subprocess.PIPE:
                reader, writer = os.pipe()
                end = io.FileIO(writer, "w") if number == 0 else io.FileIO(reader)
                opened.append(reader if number == 0 else writer)
                theirs.append(opened[-1])
            else:
                theirs.append(stream if isinstance(stream, int) else stream.fileno())
            mine.append(end)
        self.stdin, self.stdout, self.stderr = mine
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.preload"])
        self._process = context.Process(
            target=_begin,
            args=(target, arguments, [_Stream(number) for number in theirs], dict(env), str(cwd or Path.cwd())),
        )
        with mock.patch.dict(os.environ, PYTHONPATH=str(_ROOT)):  # the first starts the server
            self._process.start()
        for number in opened:
            os.close(number)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self.returncode

    def communicate(self, input: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:
        """Write ``input``, close standard input, read what is piped to its end, and wait."""
        with ThreadPoolExecutor(3) as pool:
            if self.stdin is not None:
                pool.submit(self._feed, input)
            streams = (self.stdout, self.stderr)
            reading = [None if stream is None else pool.submit(stream.readall) for stream in streams]
            try:
                self.wait(timeout)
            except BaseException:
                self.kill()
                raise
        out, err = (b"" if one is None else one.result() for one in reading)
        self._close()
        return out, err

    def _feed(self, data: bytes) -> None:
        assert self.stdin is not None
        try:
            with self.stdin, io.BufferedWriter(self.stdin) as writer:
                writer.write(data)
        except BrokenPipeError:
            pass  # the process does not read its input to the end

    def _close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self.stdin is not None:
            self.stdin.close()
        self.wait()
        self._close()
