"""The model that a new run starts from (``init.from``): what is taken from it, what is added to it, what is frozen.

A start at step 0 reads the model folder. A run that continues has its weights and settings in its checkpoint, and the
model's tokenizer in the folder ``initial`` of the run, so it needs the model folder no more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seq2seq.config import FREEZABLE, Config
from seq2seq.data.corpus import Corpus
from seq2seq.data.corpus_writer import SIDES
from seq2seq.data.extended_vocabulary import Parts, added_pieces
from seq2seq.data.prepare import PreparedData
from seq2seq.data.symbols import EOS_ID, UNK_ID
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair
from seq2seq.errors import ConfigError, DataError, ModelError
from seq2seq.files import CHECKSUM
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model_folder import WEIGHTS, find_model_folder, load_model_folder, load_weights
from seq2seq.train.resume import Earlier, check_same_settings

_OF_TRAINING = {"model": {"dropout"}, "tokenizer": {"sampling"}}  # keys that do not belong to the model
_OF_NEW_TEXT = {"vocab_size", "character_coverage"}  # of the tokenizer that extends the vocabulary
_DERIVED = {"preset"}  # what follows from it is compared
# Beginnings of the names of parameters, of all architectures.
_PARTS = {
    "encoder": ("encoder_",),
    "decoder": ("decoder_", "attention", "bridge", "combine"),
    "embeddings": ("src_embedding", "tgt_embedding", "output"),
    "positions": ("src_positions", "tgt_positions"),
}
_LAYER = re.compile(r"(encoder_layers|decoder_layers|attentions)\.(\d+)\.")
_NAMES = {"src": "source", "tgt": "target"}
_NOTABLE = 0.01  # share of a side's pieces that are bytes or unknown
_SAMPLE = 20_000  # pairs, to find that share
_SHOWN = 8  # new pieces


@dataclass(frozen=True)
class Initial:
    """What a run takes from the model that it starts from."""

    folder: Path
    tokenizers: TokenizerPair
    settings: Mapping[str, Mapping[str, Any]]  # of its config: the sections model, tokenizer and data
    weights: Mapping[str, Tensor] | None  # None for a run that continues
    checksum: str = ""  # of the weights

    def applied_to(self, config: Config) -> Config:
        """The config with the model's settings for the keys that decide the model.

        Raises:
            ConfigError: stated keys differ from them, at a start; a run that continues is compared with its checkpoint.
        """
        stated = config.model_dump(mode="json", exclude_unset=True, include={"model", "tokenizer", "data"})
        model, values, problems = dict(stated.get("model", {})), {}, []
        for section, key, value in self._deciding(config):
            mine = stated.get(section, {}).get(key, value)
            if mine != value and key not in _DERIVED:
                problems.append(f"{section}.{key} is {json.dumps(mine)}, but the model has {json.dumps(value)}")
            if section == "model":
                model[key] = value if key in _DERIVED else mine
            elif key not in stated.get(section, {}):
                values[f"{section}.{key}"] = value
        kind = self.settings["model"]["architecture"]
        for key in sorted(model.keys() - self.settings["model"].keys()):
            problems.append(f"model.{key} is {json.dumps(model[key])}, but the model is {kind} and has no such key")
        if problems and self.weights is not None:
            advice = f"(init.from: {self.folder}); remove the key: it is taken from the model"
            raise ConfigError("\n".join(f"{problem} {advice}" for problem in problems))
        return config.with_values({"model": model, **values})

    def _deciding(self, config: Config) -> Iterator[tuple[str, str, Any]]:
        """The settings of the model that a run must have: section, key, value."""
        for section in ("model", "tokenizer"):
            free = _OF_TRAINING[section]
            if section == "tokenizer" and config.init.extend_vocabulary:
                free = free | _OF_NEW_TEXT
            yield from ((section, key, value) for key, value in self.settings[section].items() if key not in free)
        if self.bounds_length:
            yield "data", "max_length", self.settings["data"]["max_length"]

    @property
    def bounds_length(self) -> bool:
        """Whether the model has learned a vector for each position, up to data.max_length."""
        model = self.settings["model"]
        return model["architecture"] == "convolutional" or model.get("positions") == "learned"

    def keep(self, run_dir: Path) -> None:
        """Write what a run that continues reads in place of the model folder."""
        self.tokenizers.save(run_dir / "initial")


def initial_model(config: Config, earlier: Earlier) -> Initial | None:
    """The model to start from; None without ``init.from``.

    Raises:
        ModelError: there is no such model, or it is damaged.
        ConfigError: a part to freeze does not exist, or the run was started with another ``init``.
    """
    source, checkpoint = config.init.source, earlier.checkpoint
    if checkpoint is not None:
        check_same_settings(config, checkpoint.config, ["init"])
    if source is None:
        return None
    if checkpoint is not None:
        saved = json.loads(checkpoint.config)
        try:
            tokenizers = TokenizerPair.load(config.run_dir / "initial")
        except DataError as error:
            raise ModelError(f"{error}; it is the tokenizer of the model of init.from: copy it from there") from None
        return Initial(source, tokenizers, saved, None)
    try:
        folder = find_model_folder(source)
        loaded = load_model_folder(source)
    except ModelError as error:
        raise ModelError(f"init.from: {error}") from None
    weights = dict(loaded.model.named_parameters())
    frozen_names(weights, config.init.freeze)
    if config.init.extend_vocabulary and loaded.config.model.tie_embeddings == "all" and not loaded.tokenizers.joint:
        raise ConfigError(
            f"init.extend_vocabulary: the two tokenizers of {folder} share one vocabulary, which cannot be extended"
        )
    settings = loaded.config.model_dump(mode="json", include={"model", "tokenizer", "data"})
    return Initial(folder, loaded.tokenizers, settings, weights, loaded.metadata[CHECKSUM])


def _part(name: str) -> str:
    """The part of a model that a parameter belongs to."""
    return next(part for part, beginnings in _PARTS.items() if name.startswith(beginnings))


def _layer(name: str) -> int | None:
    """The number of the layer that a parameter belongs to."""
    found = _LAYER.match(name)
    return int(found[2]) if found else None


def frozen_names(names: Iterable[str], freeze: Iterable[str]) -> set[str]:
    """The names of the parameters of these parts; ``names``: of all parameters.

    Raises:
        ConfigError: a model has no such part, or no parameter would be left to learn.
    """
    names = set(names)
    frozen: set[str] = set()
    for chosen in freeze:
        part, _, numbers = chosen.partition(".layers.")
        of_part = {name for name in names if _part(name) == part}
        if numbers:
            first, _, last = numbers.partition("-")
            wanted = set(range(int(first), int(last or first) + 1))
            there = {layer for name in of_part if (layer := _layer(name)) is not None}
            if not wanted or not wanted <= there:
                raise ConfigError(f"init.freeze: there is no {chosen}; the {part} has the layers 0 to {max(there)}")
            of_part = {name for name in of_part if _layer(name) in wanted}
        if not of_part:
            raise ConfigError(f"init.freeze: the model has no {chosen}; {FREEZABLE}")
        frozen |= of_part
    if frozen == names:
        raise ConfigError("init.freeze: this freezes the whole model, and nothing could learn; leave out a part")
    return frozen


def freeze(model: nn.Module, parts: Iterable[str]) -> None:
    """Let these parts of a model keep their weights: they get no gradient, and so no place in the optimizer.

    Raises:
        ConfigError: as for :func:`frozen_names`.
    """
    named = dict(model.named_parameters())
    for name in frozen_names(named, parts):
        named[name].requires_grad_(False)


def start_from(initial: Initial, model: Seq2SeqModel, tokenizers: TokenizerPair) -> None:
    """Give a model, built for ``tokenizers``, the weights of the initial one, and vectors to the pieces that it lacks.

    Raises:
        ModelError: they do not fit.
    """
    assert initial.weights is not None
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    weights = {}
    with torch.no_grad():
        for name, tensor in initial.weights.items():
            weights[name] = tensor
            if name in shapes and len(tensor) < shapes[name][0]:  # a table of the vocabulary
                side = "src" if name.startswith("src_") else "tgt"
                old, final = getattr(initial.tokenizers, side), getattr(tokenizers, side)
                weights[name] = torch.cat([tensor, new_rows(tensor, old, final)])
    load_weights(model, weights, initial.folder / WEIGHTS)


def new_rows(table: Tensor, old: Tokenizer, final: Tokenizer) -> Tensor:
    """The rows of a table, [V, ...], for the pieces that ``final`` has more than ``old``: [pieces, ...].

    A row is the mean of the rows of the pieces that ``old`` cuts the new piece into. Where it knows no part of it, and
    for a tag, which is no text, the row is the mean of all.
    """
    parts_of, tags = Parts(old), set(final.tags.values())
    rows = []
    for number, piece in enumerate(added_pieces(old, final), start=old.vocab_size):
        parts = [] if number in tags else [i for i in parts_of(piece) if i != UNK_ID]
        rows.append((table[parts] if parts else table[EOS_ID + 1 :]).mean(dim=0))
    return torch.stack(rows)


def describe(initial: Initial, model: nn.Module, data: PreparedData, config: Config) -> Iterator[str]:
    """Sentences on what a run starts with."""
    yield f"starting from the weights of {initial.folder}"
    sides = SIDES[:1] if initial.tokenizers.joint else SIDES
    for side in sides:
        old, final = getattr(initial.tokenizers, side), getattr(data.tokenizers, side)
        added = added_pieces(old, final)
        name = "vocabulary" if len(sides) == 1 else f"{_NAMES[side]} vocabulary"
        if added:
            shown = ", ".join(added[: len(added) : max(1, len(added) // _SHOWN)][:_SHOWN])
            yield f"{name}: new pieces: {len(added):,}, such as {shown}; the model's {old.vocab_size:,} stay"
        elif config.init.extend_vocabulary:
            yield f"{name}: nothing to add; the model has all pieces of the new text"
    for side in SIDES:
        share = _unread_share(data.train, side, getattr(data.tokenizers, side))
        if share > _NOTABLE and not config.init.extend_vocabulary:
            yield (
                f"{_NAMES[side]}: {share:.1%} of the pieces of the new text are bytes or unknown, as the model's "
                "vocabulary lacks its characters; init.extend_vocabulary=true adds pieces for them"
            )
    if config.init.freeze:
        numbers = [(p.numel(), p.requires_grad) for p in model.parameters()]
        total, frozen = sum(n for n, _ in numbers), sum(n for n, learns in numbers if not learns)
        yield f"frozen: {', '.join(config.init.freeze)}: {frozen / 1e6:.2f} of {total / 1e6:.2f} million parameters"


def _unread_share(corpus: Corpus, side: Any, tokenizer: Tokenizer) -> float:
    """The share of the pieces of a side, among its first pairs, that are bytes or the unknown piece."""
    ids, lengths = corpus.take(side, np.arange(min(_SAMPLE, corpus.num_pairs)))
    unread = np.isin(ids, [UNK_ID, *tokenizer.byte_values()])
    return float(unread.sum() / max(1, int(lengths.sum()) - len(lengths)))


def check_embeddings_learn(initial: Initial, tokenizers: TokenizerPair, frozen: Collection[str]) -> None:
    """Refuse frozen vectors for new tags: they could not learn what they mean.

    Raises:
        ConfigError: there are new pieces, and the embeddings are frozen.
    """
    if "embeddings" in frozen and (added := added_pieces(initial.tokenizers.src, tokenizers.src)):
        raise ConfigError(
            f"init.freeze: embeddings cannot be frozen, because the model does not know {', '.join(added[:_SHOWN])}, "
            "whose vectors must learn"
        )
