"""Folders of Marian models in the format of Hugging Face, as OPUS-MT publishes them: read and checked.

A folder may come from a stranger: no code in it is run, and no file outside of it is read. What would change the
computation and cannot be represented is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seq2seq.errors import ModelError
from seq2seq.export.marian import ACTIVATIONS, feature_order, reordered
from seq2seq.export.marian_tokenizer import Vocabulary
from seq2seq.model.positions import SinusoidalPositions
from seq2seq.tensors import load_foreign_tensors

OUR_ACTIVATIONS = {**{theirs: ours for ours, theirs in ACTIVATIONS.items()}, "silu": "silu"}
_BIAS = "final_logits_bias"
_POSITIONS = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")
# Names of the tables of embeddings that are one, and the first one that a file has counts.
_SHARED = ("model.shared", "model.decoder.embed_tokens", "model.encoder.embed_tokens", "lm_head")


@dataclass(frozen=True)
class MarianFolder:
    """The settings and vocabularies of a folder."""

    path: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]  # how to search
    tokenizer: Mapping[str, Any]
    source: Vocabulary
    target: Vocabulary  # equal to ``source``, except with two tables
    two_tables: bool
    shares: bool  # source and target have the same embeddings
    tied: bool  # the output has the target's embeddings

    def spm(self, name: str) -> bytes:
        """The bytes of ``source.spm`` or ``target.spm``."""
        path = _file(self.path, name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror}); a folder of a Marian model has it") from None


def read_folder(path: Path) -> MarianFolder:
    """Everything but the SentencePiece models and the weights.

    Raises:
        ModelError: a file is missing or damaged, or the model cannot be represented.
    """
    if not path.is_dir():
        raise ModelError(f"{path}: no such folder; give a folder of Hugging Face, with config.json")
    config = _json(path, "config.json")
    _check(path / "config.json", config)
    tokenizer = _json(path, "tokenizer_config.json", needed=False)
    generation = _json(path, "generation_config.json", needed=False)
    two_tables = bool(tokenizer.get("separate_vocabs", False))
    shares = config["model_type"] == "pegasus" or bool(config.get("share_encoder_decoder_embeddings", True))
    tied = bool(config.get("tie_word_embeddings", True))
    if shares and not tied:
        raise ModelError(
            f"{path / 'config.json'}: tie_word_embeddings: false cannot be represented: where source and target share "
            "their embeddings, the output has them, too"
        )
    if two_tables and shares:
        raise ModelError(
            f"{path}: two vocabularies (separate_vocabs) but one table of embeddings contradict each other"
        )
    sizes = [config["vocab_size"], config["vocab_size"] if shares else config.get("decoder_vocab_size")]
    table = _table(path, "vocab.json")
    target_table = _table(path, "target_vocab.json") if two_tables else table
    source = _vocabulary(path, table, tokenizer, sizes[0], None if two_tables else config)
    target = _vocabulary(path, target_table, tokenizer, sizes[1], config)
    return MarianFolder(path, config, generation, tokenizer, source, target, two_tables, shares, tied)


def read_weights(folder: MarianFolder) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """The weights of the layers by their names; the embeddings ``encoder``, ``decoder`` and ``output`` [V, D]; and the
    bias of the logits [V]. Tied embeddings are the same tensor.

    Raises:
        ModelError: the file is missing or damaged, or it has other tables of positions.
    """
    path = _file(folder.path, "model.safetensors")
    if not path.exists():
        path = _file(folder.path, "pytorch_model.bin")
    if not path.exists():
        index = [
            name for name in ("model.safetensors", "pytorch_model.bin") if (folder.path / f"{name}.index.json").exists()
        ]
        several = f": its weights are in several files ({index[0]}.index.json); write them into one" if index else ""
        raise ModelError(f"{folder.path}: it has no model.safetensors and no pytorch_model.bin{several}")
    weights = load_foreign_tensors(path)
    for name in _POSITIONS:
        _check_positions(path, weights.pop(name, None))
    tables: dict[str, Tensor] = {}
    groups: dict[str, tuple[str, ...]] = {
        "output": ("lm_head",),
        "decoder": ("model.decoder.embed_tokens",),
        "encoder": ("model.encoder.embed_tokens",),
    }
    if folder.tied:
        groups = {"decoder": ("model.decoder.embed_tokens", "lm_head"), "encoder": groups["encoder"]}
    if folder.shares:
        groups = {"decoder": _SHARED}
    for use, names in groups.items():
        found = [weights.pop(f"{name}.weight") for name in names if f"{name}.weight" in weights]
        if not found:
            raise ModelError(f"{path}: it has no tensor {names[0]}.weight")
        if not all(torch.equal(table, found[0]) for table in found[1:]):
            raise ModelError(f"{path}: {' and '.join(names)} differ, but config.json says that they are one table")
        tables[use] = found[0]
    tables.setdefault("encoder", tables["decoder"])
    tables.setdefault("output", tables["decoder"])
    for use, table in tables.items():
        size = folder.config["vocab_size"] if use == "encoder" or folder.shares else folder.config["decoder_vocab_size"]
        if table.shape != (size, folder.config["d_model"]) or not table.is_floating_point():
            raise ModelError(f"{path}: the embeddings have shape {tuple(table.shape)}, which config.json contradicts")
    bias = weights.pop(_BIAS, torch.zeros(len(tables["output"]))).float().flatten()
    if len(bias) != len(tables["output"]):
        raise ModelError(f"{path}: {_BIAS} has {len(bias)} numbers, but there are {len(tables['output'])} logits")
    return weights, tables, bias


def _check_positions(path: Path, table: Tensor | None) -> None:
    """Refuse positions that are not those that we compute."""
    if table is None:
        return
    count, width = table.shape
    expected = SinusoidalPositions(width, count).vectors(count)[:count]
    ours = reordered(table.float(), 1, feature_order(width))
    if float((ours - expected).abs().max()) > 1e-3:  # they may have been stored in half precision
        raise ModelError(f"{path}: its positions are not the sinusoids of Marian, and cannot be represented")


def _file(folder: Path, name: str) -> Path:
    """A file of the folder; raises ModelError if it is elsewhere."""
    path = folder / name
    if path.exists() and not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{path}: is a link to {path.resolve()}, outside the folder; if you trust it, copy the folder with its "
            "links followed (cp -rL) and import the copy"
        )
    return path


def _json(folder: Path, name: str, *, needed: bool = True) -> dict[str, Any]:
    path = _file(folder, name)
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        if not needed:
            return {}
        raise ModelError(f"{folder}: not a Hugging Face folder of a Marian model: it has no {name}") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: damaged: it is not JSON") from None
    if not isinstance(tree, dict):
        raise ModelError(f"{path}: damaged: it is not a JSON object")
    return tree


def _table(folder: Path, name: str) -> dict[str, int]:
    tree = _json(folder, name)
    ids = list(tree.values())
    if not all(type(at) is int for at in ids) or len(set(ids)) < len(ids):
        raise ModelError(f"{folder / name}: damaged: its values are not different ids")
    return tree


def _check(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse what cannot be represented."""
    kind = config.get("model_type")
    if kind not in ("marian", "pegasus"):
        raise ModelError(
            f"{path}: model_type: {kind!r} cannot be imported; seq2seq imports MarianMTModel (marian), as OPUS-MT "
            "has it, and what it exported itself"
        )
    pre = kind == "pegasus"

    def differs(key: str, value: object, default: object) -> bool:
        return bool(config.get(key, default) != value)

    opposite = "its class computes the opposite"
    reasons = {
        "activation_function": config.get("activation_function", "gelu") not in OUR_ACTIVATIONS
        and f"seq2seq has {', '.join(OUR_ACTIVATIONS)}",
        "scale_embedding": differs("scale_embedding", True, False)
        and "seq2seq multiplies embeddings by the root of d_model",
        "normalize_before": differs("normalize_before", pre, pre) and opposite,
        "add_final_layer_norm": differs("add_final_layer_norm", pre, pre) and opposite,
        "normalize_embedding": differs("normalize_embedding", False, False) and "seq2seq does not normalise embeddings",
        "static_position_embeddings": differs("static_position_embeddings", True, True) and "only sinusoids can",
        "decoder_attention_heads": differs("decoder_attention_heads", config.get("encoder_attention_heads"), None)
        and "seq2seq has the same number in encoder and decoder",
        "decoder_ffn_dim": differs("decoder_ffn_dim", config.get("encoder_ffn_dim"), None)
        and "seq2seq has the same width in encoder and decoder",
        "quantization_config": "quantization_config" in config and "take the weights before they were quantised",
    }
    for key, reason in reasons.items():
        if reason:
            raise ModelError(f"{path}: {key}: {config.get(key)!r} cannot be represented: {reason}")
    names = ["d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "vocab_size"]
    names += ["pad_token_id", "eos_token_id", "decoder_start_token_id"]
    names += [] if config.get("share_encoder_decoder_embeddings", True) else ["decoder_vocab_size"]
    for key in names:
        if type(config.get(key)) is not int:
            raise ModelError(f"{path}: {key}: must be a whole number, not {config.get(key)!r}")
    if config["d_model"] % 2 or config["d_model"] < 2:
        raise ModelError(f"{path}: d_model: {config['d_model']} is not even, but sines and cosines come in pairs")


def _vocabulary(
    folder: Path, table: Mapping[str, int], tokenizer: Mapping[str, Any], size: int, config: Mapping[str, Any] | None
) -> Vocabulary:
    """The table of a side. ``config``: if the decoder reads it; its special tokens must be those of the table."""
    ids = []
    for name, default in (("unk", "<unk>"), ("eos", "</s>"), ("pad", "<pad>")):
        token = tokenizer.get(f"{name}_token") or default
        text = token.get("content", default) if isinstance(token, dict) else token
        if text not in table:
            raise ModelError(f"{folder}: its vocabulary has no {text}")
        ids.append(table[text])
    unk, eos, pad = ids
    start = table.get("<s>", pad)
    if config is not None:
        start = config["decoder_start_token_id"]
        for key, found in (("eos_token_id", eos), ("pad_token_id", pad)):
            if config[key] != found:
                raise ModelError(f"{folder}: {key} is {config[key]} in config.json, but {found} in the vocabulary")
    if not all(0 <= at < size for at in (*table.values(), start)):
        raise ModelError(f"{folder}: its vocabulary has ids that are not below vocab_size ({size})")
    return Vocabulary(table, unk, eos, pad, start)
