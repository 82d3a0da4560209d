"""A small run over a part of the embedded corpus: what the attacks on storage train, stop and continue.

It keeps all that a run can keep: an average of the weights, two tokenizers, checkpoints, a best and a last model, the
translations of a test set. It takes about a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from seq2seq.config import Config
from seq2seq.config_file import load_config
from seq2seq.tensors import load_tensors
from seq2seq.train.checkpoint import list_checkpoints
from seq2seq.train.distributed import Processes
from seq2seq.train.trainer import Trainer

_TRAINER = Trainer.__module__
_CORPUS = Path(__file__).resolve().parents[2] / "data"
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


class Stopped(BaseException):
    """Stands for a kill: nothing in the package may catch it."""


def write_text(folder: Path, pairs: int = 300) -> Path:
    """Write the first lines of the embedded corpus into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", pairs), ("valid", 6), ("test", 4)):
        for language in ("en", "zh"):
            with (_CORPUS / f"{name}.{language}").open("rb") as whole:
                (folder / f"{name}.{language}").write_bytes(b"".join(next(whole) for _ in range(count)))
    return folder


def write_config(text: Path, run: Path, path: Path) -> Path:
    """Write the small run's config to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_CONFIG.format(text=text, run=run), encoding="utf-8")
    return path


def small_config(text: Path, run: Path, *overrides: str) -> Config:
    """The small run's config, with ``section.key=value`` overrides."""
    return load_config(write_config(text, run, run.with_suffix(".yaml")), overrides)


def train(config: Config) -> None:
    """Train, or go on, in this process; without the picture of the curves and without a measurement of the machine,
    which would take most of the time."""
    picture, machine = mock.patch(f"{_TRAINER}.draw_curves"), mock.patch(f"{_TRAINER}.matmul_peak", return_value=1e12)
    with picture, machine:
        Trainer(config, Processes(0, 1, torch.device("cpu"))).run()


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


def differences(run: Path, other: Path) -> list[str]:
    """What two finished runs do not have in common, bit by bit, of all that is a function of config and text."""
    names = ["best/model.safetensors", "last/model.safetensors", "metrics.jsonl", "test.hyp.txt", "test.json"]
    found = [name for name in names if (run / name).read_bytes() != (other / name).read_bytes()]
    ours, theirs = (load_tensors(list_checkpoints(folder)[-1])[0] for folder in (run, other))
    if ours.keys() != theirs.keys() or any(not torch.equal(ours[name], theirs[name]) for name in theirs):
        found.append("the last checkpoint")
    return found
