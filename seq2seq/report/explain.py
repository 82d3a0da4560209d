"""A web page that shows how a model came to a translation, and a picture of the alignment.

Shapes: ``S`` source tokens and ``T`` target tokens, each with the end-of-sentence token.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from seq2seq.decode.explanation import Attention, Explanation
from seq2seq.errors import UserError
from seq2seq.files import write_text
from seq2seq.report.figure import choose_fonts, new_figure, save_png
from seq2seq.report.page import fill_template

_DIGITS = 4  # after the decimal point: more cannot be seen


def write_page(explanation: Explanation, path: Path) -> None:
    """Write one HTML file that needs no other file and no network.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(path, fill_template("explain.html", explanation=_script_json(explanation)))


def _script_json(explanation: Explanation) -> str:
    """The explanation as JSON (ASCII) for a script element, with the names of the data classes.

    ``mask`` is added: whether the step that predicts token t (a row) can see a token that the decoder read (a column).
    """
    tree = _plain(asdict(explanation))
    decoder = explanation.attention.decoder
    # The softmax gives exactly zero to masked tokens alone, so the mask can be seen in the weights, windows included.
    tree["mask"] = None if decoder is None else (decoder > 0).any(axis=(0, 1)).astype(int).tolist()
    # A piece such as </script> must not end the element, and <!-- must not start a comment.
    return json.dumps(tree, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    """``value`` as JSON types, with rounded numbers; None for numbers that are not finite."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value


def draw_alignment(attention: Attention, path: Path) -> None:
    """Draw the alignment [T, S] as a heat map into a PNG file.

    Raises:
        UserError: the model has no attention over the source, matplotlib is not installed, no font of this machine has
            the letters, or the file cannot be written.
    """
    alignment = attention.alignment
    if alignment is None:
        raise UserError("this model has no attention over the source, so there is no alignment to draw")
    num_rows, num_columns = alignment.shape
    longest = max(len(piece) for piece in attention.source + attention.target)
    margin = 1.0 + 0.09 * longest  # inches, for the pieces at two sides
    figure = new_figure(margin + 0.36 * num_columns + 0.6, margin + 0.3 * num_rows)
    text: dict[str, Any] = {"family": choose_fonts(attention.source + attention.target), "parse_math": False}
    axes = figure.subplots()
    image = axes.imshow(alignment, cmap="Blues", vmin=0, aspect="auto")
    axes.set_xticks(range(num_columns), attention.source, rotation=60, ha="left", rotation_mode="anchor", **text)
    axes.set_yticks(range(num_rows), attention.target, **text)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set(xlabel="source", ylabel="target")
    axes.xaxis.set_label_position("top")
    figure.colorbar(image, label="cross-attention, mean of layers and heads")
    save_png(figure, path)
