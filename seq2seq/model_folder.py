"""The model folder: ``model.safetensors``, ``config.yaml`` and the tokenizer; it can be copied as a whole.

The weights' file also has the tokenizer's fingerprint and the settings, to detect damaged or exchanged files. Users may
edit the decode settings in ``config.yaml``, but not the settings of the model itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from seq2seq.config import (
    Config,
    ConvolutionalConfig,
    RecurrentConfig,
    diff_configs,
    dump_config,
    load_saved_config,
    portable,
)
from seq2seq.data.tokenizer import TOKENIZERS, TokenizerPair
from seq2seq.errors import ConfigError, DataError, ModelError
from seq2seq.files import write_text
from seq2seq.model.convolutional import Convolutional
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.recurrent import Recurrent
from seq2seq.model.transformer import Transformer
from seq2seq.tensors import load_tensors, save_tensors

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
PROBE = "probe.txt"  # source lines of the validation text, to compare exported models with this one; need not be there
CONFIDENCE = "confidence.json"  # see seq2seq.decode.calibration; need not be there
_PROBE_LINES = 200
_DECIDING = ("model", "tokenizer", "data.max_length")  # must match the weights
_EDITABLE = ("decode", "data.src_lang", "data.tgt_lang")  # may be edited; they change translations


@dataclass(frozen=True)
class LoadedModel:
    """The contents of a model folder."""

    model: Seq2SeqModel  # on the CPU, in evaluation mode
    config: Config
    tokenizers: TokenizerPair
    metadata: dict[str, str]  # of the weights: at least "tokenizer" (fingerprint) and "step"
    edited: tuple[str, ...] = ()  # settings for translation that were edited after training


def build_model(config: Config, tokenizers: TokenizerPair) -> Seq2SeqModel:
    """A new model, initialised with torch's random generator."""
    vocab_sizes = (tokenizers.src.vocab_size, tokenizers.tgt.vocab_size)
    model: Seq2SeqModel
    if isinstance(config.model, RecurrentConfig):
        model = Recurrent(config.model, *vocab_sizes)
    elif isinstance(config.model, ConvolutionalConfig):
        model = Convolutional(config.model, *vocab_sizes, max_length=config.data.max_length)
    else:
        model = Transformer(config.model, *vocab_sizes, max_length=config.data.max_length)
    model.tags = tokenizers.tgt.tag_ranges
    return model


def find_model_folder(path: Path) -> Path:
    """``path`` if it is a model folder, else its folder ``best`` (or ``last``, before the first validation).

    Raises:
        ModelError: there is none of them.
    """
    if not path.exists():
        raise ModelError(f"{path}: no such folder; give a run folder or a model folder")
    for folder in (path, path / "best", path / "last"):
        if (folder / WEIGHTS).is_file():
            return folder
        if folder == path / "best" and folder.exists():  # do not silently use ``last``, a different model
            raise ModelError(f"{folder}: incomplete: no {WEIGHTS}; to use the last model, give {path / 'last'}")
    raise ModelError(f"{path}: not a model folder: it has no {WEIGHTS}, best/{WEIGHTS} or last/{WEIGHTS}")


def save_model_folder(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: Config,
    tokenizers: TokenizerPair,
    metadata: Mapping[str, str],
    probe: Sequence[str] = (),
) -> None:
    """Write a model folder, or replace its weights, which are renamed into place last.

    The folder contains no paths of this machine.

    Args:
        weights: the model's ``named_parameters()``: tied ones only by their first name.
        metadata: texts to store with the weights; the tokenizer's fingerprint and the settings for translation are
            added.
        probe: source lines to take :data:`PROBE` from; with none, the folder has no such file.
    """
    config = portable(config)
    if (folder / CONFIDENCE).exists():
        (folder / CONFIDENCE).unlink()  # of the earlier weights
    tokenizers.save(folder)
    filled = [line for line in dict.fromkeys(probe) if line.strip()]
    if filled:
        every = -(-len(filled) // _PROBE_LINES)
        write_text(folder / PROBE, "".join(f"{line}\n" for line in filled[::every]))
    else:
        (folder / PROBE).unlink(missing_ok=True)
    write_text(folder / CONFIG, dump_config(config, absolute=False))
    # What affects translations: without paths and training, so that equal models have equal files.
    data = {"max_length", "src_lang", "tgt_lang"}
    sections = {"model": True, "tokenizer": True, "decode": True}
    settings = config.model_dump(mode="json", include={**sections, "data": data})
    added = {"tokenizer": tokenizers.fingerprint, "config": json.dumps(settings)}
    save_tensors(folder / WEIGHTS, weights, {**metadata, **added})


def _compare_config(folder: Path, config: Config, settings: str) -> tuple[str, ...]:
    """The edited settings in ``config.yaml``, compared with those in the weights' file; refuses forbidden edits."""
    try:
        differences, edited = (diff_configs(settings, config, sections) for sections in (_DECIDING, _EDITABLE))
    except ConfigError as error:
        raise ModelError(f"{folder / WEIGHTS}: {error}; use the version that wrote it") from None
    if differences:
        changed = "; ".join(differences)
        raise ModelError(f"{folder / CONFIG}: not the config that {WEIGHTS} was trained with ({changed}); restore it")
    return tuple(edited)


def load_weights(model: Seq2SeqModel, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a model; tied names may be absent.

    Raises:
        ModelError: names or shapes differ from the model's; the message names ``path``.
    """
    _check_fit(model, weights, path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def _check_fit(model: Seq2SeqModel, weights: Mapping[str, Tensor], path: Path) -> None:
    expected = dict(model.named_parameters())  # tied parameters only by their first name
    for name in sorted(expected.keys() ^ weights.keys()):
        state = "has no tensor" if name in expected else "has the unknown tensor"
        raise ModelError(f"{path}: does not fit its config: it {state} {name}")
    for name, parameter in expected.items():
        if parameter.shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)} instead of {tuple(parameter.shape)}"
            raise ModelError(f"{path}: does not fit its config: {name} has shape {shapes}")
        if not weights[name].is_floating_point():
            raise ModelError(f"{path}: {name} has dtype {weights[name].dtype}, not a floating-point dtype")


def _check_config(config: Config, tokenizers: TokenizerPair, weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a config that does not match the weights, before memory is used for its model."""
    num_layers = config.model.encoder_layers + config.model.decoder_layers
    if num_layers > len(weights):
        raise ModelError(f"{path}: does not fit its config: {num_layers} layers in {len(weights)} tensors")
    if not any(config.model.d_model in tensor.shape for tensor in weights.values()):
        raise ModelError(f"{path}: does not fit its config: no tensor is d_model ({config.model.d_model}) wide")
    try:
        with _Undrawn(), torch.device("meta"):  # shapes without memory
            model = build_model(config, tokenizers)
    except (RuntimeError, TypeError, OverflowError):  # PyTorch's, for numbers beyond 64 bits
        raise ModelError(f"{path}: does not fit its config: that is an impossibly large model") from None
    _check_fit(model, weights, path)


def _check_inside(root: Path, folder: Path, names: Sequence[str] = (WEIGHTS, CONFIG, *TOKENIZERS)) -> None:
    """Refuse files outside ``root``: a link in a folder from a stranger could make seq2seq read any file."""
    for file in (folder / name for name in names):
        if not file.exists():
            continue  # the reader of this file reports it
        if not file.resolve().is_relative_to(root.resolve()):
            raise ModelError(
                f"{file}: is a link to {file.resolve()}, outside the folder {root}; "
                "if you trust it, replace the link by the file (cp -rL copies a folder and follows its links)"
            )
        if not file.is_file():
            raise ModelError(f"{file}: is not a regular file")


def read_beside(path: Path, name: str) -> str | None:
    """The text of a file that a model folder, or that of a run folder, may have beside the model; None if it has none.

    Raises:
        ModelError: it is outside ``path``, or cannot be read as UTF-8.
    """
    folder = find_model_folder(path)
    _check_inside(path, folder, [name])
    try:
        return (folder / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / name}: cannot be read ({error}); remove it or put a copy back") from None


class _Undrawn(TorchFunctionMode):
    """Skips the initialisation of new weights, which a file replaces: it takes longer than reading the file."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawing = (nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_, Tensor.uniform_, Tensor.normal_)
        if func in drawing:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def load_model_folder(path: Path) -> LoadedModel:
    """Read a model folder, or the model of a run folder; checks that weights, config and tokenizer match.

    The folder may come from a stranger: no code in it is run, no file outside ``path`` is read, and memory is limited
    by the size of its files.

    Raises:
        ModelError: a file is missing, damaged, or belongs to another model.
    """
    folder = find_model_folder(path)
    _check_inside(path, folder)
    try:
        config = load_saved_config(folder / CONFIG)
        tokenizers = TokenizerPair.load(folder)
    except (ConfigError, DataError) as error:
        raise ModelError(f"{folder}: not a usable model folder: {error}") from None
    weights, metadata = load_tensors(folder / WEIGHTS)
    if metadata.get("tokenizer") != tokenizers.fingerprint:
        raise ModelError(f"{folder}: the tokenizer is not the one that {WEIGHTS} was trained with")
    settings = metadata.pop("config", None)  # older folders have none
    edited = _compare_config(folder, config, settings) if settings is not None else ()
    # Older folders do not have this setting, and their tokenizers do not normalise.
    config = config.replace("tokenizer", normalise_source=tokenizers.src.normalises)
    if config.model.tie_embeddings == "all" and not tokenizers.joint:
        raise ModelError(f"{folder}: model.tie_embeddings is all, but source and target tokenizers differ")
    _check_config(config, tokenizers, weights, folder / WEIGHTS)
    with _Undrawn():
        model = build_model(config, tokenizers)
    load_weights(model, weights, folder / WEIGHTS)
    return LoadedModel(model.eval(), config, tokenizers, metadata, edited)
