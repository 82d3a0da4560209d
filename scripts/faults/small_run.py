"""The small run of the attacks, over a part of the embedded corpus; it keeps all that a run can keep.

Two tokenizers, an average of the weights, checkpoints, a best and a last model, the translations of a test set. In this
process (`train` of ``tests/toy.py``) it takes about a second; `training` makes it longer and starts it in its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from unittest import mock

import torch

from seq2seq.config import Config, load_config
from seq2seq.errors import UserError
from seq2seq.model_folder import WEIGHTS, load_model_folder
from seq2seq.tensors import load_tensors
from seq2seq.train.checkpoint import list_checkpoints, load_checkpoint
from seq2seq.train.trainer import Trainer
from tests.toy import ROOT

_CONFIG = """\
run_dir: {run}
data:
  train: {{src: {text}/train.en, tgt: {text}/train.zh}}
  valid: {{src: {text}/valid.en, tgt: {text}/valid.zh}}
  test: {{src: {text}/test.en, tgt: {text}/test.zh}}
  max_length: 40
tokenizer: {{joint: false, vocab_size: 900}}
model: {{encoder_layers: 1, decoder_layers: 1, d_model: 16, num_heads: 2, d_ff: 32}}
optim: {{lr: 0.01, warmup_steps: 4}}
train:
  {{batch_tokens: 300, max_steps: 12, validate_every: 5, save_every: 3, ema_decay: 0.9, metric: loss, device: cpu,
    threads: 1, keep_last: 3}}
decode: {{beam_size: 2, max_length_ratio: 1, max_length_offset: 3}}
"""
# Filters, several epochs sampled anew, dropout, a schedule.
_LONGER = [
    *("data.max_length=12", "tokenizer.sampling=0.1", "model.encoder_layers=2", "model.decoder_layers=2"),
    *("model.d_model=64", "model.d_ff=128", "model.dropout=0.1", "optim.lr=4e-3", "optim.schedule=cosine"),
    *("optim.warmup_steps=20", "train.batch_tokens=3000", "train.max_steps=240", "train.validate_every=16"),
    *("train.save_every=10", "train.metric=bleu", "train.patience=null"),
]


class Stopped(BaseException):
    """Stands for a kill: nothing in the package may catch it."""


def write_text(folder: Path, pairs: int = 300, valid: int = 6, test: int = 4) -> Path:
    """Write the first lines of the embedded corpus into ``folder``, again from its beginning where it has fewer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", pairs), ("valid", valid), ("test", test)):
        for language in ("en", "zh"):
            lines = (ROOT / "data" / f"{name}.{language}").read_bytes().splitlines(keepends=True)
            (folder / f"{name}.{language}").write_bytes(b"".join(islice(cycle(lines), count)))
    return folder


def write_config(text: Path, run: Path, path: Path) -> Path:
    """Write the small run's config to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_CONFIG.format(text=text, run=run), encoding="utf-8")
    return path


def small_config(text: Path, run: Path, *overrides: str) -> Config:
    """The small run's config, with ``section.key=value`` overrides."""
    return load_config(write_config(text, run, run.with_suffix(".yaml")), overrides)


def training(folder: Path, *overrides: str) -> list[str]:
    """The command of a longer run that marks its phases, to be started in ``folder``; the text is beside ``folder``.

    All paths are relative, so that two runs can have the same config to the byte.
    """
    write_config(Path("../text"), Path("run"), folder / "config.yaml")
    return [sys.executable, str(ROOT / "scripts/faults/marked.py"), "config.yaml", *_LONGER, *overrides]


@contextmanager
def stopping_before(step: int) -> Iterator[None]:
    """Let training stop dead when it comes to a step."""
    original = Trainer._step

    def stop(trainer: Trainer, *arguments: object) -> None:
        if trainer.progress.step + 1 == step:
            raise Stopped
        original(trainer, *arguments)  # type: ignore[arg-type]

    with mock.patch.object(Trainer, "_step", stop):
        yield


def broken_parts(run: Path) -> list[str]:
    """What of the checkpoints and models of a run does not load."""
    found = []
    folders = [run / name for name in ("best", "last") if (run / name / WEIGHTS).exists()]
    for path in (*list_checkpoints(run), *folders):
        try:
            load_model_folder(path) if path.is_dir() else load_checkpoint(path)
        except UserError as error:
            found.append(str(error))
    return found


def differences(run: Path, other: Path) -> list[str]:
    """What two finished runs do not have in common, bit by bit, of all that is a function of config and text."""
    names = ["best/model.safetensors", "last/model.safetensors", "metrics.jsonl", "test.hyp.txt", "test.json"]
    found = [name for name in names if (run / name).read_bytes() != (other / name).read_bytes()]
    ours, theirs = (load_tensors(list_checkpoints(folder)[-1])[0] for folder in (run, other))
    if ours.keys() != theirs.keys() or any(not torch.equal(ours[name], theirs[name]) for name in theirs):
        found.append("the last checkpoint")
    return found
