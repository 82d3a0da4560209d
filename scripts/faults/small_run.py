"""The small run of the attacks, over a part of the embedded corpus; it keeps all that a run can keep.

Two tokenizers, an average of the weights, checkpoints, a best and a last model, the translations of a test set. In this
process (`train` of ``tests/toy.py``) it takes about a second; `training` makes it longer and starts it in its own.
"""

from __future__ import annotations

import json
import sys
from itertools import cycle, islice
from pathlib import Path
from xml.sax.saxutils import escape

from seq2seq.config import Config, load_config
from seq2seq.errors import UserError
from seq2seq.model_folder import WEIGHTS, load_model_folder
from seq2seq.tensors import load_tensors
from seq2seq.train.checkpoint import list_checkpoints, load_checkpoint
from tests.toy import ROOT

_CONFIG = """\
run_dir: {run}
data:
  train: {{src: {text}/train.en, tgt: {text}/train.zh}}
  valid: {{src: {text}/valid.en, tgt: {text}/valid.zh}}
  test: {{src: {text}/test.en, tgt: {text}/test.zh}}
  max_length: 40
tokenizer: {{joint: false, vocab_size: 900}}
model: {{{model}encoder_layers: 1, decoder_layers: 1, d_model: 16}}
optim: {{lr: 0.01, warmup_steps: 4}}
train:
  {{batch_tokens: 300, max_steps: 12, validate_every: 5, save_every: 3, ema_decay: 0.9, metric: loss, device: cpu,
    threads: 1, keep_last: 3}}
decode: {{beam_size: 2, max_length_ratio: 1, max_length_offset: 3}}
"""
# The keys that each architecture has for itself.
_MODELS = {
    "transformer": "num_heads: 2, d_ff: 32, ",
    "recurrent": "architecture: recurrent, ",
    "convolutional": "architecture: convolutional, ",
}
ARCHITECTURES = tuple(_MODELS)
# Filters, several epochs sampled anew, dropout, a schedule.
_LONGER = [
    *("data.max_length=12", "tokenizer.sampling=0.1", "model.encoder_layers=2", "model.decoder_layers=2"),
    *("model.d_model=64", "model.dropout=0.1", "optim.lr=4e-3", "optim.schedule=cosine"),
    *("optim.warmup_steps=20", "train.batch_tokens=3000", "train.max_steps=240", "train.validate_every=16"),
    *("train.save_every=10", "train.metric=bleu", "train.patience=null"),
]
# What is never the same: clocks, and what is there by chance.
_CLOCKS = {"timing.jsonl", "tensorboard", "digests.json", "curves.png", ".lock", "sampled"}


def write_text(folder: Path, pairs: int = 300, valid: int = 6, test: int = 4) -> Path:
    """Write the first lines of the embedded corpus into ``folder``, again from its beginning where it has fewer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", pairs), ("valid", valid), ("test", test)):
        for language in ("en", "zh"):
            lines = (ROOT / "data" / f"{name}.{language}").read_bytes().splitlines(keepends=True)
            (folder / f"{name}.{language}").write_bytes(b"".join(islice(cycle(lines), count)))
    return folder


def write_mixture(text: Path) -> str:
    """Write the training text of ``text`` once more, as five datasets of different kinds; the override that names them.

    Its paths start beside the folder of the run, as those of :func:`training`.
    """
    sides = [(text / f"train.{language}").read_text(encoding="utf-8").splitlines() for language in ("en", "zh")]
    pairs = list(zip(*sides, strict=True))
    plain, tsv, csv, jsonl, tmx = (pairs[number::5] for number in range(5))
    for side, language in enumerate(("en", "zh")):
        (text / f"plain.{language}").write_text("".join(f"{pair[side]}\n" for pair in plain), encoding="utf-8")
    (text / "a.tsv").write_text("".join(f"{tgt}\t{src}\n" for src, tgt in tsv), encoding="utf-8")
    rows = "".join(f'"{src}","{tgt}"\n' for src, tgt in csv)
    (text / "b.csv").write_text(f"English,Chinese\n{rows}", encoding="utf-8")
    objects = (json.dumps({"pair": {"en": src, "zh": tgt}}) for src, tgt in jsonl)
    (text / "c.jsonl").write_text("".join(f"{one}\n" for one in objects), encoding="utf-8")
    variant = '<tuv xml:lang="{}"><seg>{}</seg></tuv>'.format
    units = "".join(f"<tu>{variant('en', escape(src))}{variant('zh', escape(tgt))}</tu>" for src, tgt in tmx)
    (text / "d.tmx").write_text(f'<tmx version="1.4"><body>{units}</body></tmx>', encoding="utf-8")
    return (
        "data.train=[{src: ../text/plain.en, tgt: ../text/plain.zh, until_epoch: 4}, "
        "{tsv: ../text/a.tsv, src: 1, tgt: 0, weight: 0.5, tag: bt}, "
        "{csv: ../text/b.csv, src: English, tgt: Chinese, weight: 2.5, name: sheet}, "
        "{jsonl: ../text/c.jsonl, src: pair.en, tgt: pair.zh, from_epoch: 2, tag: crawl}, "
        "{tmx: ../text/d.tmx, src_lang: en, tgt_lang: zh, weight: 1.25}]"
    )


def write_config(text: Path, run: Path, path: Path, architecture: str = "transformer") -> Path:
    """Write the small run's config to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_CONFIG.format(text=text, run=run, model=_MODELS[architecture]), encoding="utf-8")
    return path


def small_config(text: Path, run: Path, *overrides: str) -> Config:
    """The small run's config, with ``section.key=value`` overrides."""
    return load_config(write_config(text, run, run.with_suffix(".yaml")), overrides)


def training(folder: Path, *overrides: str, architecture: str = "transformer") -> list[str]:
    """The command of a longer run that marks its phases, to be started in ``folder``; the text is beside ``folder``.

    All paths are relative, so that two runs can have the same config to the byte.
    """
    write_config(Path("../text"), Path("run"), folder / "config.yaml", architecture)
    return [sys.executable, str(ROOT / "scripts/faults/marked.py"), "config.yaml", *_LONGER, *overrides]


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
    """Files that two finished runs do not have in common, bit by bit, clocks apart."""
    ours, theirs = (
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} for folder in (run, other)
    )
    found = []
    for name in sorted(ours | theirs):
        if set(Path(name).parts) & _CLOCKS:
            continue
        if name not in ours or name not in theirs:
            found.append(f"{name} ({'missing' if name in theirs else 'too much'})")
            continue
        content = _checkpoint_content if name.startswith("checkpoints/") else Path.read_bytes
        if content(run / name) != content(other / name):
            found.append(name)
    return found


def _checkpoint_content(path: Path) -> object:
    """All that is in a checkpoint, clocks apart."""
    tensors, texts = load_tensors(path)
    progress = {**json.loads(texts["progress"]), "seconds": 0}
    values = {name: (tensor.dtype, tensor.shape, tensor.numpy().tobytes()) for name, tensor in tensors.items()}
    return values, progress, texts["config"], texts["data"]
