"""``seq2seq import``: model folders of ours from Marian models in the format of Hugging Face.

The model is proved against the library ``transformers``, if it is installed, before the new folder gets its name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from seq2seq.config import Config
from seq2seq.data.piece_model import BYTE, PieceModel
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair
from seq2seq.errors import ModelError, UserError
from seq2seq.export.huggingface import Reference, is_installed
from seq2seq.export.import_proof import prove
from seq2seq.export.marian import feature_order, to_ours
from seq2seq.export.marian_folder import OUR_ACTIVATIONS, MarianFolder, read_folder, read_weights
from seq2seq.export.marian_tokenizer import NO_ROW, Side, joint_side, source_side, target_side, their_source
from seq2seq.files import put_folder_in_place, temporary_folder, unwritable, write_text
from seq2seq.model_folder import LoadedModel, load_model_folder, save_model_folder

PROOF = "import.json"
_OUT_OF_REACH = 100.0  # so far below the smallest bias, a logit adds nothing to a sum of fp32
_NAME = re.compile(r"opus-mt-(?:tc-[a-z]+-)?(\w+)-(\w+)")  # of a folder: its languages


@dataclass(frozen=True)
class _Sides:
    """The tokenizers, and where their embeddings come from."""

    src: Side
    tgt: Side
    pair: TokenizerPair


def import_folder(folder: Path, output: Path, say: Callable[[str], None]) -> None:
    """Write the model folder ``output`` from a Hugging Face folder; ``say`` gets what the user should know.

    Raises:
        UserError: ``output`` exists, a file is missing or damaged, the model cannot be represented, or it does not
            compute what it computes in ``transformers``. ``output`` is then not written.
    """
    if output.exists():
        raise UserError(f"{output}: exists already; choose another --output, or remove it")
    theirs = read_folder(folder)
    sides = _sides(theirs)
    config, weights = _converted(theirs, sides)
    for line in _notes(theirs, sides, config):
        say(line)
    try:
        with temporary_folder(output) as new:
            # The name of the folder alone: a model folder contains no path of this machine.
            metadata = {"step": "", "imported_from": folder.resolve().name}
            save_model_folder(new, weights, config, sides.pair, metadata)
            loaded = _load(new, folder)
            if is_installed():
                report = prove(Reference(folder), loaded, sides.src.rows, sides.tgt.rows)
                write_text(new / PROOF, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
                say(
                    f"proved with transformers {report['transformers']}: {report['texts']} texts have the same ids and "
                    f"the same translations; log-probabilities differ by at most {report['largest_difference']:.1e}"
                )
            else:
                say("not proved, because transformers is not installed (pip install '.[huggingface]')")
            put_folder_in_place(new, output)
    except OSError as error:
        raise unwritable(output, error) from error


def _load(new: Path, folder: Path) -> LoadedModel:
    try:
        return load_model_folder(new)
    except ModelError as error:
        reason = str(error).replace(f"{new}/", "")
        raise ModelError(f"{folder}: its weights do not fit its config.json ({reason})") from None


def _sides(theirs: MarianFolder) -> _Sides:
    contents = theirs.spm("source.spm"), theirs.spm("target.spm")
    try:
        source, normalises = their_source(*contents)
        one = joint_side(source, theirs.target) if theirs.shares and source == contents[1] else None
        src = one or source_side(source, theirs.source, every=theirs.two_tables)
        tgt = one or target_side(contents[1], theirs.target)
        return _Sides(src, tgt, TokenizerPair(Tokenizer(src.model, normalises), Tokenizer(tgt.model)))
    except UserError as error:
        raise ModelError(f"{theirs.path}: {error}") from None


def _converted(theirs: MarianFolder, sides: _Sides) -> tuple[Config, dict[str, Tensor]]:
    """The config, and the weights by their names in our model."""
    layers, tables, bias = read_weights(theirs)
    has_bias = bool(bias.any()) or NO_ROW in sides.tgt.rows
    config = _config(theirs, sides, output_bias=has_bias)
    order = feature_order(theirs.config["d_model"])
    ours = {"tgt_embedding.weight": _rows(tables["decoder"], sides.tgt.rows)[:, order]}
    if config.model.tie_embeddings != "all":
        ours["src_embedding.weight"] = _rows(tables["encoder"], sides.src.rows)[:, order]
    if config.model.tie_embeddings == "none":
        ours["output.weight"] = _rows(tables["output"], sides.tgt.rows)[:, order]
    if has_bias:
        # A row that theirs does not have must not count in the sum over the vocabulary.
        absent = torch.tensor(sides.tgt.rows) == NO_ROW
        ours["output_bias"] = _rows(bias, sides.tgt.rows).masked_fill(absent, float(bias.min()) - _OUT_OF_REACH)
    try:
        assert config.model.architecture == "transformer"
        ours |= to_ours(layers, config.model)
    except KeyError as error:
        raise ModelError(f"{theirs.path}: its weights lack the tensor {error.args[0]}") from None
    except (IndexError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{theirs.path}: its weights do not fit its config.json ({reason})") from None
    if layers:
        raise ModelError(f"{theirs.path}: its weights have the tensor {min(layers)}, which cannot be represented")
    return config, ours


def _rows(table: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of a table in fp32; zeros for NO_ROW."""
    chosen = torch.tensor(rows)
    found = table.float().index_select(0, chosen.clamp(min=0))
    found[chosen == NO_ROW] = 0.0
    return found


def _config(theirs: MarianFolder, sides: _Sides, *, output_bias: bool) -> Config:
    """The config of the model folder. What only training needs has its defaults."""
    their = theirs.config
    search = {**their, **theirs.generation}
    languages = _NAME.fullmatch(theirs.path.resolve().name)
    source, target = (
        theirs.tokenizer.get(f"{side}_lang") or (languages[number] if languages else None)
        for number, side in enumerate(("source", "target"), start=1)
    )
    pieces = PieceModel.parse(sides.src.model)
    joint = sides.pair.joint
    text = {"src": "not-included.src", "tgt": "not-included.tgt"}
    tags = list(sides.pair.src.tags)
    room = _number(their, "max_position_embeddings", 512)
    model = {
        "preset": "base",
        "encoder_layers": their["encoder_layers"],
        "decoder_layers": their["decoder_layers"],
        "d_model": their["d_model"],
        "num_heads": their["encoder_attention_heads"],
        "num_kv_heads": their["encoder_attention_heads"],
        "d_ff": their["encoder_ffn_dim"],
        "dropout": their.get("dropout", 0.1),
        "norm_position": "pre" if their["model_type"] == "pegasus" else "post",
        "activation": OUR_ACTIVATIONS[their.get("activation_function", "gelu")],
        "positions": "sinusoidal",
        "tie_embeddings": "none" if not theirs.tied else "all" if joint and theirs.shares else "target",
        "output_bias": output_bias,
    }
    tree: dict[str, Any] = {
        "run_dir": "imported",
        "data": {
            "train": [{**text, "tag": tag} for tag in tags] or text,
            "valid": {**text, "tag": tags[0]} if tags else text,
            "src_lang": source,
            "tgt_lang": target,
            "max_length": int(min(_number(theirs.tokenizer, "model_max_length", 512), room)),
        },
        "tokenizer": {
            "kind": "bpe" if pieces.is_bpe else "unigram",
            "joint": joint,
            "vocab_size": sides.pair.tgt.vocab_size,
            "byte_fallback": any(piece.kind == BYTE for piece in pieces.pieces),
            "normalise_source": sides.pair.src.normalises,
        },
        "model": model,
        "train": {"max_epochs": 1},  # a config needs an end of training
        "decode": {
            "beam_size": int(_number(search, "num_beams", 4)),
            "length_penalty": min(10.0, max(0.0, _number(search, "length_penalty", 1.0))),
            "split_sentences": False,
        },
    }
    try:
        return Config.model_validate(tree).all_stated()
    except (ValidationError, TypeError) as error:
        reason = str(error).replace("\n", " ")
        raise ModelError(f"{theirs.path}: its config.json cannot be represented: {reason}") from None


def _number(settings: Mapping[str, Any], key: str, default: float) -> float:
    """A number of their settings; they may lack it, or have null."""
    value = settings.get(key)
    return value if isinstance(value, (int, float)) and math.isfinite(value) else default


def _notes(theirs: MarianFolder, sides: _Sides, config: Config) -> list[str]:
    """What was made of the folder."""
    data, pair = config.data, sides.pair
    sizes = [pair.src.vocab_size] if pair.joint else [pair.src.vocab_size, pair.tgt.vocab_size]
    lines = [
        f"{theirs.path}: {theirs.config['model_type']}, {config.model.encoder_layers}+{config.model.decoder_layers} "
        f"layers, {config.model.d_model} wide; {data.source_language or '?'} to {data.target_language or '?'}; "
        f"vocabulary {' and '.join(f'{size:,}' for size in sizes)}"
    ]
    if theirs.shares and not pair.joint:
        lines.append(
            "source and target have two SentencePiece models, so the source has a copy of its embeddings "
            f"({pair.src.vocab_size * config.model.d_model * 4 / 1e6:,.0f} MB)"
        )
    if sides.src.added:
        lines.append(f"{sides.src.added} source pieces stand for <unk>, because vocab.json lacks them")
    if pair.src.tags:
        tags = list(pair.src.tags)
        shown = ", ".join(tags[:10]) + (", ..." if len(tags) > 10 else "")
        lines.append(f"language tokens are tags, and one must be given: --tag {tags[0]} (there are {shown})")
    return lines
