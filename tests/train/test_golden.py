"""Training is today what it was when ``golden.json`` was recorded: four toy runs, number for number.

On a machine of the same kind (processor and PyTorch), every record of metrics.jsonl and every bit of the final weights
is the same. On another kind, where sums are rounded in another order, the losses agree to a few digits.

A change that is meant to alter training records the file anew, and its commit says which run changed and why::

    python -m tests.train.test_golden
"""

import hashlib
import json
import math
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.config import load_config
from seq2seq.tensors import load_tensors
from tests.toy import environment, metrics, run_command, write_config, write_text_files

GOLDEN = Path(__file__).with_name("golden.json")
_MODERN = ("model.positions=rotary", "model.num_heads=4", "model.num_kv_heads=2", "model.norm=rmsnorm")
_LONG = ("optim.warmup_steps=4", "train.max_steps=30", "train.ema_decay=0.9", "data.max_length=40")
# Of each run, its overrides of the toy config, and the number of processes.
RUNS: dict[str, tuple[tuple[str, ...], int]] = {
    "post-norm": (_LONG, 1),
    "modern with sampling": (
        (*_MODERN, *_LONG, "model.activation=swiglu", "model.norm_position=pre", "tokenizer.sampling=0.2"),
        1,
    ),
    "muon with accumulation": ((*_LONG, "optim.name=muon", "train.accumulate=3", "train.batch_tokens=240"), 1),
    "two processes": ((*_LONG, "model.norm_position=pre", "model.activation=gelu"), 2),
}


def kind_of_machine() -> str:
    """What decides how sums are rounded."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [f"model: {platform.processor()}"]
    named = [line.split(":")[1].strip() for line in lines if line.startswith(("model", "cpu family"))]
    processor = " ".join(dict.fromkeys(named))
    return f"{platform.machine()} {processor}, PyTorch {torch.__version__}"


def checksum(path: Path) -> str:
    """Of the names and bytes of all tensors in a safetensors file."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(load_tensors(path)[0].items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def run(name: str, folder: Path) -> dict[str, Any]:
    """Train one of the runs in processes of its own, on one thread each."""
    overrides, num_processes = RUNS[name]
    config = write_config(write_text_files(folder / "text"), folder / "run")
    load_config(config, overrides)  # a mistake is raised here, in words
    if num_processes == 1:
        done = run_command("train", config, *overrides)
    else:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        words = [sys.executable, *torchrun, "-m", "tests.toy", "train", str(config), *overrides]
        done = subprocess.run(words, env=environment(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return {"metrics": metrics(folder / "run"), "weights": checksum(folder / "run" / "last" / "model.safetensors")}


def losses(records: list[dict[str, Any]]) -> list[float]:
    """Of the training steps and the validations."""
    return [float(record.get("loss", record.get("valid_loss", math.nan))) for record in records]


@pytest.mark.parametrize("name", RUNS)
def test_training_is_what_it_was(name: str, tmp_path: Path) -> None:
    """Guards against a refactoring that changes training: another order of data, seed, rounding or schedule."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found, wanted = run(name, tmp_path), golden["runs"][name]
    assert [sorted(record) for record in found["metrics"]] == [sorted(record) for record in wanted["metrics"]]
    assert losses(found["metrics"]) == pytest.approx(losses(wanted["metrics"]), rel=2e-3)
    if kind_of_machine() == golden["machine"]:
        assert found == wanted


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        recorded = {name: run(name, Path(temporary) / str(number)) for number, name in enumerate(RUNS)}
    content = {"machine": kind_of_machine(), "runs": recorded}
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
