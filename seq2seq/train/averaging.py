"""Averages of the weights of models: the mean of checkpoints of one run (Vaswani et al. 2017, section 6.1), or
interpolation between two runs, of which one continues the other (Wortsman et al. 2022, WiSE-FT).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.config import diff_configs
from seq2seq.errors import ModelError, UserError
from seq2seq.model_folder import WEIGHTS, find_model_folder, load_model_folder, save_model_folder
from seq2seq.tensors import load_tensors, read_metadata
from seq2seq.train.checkpoint import list_checkpoints, load_checkpoint

# Keys of the model section that say how it was trained; models that differ in them compute alike.
_OF_TRAINING = ("preset", "dropout", "plain_attention")


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


def average_models(models: Sequence[Path], output: Path, weights: Sequence[float] | None = None) -> int:
    """Write an average of the models' weights as a new model folder; returns how many models there were.

    Args:
        models: model folders, checkpoint files, or run folders (all their checkpoints).
        weights: how much each of ``models`` counts, relative to the others; the checkpoints of a run folder share its
            weight. None: every model and every checkpoint counts alike.

    Raises:
        UserError: a model is missing or damaged, or its architecture or tokenizer differs from the first model's; or
            there is a model in ``output`` that is no average; or ``weights`` are wrong.
    """
    if weights is not None:
        _check(weights, len(models))
    if (output / WEIGHTS).exists() and "average_of" not in read_metadata(output / WEIGHTS):
        raise UserError(f"{output}: there is a model that is no average; choose another output folder")
    sources = [_sources(model) for model in models]
    paths = [path for group in sources for path in group]
    parts = [1.0] * len(paths)
    if weights is not None:
        parts = [weight / len(group) for weight, group in zip(weights, sources, strict=True) for _ in group]
    first, *others = dict.fromkeys(_home(path) for path in paths)
    model = load_model_folder(first)
    for other in others:
        candidate = load_model_folder(other)
        keys = [f"model.{key}" for key in type(candidate.config.model).model_fields if key not in _OF_TRAINING]
        if differences := diff_configs(model.config, candidate.config, keys):
            raise UserError(
                f"{other}: its architecture differs from that of the first model ({'; '.join(differences)})"
            )
        if candidate.tokenizers.fingerprint != model.tokenizers.fingerprint:
            raise UserError(f"{other}: its tokenizer differs from that of the first model")
    total: dict[str, Tensor] = {}
    for path, part in zip(paths, parts, strict=True):
        tensors = _weights(path)
        if total and {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in total.items()}:
            raise ModelError(f"{path}: names or shapes of its weights differ from those of {paths[0]}")
        for name, tensor in tensors.items():
            total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + part * tensor.double()
    mean = {name: (tensor / sum(parts)).float() for name, tensor in total.items()}
    names = ", ".join("/".join(path.absolute().parts[1:][-3:]) for path in paths)  # no folder of this machine
    metadata = {"step": "", "average_of": names}
    if weights is not None:
        metadata["average_weights"] = ", ".join(f"{part / sum(parts):.6g}" for part in parts)
    save_model_folder(output, mean, model.config, model.tokenizers, metadata)
    load_model_folder(output)  # proves that it is a model
    return len(paths)


def _check(weights: Sequence[float], num_models: int) -> None:
    """Raise UserError for weights that give no average of the models."""
    if len(weights) != num_models:
        raise UserError(f"--weights: {len(weights)} numbers for {num_models} models; give one for each model")
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise UserError(f"--weights: must be numbers of 0 or more, not {weight:g}")
    if not 0 < sum(weights) < math.inf:
        raise UserError("--weights: their sum must be above 0 and finite; give shares, such as 0.3 0.7")
