"""A key that other toolkits have is answered with the key that we have for it."""

from pathlib import Path

import pytest

from seq2seq.config import Config, load_config
from seq2seq.config.keys import fields_of
from seq2seq.config.messages import ELSEWHERE
from seq2seq.errors import ConfigError

KEYS = {".".join(key) for key in fields_of(Config)}


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).split(": ", 2)[2].splitlines()[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "x.yaml").write_text("run_dir: r\ndata: {train: {src: a, tgt: b}, valid: {src: a, tgt: b}}\n")
    return tmp_path / "x.yaml"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("batch_size", "train.batch_tokens (target tokens of a step)"),
        ("train.batch-size", "train.batch_tokens (target tokens of a step)"),
        ("max_tokens", "train.batch_tokens (target tokens of a step)"),
        ("learning_rate", "optim.lr (peak learning rate)"),
        ("train.epochs", "train.max_epochs (passes over the training text)"),
        ("num_epochs", "train.max_epochs (passes over the training text)"),
        ("train_steps", "train.max_steps (optimizer steps)"),
        ("model.hidden_size", "model.d_model (width of the model)"),
        ("num_layers", "model.encoder_layers (and model.decoder_layers)"),
        ("Dropout_Rate", "model.dropout (of all layers)"),
        ("fp16", "train.precision (auto, fp32, bf16 or fp16)"),
        ("decode.beam", "decode.beam_size (1 is greedy search)"),
        ("src_vocab_size", "tokenizer.vocab_size (the vocabulary is made from the training text)"),
        ("vocab", "tokenizer.vocab_size (the vocabulary is made from the training text)"),
        ("label_smoothing_eps", "train.label_smoothing (0 is off)"),
        ("update_freq", "train.accumulate (micro-batches of a step, which train.batch_tokens counts together)"),
        ("accum_grad", "train.accumulate (micro-batches of a step, which train.batch_tokens counts together)"),
        ("gpu_ranks", "train.device (auto, cpu or cuda; several GPUs: torchrun --nproc-per-node N -m seq2seq train)"),
        ("gpu", "train.device (auto, cpu or cuda; several GPUs: torchrun --nproc-per-node N -m seq2seq train)"),
    ],
)
def test_words_of_other_toolkits(path: Path, theirs: str, ours: str) -> None:
    """Guards against a list of ten keys, or a wrong guess, for somebody who knows another toolkit."""
    assert message(path, f"{theirs}=1") == f"unknown key; did you mean {ours}?"


@pytest.mark.parametrize(
    ("override", "home"),
    [("lr=1", "optim.lr"), ("train.lr=1", "optim.lr"), ("patience=3", "train.patience"), ("seq.norm=3", "model.norm")],
)
def test_a_key_at_the_wrong_place(path: Path, override: str, home: str) -> None:
    """Guards against an answer that does not name the section of a key that we have."""
    assert message(path, override) == f"unknown key; did you mean {home}?"


def test_the_table_names_keys_that_there_are() -> None:
    """Guards against advice to write a key that was renamed, and against one that hides a key of ours."""
    assert ELSEWHERE.keys() <= KEYS
    theirs = [name for _, names in ELSEWHERE.values() for name in names.split()]
    assert len(theirs) == len(set(theirs))
    assert not set(theirs) & {name for key in KEYS for name in key.split(".")}
