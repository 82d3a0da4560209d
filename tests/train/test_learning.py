"""The whole machine learns: an exact rule from examples, and holds it on strings it has not seen."""

from pathlib import Path

import numpy as np
import torch

from seq2seq.config import load_config
from seq2seq.decode.translator import Translator
from tests.toy import train, write_lines

CONFIG = """\
run_dir: {0}/run
data:
  train: {{src: {0}/train.src, tgt: {0}/train.tgt}}
  valid: {{src: {0}/valid.src, tgt: {0}/valid.tgt}}
  max_length: 20
tokenizer: {{kind: unigram, vocab_size: 40, byte_fallback: false, character_coverage: 1.0}}
model: {{encoder_layers: 1, decoder_layers: 1, d_model: 64, num_heads: 4, d_ff: 128, dropout: 0, norm_position: pre}}
optim: {{lr: 6e-3, warmup_steps: 50, schedule: cosine}}
train: {{batch_tokens: 600, max_steps: 200, validate_every: 1000, label_smoothing: 0, ema_decay: 0.98, device: cpu}}
decode: {{beam_size: 1}}
"""


def test_learns_to_reverse(tmp_path: Path) -> None:
    """A mistake anywhere (labels off by one, a mask, positions, the search) keeps the model from reversing strings of
    symbols that it has not seen; a copying or counting model would fail as well."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(3)
    strings = {" ".join(rng.choice(list("abcdefghij"), size=rng.integers(2, 6))) for _ in range(4000)}
    ordered = sorted(strings)
    rng.shuffle(ordered)
    for name, part in (("test", ordered[:200]), ("valid", ordered[200:210]), ("train", ordered[210:])):
        write_lines(tmp_path / f"{name}.src", part)
        write_lines(tmp_path / f"{name}.tgt", [line[::-1] for line in part])
    path = tmp_path / "reverse.yaml"
    path.write_text(CONFIG.format(tmp_path), encoding="utf-8")
    train(load_config(path))
    unseen = ordered[:200]
    translated = Translator.load(tmp_path / "run", device="cpu").translate(unseen)
    right = sum(ours == line[::-1] for ours, line in zip(translated, unseen, strict=True))
    assert right >= 190, f"{right} of 200 strings reversed"
