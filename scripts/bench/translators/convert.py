"""A job that writes a model for CTranslate2, as ``seq2seq export`` does, but with ids as the names of pieces.

The job is one of its own, so that the memory it takes is not counted when the converted model translates.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from bench.translators.ctranslate2 import pieces
from seq2seq.decode.ctranslate2_model import why_not, write_model
from seq2seq.errors import UserError
from seq2seq.model_folder import LoadedModel, load_model_folder


def convert(loaded: LoadedModel, folder: Path) -> None:
    """Write a model as a CTranslate2 model folder, in fp32; it is quantised when it is loaded.

    Raises:
        UserError: CTranslate2 cannot compute the model.
    """
    if (reason := why_not(loaded.model)) is not None:
        raise UserError(reason)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = loaded.tokenizers.src.vocab_size, loaded.tokenizers.tgt.vocab_size
    write_model(loaded.model, pieces(sizes[0]), pieces(sizes[1]), folder)


def run(spec: Namespace) -> dict[str, Any]:
    """Job: convert the model."""
    convert(load_model_folder(Path(spec.model)), Path(spec.converted))
    return {}
