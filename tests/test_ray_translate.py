"""scripts/ray_translate.py: lost workers cost no line, mistakes cost one line, and the bytes are those of one process.

Without Ray, a pretended one runs the tasks in this process; with it, a real cluster of this machine loses a worker.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seq2seq.decode.output import OutputFile
from tests.toy import ROOT, environment, run_command, sentences, toy_model, write_lines

SCRIPT = ROOT / "scripts" / "ray_translate.py"
sys.path.insert(0, str(SCRIPT.parent))

import ray_translate  # noqa: E402 - scripts/ is no package

LINES = 4500  # two windows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a text, and its translation by one process."""
    place = tmp_path_factory.mktemp("ray")
    toy_model(place)
    write_lines(place / "in", [src for src, _ in sentences(LINES, 7)])
    done = run_command("translate", *words(place / "in", place / "whole", place / "model"), "--device", "cpu")
    assert done.returncode == 0, done.stderr.decode()
    return place


def words(source: str | Path, target: str | Path, model: str | Path = "model") -> list[str]:
    return [str(model), "--input", str(source), "--output", str(target), "--beam-size", "1", "--scores"]


class PretendedRay:
    """A cluster whose tasks run one after the other when they are waited for."""

    class exceptions:  # noqa: N801 - as in Ray
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                super().__init__(f"a traceback\n{cause}")
                self.cause = cause

    def __init__(self, gpus: int = 0) -> None:
        self.resources = {"CPU": 2.0, "GPU": float(gpus)}
        self.is_open, self.is_gone = False, False
        self.asked: dict[str, Any] = {}

    def init(self, address: str | None, **options: object) -> None:
        if address == "nobody:1" or (address is None and self.is_gone):
            raise ConnectionError("nobody answers\nat all")
        if address == "closed:1":
            raise self.exceptions.RayError("no token")
        self.is_open = True

    def shutdown(self) -> None:
        self.is_open = False

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": False, "Resources": {"CPU": 99, "GPU": 99}}, {"Alive": True, "Resources": self.resources}]

    def remote(self, **options: Any) -> Callable[..., Any]:
        self.asked |= options
        return lambda function: SimpleNamespace(options=lambda **more: self._task(function, more))

    def _task(self, function: Callable[..., None], options: dict[str, Any]) -> Any:
        self.asked |= options
        return SimpleNamespace(remote=lambda *arguments: partial(function, *arguments))

    def wait(self, pending: Sequence[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return list(pending[-1:]), list(pending[:-1])

    def get(self, task: Any) -> None:
        print("(raylet) as Ray reports a lost worker")  # to standard output
        for again in range(self.asked["max_retries"], -1, -1):
            try:
                return task()
            except tuple(self.asked["retry_exceptions"]) as error:
                if not again:
                    raise self.exceptions.RayTaskError(error) from None
            except Exception as error:  # as in Ray, of the kind of the cause as well
                raise type("Both", (self.exceptions.RayTaskError, type(error)), {})(error) from None


@pytest.fixture
def ray(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedRay:
    """The pretended cluster, seen from a folder that has the model and the text."""
    pretended = PretendedRay()
    monkeypatch.setitem(sys.modules, "ray", pretended)
    monkeypatch.chdir(tmp_path)
    for name in ("model", "in"):
        Path(name).symlink_to(place / name)
    return pretended


def test_parts_are_the_whole(
    ray: PretendedRay, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against parts that are other than those of one process, a worker that ends by SIGTERM and is not replaced,
    a bar that counts lines twice, and a cluster that is left behind."""
    ended = iter([143, 143])
    real = ray_translate.seq2seq
    monkeypatch.setattr(ray_translate, "seq2seq", lambda arguments: next(ended, None) or real(arguments))
    for parts in (2, 2):  # the second time all is there
        assert ray_translate.main(["--parts", str(parts), *words("in", "out")]) == 0
        captured = capsys.readouterr()
        assert captured.out == "out: 4,500 lines from 2 parts\n"
        assert "4500/4500" in captured.err
        assert "2 of 2 parts" in captured.err
        assert Path("out").read_bytes() == (place / "whole").read_bytes()
        assert not ray.is_open
    assert next(ended, None) is None
    assert "already complete" in Path("out.shard-2-of-2.log").read_text()
    assert (ray.asked["num_cpus"], ray.asked["num_gpus"], ray.asked["max_calls"]) == (1, 0, 1)


def test_a_part_that_always_ends_its_worker_ends_the_command(
    ray: PretendedRay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a cluster that is busy for ever, and a page of traceback."""
    monkeypatch.setattr(ray_translate, "seq2seq", lambda arguments: 143)
    assert ray_translate.main(["--parts", "2", *words("in", "out")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("ray_translate: error: out.shard-2-of-2.log: worker lost 11 times")
    assert not ray.is_open


@pytest.mark.parametrize("kind", [ZeroDivisionError, ValueError, ConnectionError])
def test_a_bug_keeps_its_traceback(kind: type[Exception], ray: PretendedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a bug that looks like a mistake of the user, or like a cluster that does not answer."""

    def broken(arguments: Sequence[str]) -> int:
        raise kind

    monkeypatch.setattr(ray_translate, "seq2seq", broken)
    with pytest.raises(ray.exceptions.RayTaskError, match="traceback"):
        ray_translate.main(["--parts", "2", *words("in", "out")])
    assert not ray.is_open


@pytest.mark.parametrize(
    ("options", "gpus", "says"),
    [
        (["--parts", "0"], 0, "--parts: must be at least 1, not 0"),
        (["--parts", "2", "--shard", "1/2"], 0, "--shard: is for one part"),
        (["--parts", "2", "--input", "-"], 0, "give files on a disk that all machines share"),
        (["--parts", "2", "--output", "-"], 0, "give files on a disk that all machines share"),
        (["--parts", "2", "--address", "nobody:1"], 0, "--address: nobody answers; this machine must be a node"),
        (["--parts", "2", "--address", "closed:1"], 0, "--address: no token; this machine must be a node"),
        (["--parts", "2", "--threads", "3"], 0, "no machine of the cluster has --threads 3 cores and 0 GPUs"),
        (["--parts", "2", "--device", "cuda"], 0, "cores and 1 GPUs"),
        (["--parts", "2"], 1, "CUDA"),  # auto: cuda, which this machine does not have; as translate says it
        (["--parts", "2", "--beam-size", "0"], 0, "_translate: error: --beam-size: must be"),
    ],
)
def test_a_mistake_is_one_line(
    options: list[str], gpus: int, says: str, ray: PretendedRay, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against mistakes that end in a traceback, or that wait for ever for a machine that is not there."""
    ray.resources["GPU"] = gpus
    assert ray_translate.main([*words("in", "out"), *options]) == 2
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert says in last
    assert "error: " in last
    assert not Path("out").exists()
    assert not ray.is_open


def test_a_cluster_that_was_killed_does_not_stand_in_the_way(
    ray: PretendedRay, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against advice for another case: without --address, Ray tries the cluster that was there last."""
    ray.is_gone = True
    assert ray_translate.main(["--parts", "2", *words("in", "out")]) == 2
    assert "nobody answers; if that cluster is gone, give --address local" in capsys.readouterr().err
    assert ray_translate.main(["--parts", "2", "--address", "local", *words("in", "out")]) == 0


def test_another_division_is_named_before_the_work(ray: PretendedRay, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a day of work that merge refuses."""
    Path("out.shard-1-of-3").touch()
    assert ray_translate.main(["--parts", "2", *words("in", "out")]) == 2
    assert "out.shard-1-of-3: is a part of 3; give --parts 3" in capsys.readouterr().err


def test_a_lost_worker_may_end_late(ray: PretendedRay, place: Path) -> None:
    """Guards against a command that ends because the worker of a lost machine, or of a killed command, still writes."""
    target = Path("out.shard-1-of-2").resolve()
    holder = OutputFile(target)
    ended = threading.Timer(0.5, holder.__exit__, (None, None, None))
    ended.start()
    assert ray_translate.main(["--parts", "2", *words("in", "out")]) == 0
    assert not ended.is_alive()
    assert Path("out").read_bytes() == (place / "whole").read_bytes()


def test_a_machine_without_the_disk_is_named(tmp_path: Path) -> None:
    """Guards against a traceback of a machine that does not share the disk."""
    with pytest.raises(ray_translate.UserError, match=rf"{os.uname().nodename}; all machines need the same disk"):
        ray_translate.translate_part(tmp_path / "elsewhere", [], "1/2", Path("log"))


def test_ray_may_be_missing(ray: PretendedRay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Guards against a traceback where the extra is not installed."""
    monkeypatch.setitem(sys.modules, "ray", None)
    assert ray_translate.main(["--parts", "2", *words("in", "out")]) == 2
    assert capsys.readouterr().err == "ray_translate: error: Ray is not installed: pip install '.[ray]'\n"


def workers(place: Path) -> list[int]:
    """The processes of a real cluster that translate in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").samefile(place) and b"translate_part" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended
            pass
    return found


def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_real_cluster_loses_a_worker_and_is_interrupted(place: Path, tmp_path: Path) -> None:
    """Guards against a killed worker that costs the translation or changes it, and Ctrl-C that leaves processes."""
    pytest.importorskip("ray")
    write = [sys.executable, str(SCRIPT), "--parts", "2", *words(place / "in", "out", place / "model")]
    env = environment()
    env.pop("RAY_ADDRESS", None)
    for number in (signal.SIGINT, signal.SIGKILL):
        job = subprocess.Popen(write, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda: workers(tmp_path))
        if number == signal.SIGINT:
            job.send_signal(number)
        else:
            os.kill(workers(tmp_path)[0], number)
        output, errors = job.communicate(timeout=120)
        if number == signal.SIGINT:
            assert (job.returncode, output) == (130, b"")
            assert b"the same command continues" in errors.splitlines()[-1]
            wait_until(lambda: not workers(tmp_path), 10)
            assert not (tmp_path / "out").exists()
    assert job.returncode == 0, errors.decode()
    assert (tmp_path / "out").read_bytes() == (place / "whole").read_bytes()
