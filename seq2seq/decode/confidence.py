"""How sure a model is of its translation: raw features, not calibrated to any probability."""

from __future__ import annotations

from dataclasses import dataclass

from seq2seq.decode.flags import length_ratio
from seq2seq.decode.translation import Translation


@dataclass(frozen=True)
class Features:
    """Of one translation; natural logarithms, </s> included."""

    per_token: float  # the mean log-probability of its tokens
    lowest: float  # the log-probability of its least likely token
    length_ratio: float  # see seq2seq.decode.flags


def features(source: str, translation: Translation) -> Features:
    """The features of a translation, made with ``token_scores``; of a blank line they are 0, 0 and 1."""
    assert translation.lowest is not None, "translate with token_scores"
    return Features(translation.per_token, translation.lowest, length_ratio(source, translation.text))
