"""Small models, batches and tokenizers that several test files share."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The models of the tests are too small for several threads; read by the processes that tests start, too.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import settings

from seq2seq.config import (
    CleanConfig,
    Config,
    ConvolutionalConfig,
    DataConfig,
    ModelConfig,
    RecurrentConfig,
    TextFiles,
    TokenizerConfig,
)
from seq2seq.data.packed import PackedBatch, pack_pairs
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair, train_tokenizer
from seq2seq.model.convolutional import Convolutional
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.recurrent import Recurrent
from seq2seq.model.transformer import Transformer

VOCABULARY = 23

# Chosen with --hypothesis-profile=thorough.
# A shell that starts the tests in the background, or with nohup, has them ignore these signals, and so would the
# commands that they start: a command does not handle what it was started to ignore.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

settings.register_profile("thorough", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "5000")))


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """``make_model(**model options)``: a tiny model without dropout whose biases and norms differ from their start."""

    def make(max_length: int = 24, **options: object) -> Seq2SeqModel:
        shape = {"encoder_layers": 2, "decoder_layers": 2, "d_model": 16, "dropout": 0.0}
        torch.manual_seed(5)
        model: Seq2SeqModel
        if options.get("architecture") == "recurrent":
            model = Recurrent(RecurrentConfig(**{**shape, **options}), VOCABULARY, VOCABULARY)
        elif options.get("architecture") == "convolutional":
            config = ConvolutionalConfig(**{**shape, **options})
            model = Convolutional(config, VOCABULARY, VOCABULARY, max_length)
        else:
            shape |= {"num_heads": 4, "d_ff": 24}
            model = Transformer(ModelConfig(**{**shape, **options}), VOCABULARY, VOCABULARY, max_length)
        with torch.no_grad():  # what starts as 0 or 1 would hide a mix-up
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def make_pairs() -> Callable[..., list[tuple[list[int], list[int]]]]:
    """``make_pairs([(src length, tgt length), ...])``: random sentence pairs of these lengths, EOS included."""

    def make(lengths: list[tuple[int, int]], seed: int = 0) -> list[tuple[list[int], list[int]]]:
        rng = np.random.default_rng(seed)

        def sentence(length: int) -> list[int]:
            return [*rng.integers(4, VOCABULARY, length - 1).tolist(), EOS_ID]

        return [(sentence(src), sentence(tgt)) for src, tgt in lengths]

    return make


@pytest.fixture
def batch_of() -> Callable[[list[tuple[list[int], list[int]]]], PackedBatch]:
    """``batch_of(pairs)``: the pairs in one packed batch."""

    def pack(pairs: list[tuple[list[int], list[int]]]) -> PackedBatch:
        src, tgt = zip(*pairs, strict=True)
        return pack_pairs(
            np.concatenate(src), np.array([len(s) for s in src]), np.concatenate(tgt), np.array([len(t) for t in tgt])
        )

    return pack


@pytest.fixture(scope="session")
def tiny_tokenizers() -> TokenizerPair:
    """A joint tokenizer of a few hundred pieces."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(["ka", "to", "mi", "ren", "sol"], size=rng.integers(1, 4))) for _ in range(60)]
    lines = [" ".join(rng.choice(words, size=rng.integers(1, 9))) for _ in range(200)]
    model, _ = train_tokenizer(lines, TokenizerConfig(kind="unigram", vocab_size=300))
    return TokenizerPair(model, model)


@pytest.fixture
def tiny_config(tmp_path: Path) -> Callable[..., Config]:
    """``tiny_config(**model options)``: a config of a model small enough to save and load in no time."""

    def make(**options: object) -> Config:
        files = TextFiles(src=str(tmp_path / "train.en"), tgt=str(tmp_path / "train.de"))
        shape = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 16}
        config = Config(
            run_dir=tmp_path / "run",
            data=DataConfig(train=files, valid=files, max_length=16, clean=CleanConfig(overlap=False)),
            tokenizer=TokenizerConfig(vocab_size=300),
            model=ModelConfig(**{**shape, **options}),
        )
        return config.with_choices({"train.max_steps": 2000}).all_stated()

    return make
