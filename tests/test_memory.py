"""Running out of memory is reported in one line, and available memory is read from the system."""

import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from seq2seq.data.formats.lines import read_text
from seq2seq.decode.engine import TorchEngine
from seq2seq.decode.translator import Translator
from seq2seq.errors import OutOfMemoryError
from seq2seq.memory import control_group_room, memory_explained, memory_room, peak_memory
from seq2seq.train.trainer import train
from seq2seq.train.validation import corpus_loss
from tests.toy import set_up, toy_config, write_text_files


@contextmanager
def little_memory() -> Iterator[None]:
    """The process can have no more than 60 MB beyond what it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 60_000_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_out_of_memory_names_the_shape_and_what_to_lower(tmp_path: Path) -> None:
    """A person must learn from one line which batch was too large and which setting makes it smaller, in training, in
    validation and in translating; what the system's own error says is neither."""
    text = write_text_files(tmp_path / "text")
    large = ("train.accumulate=1", "train.batch_tokens=2000", "model.d_ff=500000")  # more than what is freed and kept
    config = toy_config(text, tmp_path / "run", *large)
    run = set_up(config)
    with pytest.raises(OutOfMemoryError) as caught, little_memory():
        train(run)
    shape = r"60 sentences of up to \d+ tokens in micro-batches of 60 \(\d+ source and \d+ target tokens\)"
    lower = r"raise train.accumulate, or lower train.batch_tokens \(2000\) or data.max_length \(24\)"
    assert re.match(rf"out of memory \([\d.]+ GB more needed\) at step 1, {shape}: {lower}", str(caught.value))

    translator = Translator(TorchEngine(run.model.eval()), config, run.data.tokenizers)
    with pytest.raises(OutOfMemoryError) as caught, little_memory():
        translator.translate(5 * read_text(text / "train.xx"), config.decode)  # earlier tests leave room for 60 lines
    lower = r"lower decode.batch_tokens \(8192\) or the number of hypotheses \(decode.beam_size\)"
    assert re.search(rf" at a search of \d+ lines with 2 hypotheses each and up to .*: {lower}$", str(caught.value))

    with pytest.raises(OutOfMemoryError, match=r"at the validation loss, 60 sentences .*: lower train.batch_tokens"):
        with little_memory():
            corpus_loss(run.model, run.data.train, np.arange(60), config, run.processes, torch.float32)


def test_the_first_step_of_a_gpu_runs_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against advice for the start of a run if the step is too large: compiling comes before the first step."""

    def warm_up(*_: object) -> bool:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0")

    run = set_up(toy_config(write_text_files(tmp_path / "text"), tmp_path / "run"))
    monkeypatch.setattr(run.gradients, "warm_up", warm_up)
    with pytest.raises(OutOfMemoryError, match=r"2.50 GiB more needed.*lower train.batch_tokens"):
        train(run)


def test_only_lack_of_memory_is_explained() -> None:
    """Another error of PyTorch that is reported as lack of memory would mislead users."""
    for error in (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0"), MemoryError()):
        with pytest.raises(OutOfMemoryError, match=r"^out of memory( \(2.50 GiB more needed\))? at the work$"):
            with memory_explained(lambda: "the work"):
                raise error
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OutOfMemoryError("explained already")):
        with pytest.raises(type(other)) as caught, memory_explained(lambda: "the work"):
            raise other
        assert caught.value is other


def test_limits_of_control_groups(tmp_path: Path) -> None:
    """In a container the machine's free memory is not the container's: the limit of any group around it holds, less
    what is used and cannot be given back."""
    first, second = tmp_path / "first", tmp_path / "second/memory"
    for folder, texts in {
        first / "a": {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 5\ninactive_file 100"},
        first / "a/b": {"memory.max": "max", "memory.current": "600"},
        second: {"memory.limit_in_bytes": "9000", "memory.usage_in_bytes": "1000"},
    }.items():
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text + "\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")
    assert control_group_room(membership, first) == [400]
    membership.write_text("7:cpu:/x\n4:memory:/elsewhere\n0::/\n")
    assert control_group_room(membership, second.parent) == [8000]
    assert control_group_room(tmp_path / "nothing", first) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_room_and_peak_are_of_this_process() -> None:
    """The peak moves with what is really used, and the room holds it: otherwise nothing or all would fit."""
    device = torch.device("cpu")
    before = peak_memory(device)
    grown = torch.ones(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 4 + 10_000_000)  # never so much yet
    after, room = peak_memory(device), memory_room(device)
    assert room is not None
    assert after - before >= 40_000_000
    assert room > grown.nbytes
    del grown
    assert peak_memory(device) > after - 1_000_000  # the system counts in pieces
