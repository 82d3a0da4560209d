"""Calibration of a model's confidence on parallel text: what the end of a run and ``seq2seq calibrate`` share."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from seq2seq.config import DecodeConfig
from seq2seq.decode.calibration import Calibration, fit, rerank_weight
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.evaluate import sentence_chrf
from seq2seq.files import CHECKSUM

MOST_LINES = 2000  # enough for a handful of weights; more would only cost time
_LINES = 200  # translated together


def calibrate(
    translator: Translator,
    src: Sequence[str],
    ref: Sequence[str],
    decode: DecodeConfig,
    tags: Sequence[str | None] | None = None,
) -> Calibration:
    """Translate up to :data:`MOST_LINES` lines, evenly chosen, and fit a calibration.

    Args:
        translator: of one model that was loaded from a folder.
        ref: the reference of each source line. A pair with a blank side is left out.
        tags: the tag of each line; default: that of ``decode`` for all.

    Raises:
        CannotCalibrateError: the text is too small, or nearly all or none of the translations are acceptable.
    """
    filled = [line for line in range(len(src)) if src[line].strip() and ref[line].strip()]
    count = min(len(filled), MOST_LINES)
    lines = [filled[number * len(filled) // count] for number in range(count)]
    tag_of = dict.fromkeys(lines, decode.tag) if tags is None else {line: tags[line] for line in lines}
    found: dict[int, Translation] = {}
    with tqdm(desc="calibrating the confidence", unit=" lines", total=len(lines), leave=False, disable=None) as bar:
        for tag in dict.fromkeys(tag_of.values()):
            own, of_tag = decode.model_copy(update={"tag": tag}), [line for line in lines if tag_of[line] == tag]
            for first in range(0, len(of_tag), _LINES):
                part = of_tag[first : first + _LINES]
                streamed = translator.translate_stream([src[line] for line in part], own)
                found |= ((line, best) for line, (best, *_) in zip(part, streamed, strict=True))
                bar.update(len(part))
    translations = [found[line] for line in lines]
    chrf, signature = sentence_chrf([one.text for one in translations], [ref[line] for line in lines])
    return fit(translations, chrf, signature, decode, translator.metadata[CHECKSUM], rerank_weight(translator))
