"""Averaging the weights of several models of one run (Vaswani et al. 2017, section 6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.config import diff_configs
from seq2seq.errors import ModelError, UserError
from seq2seq.model_folder import WEIGHTS, find_model_folder, load_model_folder, save_model_folder
from seq2seq.tensors import load_tensors, read_metadata
from seq2seq.train.checkpoint import list_checkpoints, load_checkpoint


def _sources(path: Path) -> list[Path]:
    """The weight files of an argument: all checkpoints of a run, one checkpoint, or one model."""
    if path.is_file():
        return [path]
    return list_checkpoints(path) or [find_model_folder(path) / WEIGHTS]


def _weights(path: Path) -> dict[str, Tensor]:
    if path.name == WEIGHTS:
        return load_tensors(path)[0]
    checkpoint = load_checkpoint(path)
    return checkpoint.average or checkpoint.weights


def _home(path: Path) -> Path:
    """The model folder whose config and tokenizer belong to a weight file."""
    return path.parent if path.name == WEIGHTS else find_model_folder(path.parent.parent)


def average_models(models: Sequence[Path], output: Path) -> int:
    """Write the mean of the models' weights as a new model folder; returns how many there were.

    Args:
        models: model folders, checkpoint files, or run folders (all their checkpoints).

    Raises:
        UserError: a model is missing or damaged, or its architecture or tokenizer differs from the first model's; or
            there is a model in ``output`` that is no average.
    """
    if (output / WEIGHTS).exists() and "average_of" not in read_metadata(output / WEIGHTS):
        raise UserError(f"{output}: there is a model that is no average; choose another output folder")
    paths = [source for model in models for source in _sources(model)]
    first, *others = dict.fromkeys(_home(path) for path in paths)
    model = load_model_folder(first)
    for other in others:
        candidate = load_model_folder(other)
        if differences := diff_configs(model.config, candidate.config, ["model"]):
            raise UserError(
                f"{other}: its architecture differs from that of the first model ({'; '.join(differences)})"
            )
        if candidate.tokenizers.fingerprint != model.tokenizers.fingerprint:
            raise UserError(f"{other}: its tokenizer differs from that of the first model")
    total: dict[str, Tensor] = {}
    for path, weights in zip(paths, map(_weights, paths), strict=True):
        if total and {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in total.items()}:
            raise ModelError(f"{path}: names or shapes of its weights differ from those of {paths[0]}")
        for name, tensor in weights.items():
            total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + tensor.double()
    mean = {name: (tensor / len(paths)).float() for name, tensor in total.items()}
    names = ", ".join("/".join(path.absolute().parts[1:][-3:]) for path in paths)  # no folder of this machine
    save_model_folder(output, mean, model.config, model.tokenizers, {"step": "", "average_of": names})
    load_model_folder(output)  # proves that it is a model
    return len(paths)
