"""A toy language pair and toy runs: what the tests of training, translating and the command line share.

The text is made up: a sentence is a few words of a small lexicon, its translation the words of another lexicon in
reverse order. A run on it takes about a second.
"""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from seq2seq.config import Config, load_config
from seq2seq.train import setup, trainer
from seq2seq.train.distributed import Processes
from tests.forked import Process

ROOT = Path(__file__).resolve().parents[1]
_SRC = ("ka", "to", "mi", "ren", "sol", "vu", "pa", "lin")
_TGT = ("dor", "fe", "gu", "hex", "ji", "bra", "no", "zwe")

TOY_DATA = """\
run_dir: {run}
data:
  train: {{src: {text}/train.xx, tgt: {text}/train.yy}}
  valid: {{src: {text}/valid.xx, tgt: {text}/valid.yy}}
  clean: {{overlap: false}}
  max_length: 24
  cache_dir: {text}/cache
"""
TOY = (
    TOY_DATA
    + """\
tokenizer: {{vocab_size: 330, character_coverage: 0.9995, kind: unigram, joint: true, sampling: 0}}
model:
  {{encoder_layers: 1, decoder_layers: 1, d_model: 16, num_heads: 2, d_ff: 32, dropout: 0.1, norm_position: post,
    positions: sinusoidal}}
optim: {{name: adamw, lr: 0.01, embedding_lr_ratio: 1, weight_decay: 0, warmup_steps: 0, schedule: inverse_sqrt}}
train:
  {{batch_tokens: 120, max_steps: 12, validate_every: 5, save_every: 3, ema_decay: 0, patience: 10, device: cpu,
   threads: 1}}
decode: {{beam_size: 2, max_length_offset: 3, max_length_ratio: 1}}
"""
)


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Made-up sentence pairs."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        words = rng.integers(0, len(_SRC), size=(int(rng.integers(1, 7)), 2))
        src = ["".join(_SRC[i] for i in word) for word in words]
        tgt = ["".join(_TGT[i] for i in word) for word in words[::-1]]
        pairs.append((" ".join(src), " ".join(tgt)))
    return pairs


def write_lines(path: Path, lines: list[str]) -> None:
    """One line each, ended by LF."""
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def write_text_files(folder: Path) -> Path:
    """Write train, valid and test (.xx and .yy) into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate({"train": 60, "valid": 6, "test": 5}.items()):
        pairs = sentences(count, seed)
        write_lines(folder / f"{name}.xx", [src for src, _ in pairs])
        write_lines(folder / f"{name}.yy", [tgt for _, tgt in pairs])
    return folder


def write_config(text: Path, run: Path) -> Path:
    """Write ``<run>.yaml``, a toy config over the text files in ``text``."""
    path = run.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TOY.format(text=text, run=run), encoding="utf-8")
    return path


def toy_config(text: Path, run: Path, *overrides: str) -> Config:
    """The toy config with ``section.key=value`` overrides."""
    return load_config(write_config(text, run), overrides)


def set_up(config: Config) -> setup.Run:
    """A run in this process, on the CPU, without a measured peak, which takes long."""
    with mock.patch.object(setup, "matmul_peak", return_value=1e12):
        return setup.set_up(config, Processes(0, 1, torch.device("cpu")))


def train(config: Config, stop_after: int | None = None) -> trainer.Summary:
    """Run a training (or continue it) in this process."""
    return trainer.train(set_up(config), stop_after)


def toy_model(folder: Path) -> Path:
    """A run folder with a model that has learnt a little: its translations depend on what it reads.

    ``folder`` is one of pytest's temporary folders. The model is trained once, beside them, and then copied, so the
    paths in its config are not those of the copy.
    """
    write_text_files(folder / "text")
    shutil.copytree(_trained_model(folder.parent / "toy-model"), folder / "model")
    return folder / "model"


@cache
def _trained_model(folder: Path) -> Path:
    text = write_text_files(folder / "text")
    shape = ("model.d_model=32", "model.norm_position=pre", "model.dropout=0", "train.label_smoothing=0")
    often = ("train.max_steps=200", "train.batch_tokens=200", "train.validate_every=100", "train.save_every=100")
    train(toy_config(text, folder / "model", *shape, *often, "train.metric=loss", "optim.lr=0.02"))
    return folder / "model"


def metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def weights(run: Path, name: str = "last") -> bytes:
    """The bytes of a run's weights file."""
    return (run / name / "model.safetensors").read_bytes()


def environment() -> dict[str, str]:
    """For a process of its own: the package found, one thread, no rank of an outer run."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(*arguments: str | Path) -> list[str]:
    """The command line, to be started by ``subprocess`` where it matters how Python starts."""
    return [sys.executable, "-m", "seq2seq", *map(str, arguments)]


def start_command(*arguments: str | Path, env: dict[str, str] | None = None, **options: Any) -> Process:
    """Start :func:`run_main` in a process of its own, with the ``options`` of ``Process``."""
    return Process(run_main, (list(map(str, arguments)),), env=env or environment(), **options)


def run_command(
    *arguments: str | Path, stdin: Any = b"", stdout: Any = subprocess.PIPE, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end in a process of its own; ``stdin`` is what it reads, or a file."""
    given = stdin if isinstance(stdin, bytes) else b""
    source = subprocess.PIPE if isinstance(stdin, bytes) else stdin
    process = start_command(*arguments, stdin=source, stdout=stdout, stderr=subprocess.PIPE, **options)
    out, err = process.communicate(given, timeout=300)
    return subprocess.CompletedProcess(list(map(str, arguments)), process.wait(), out, err)


def run_main(arguments: list[str]) -> int:
    """The command line without what takes longer than a toy run: no measured peak, no picture of curves."""
    from seq2seq.cli.main import main

    peak = mock.patch.object(setup, "matmul_peak", return_value=1e12)
    with peak, mock.patch("seq2seq.report.curves.draw_curves"):
        return main(arguments)


def environments(num_processes: int) -> tuple[Any, list[dict[str, str]]]:
    """Of the processes of one run, as torchrun makes them; and what they meet in, to be kept while they run."""
    store: Any = torch.distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    shared = {"WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    shared["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    return store, [{**environment(), **shared, "RANK": str(rank)} for rank in range(num_processes)]


if __name__ == "__main__":  # where Python itself, or torchrun, starts it
    sys.exit(run_main(sys.argv[1:]))
