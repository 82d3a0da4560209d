"""Where sentences end in a line, and whether a model has learned lines of several sentences.

Cut is only where an end is nearly certain: after an abbreviation, an initial, an ellipsis or the number of an ordinal,
and before a small letter, it is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from seq2seq.config import Config
from seq2seq.data.corpus import Corpus
from seq2seq.data.tokenizer import Tokenizer

_FEW = 0.02  # of the training lines: a model that saw no more of several sentences translates only one of them
_SAMPLE = 10_000  # lines
_END = re.compile(
    r"(?<![.!?])(?P<mark>[.!?]+)(?P<close>[\"'”’»)\]]*)\s+(?=[\"'“‘«„(\[¿¡]*(?P<next>\w))"
    r"|[।॥؟۔։።။។][\"'”’»)\]]*\s+(?=\S)"  # Indic, Arabic, Armenian, Ethiopic, Burmese, Khmer
    r"|(?<![。！？｡])[。！？｡]+[”’」』）】》\"')]*\s*(?=\S)"  # Chinese, Japanese: no space follows
)
_WORD = re.compile(r"\S*$")
_LONGEST_WORD = 30
# Written with a full stop within a sentence, in English and its neighbours; without one here, in small letters.
_ABBREVIATION = re.compile(
    "mrs?|ms|dr|prof|st|sr|jr|gen|col|sgt|lt|capt|cpt|rev|hon|pres|gov|sen|rep|inc|ltd|co|corp|bros|vs|nos?|figs?|vol|"
    "pp|ch|sec|art|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mt|ft|ave|blvd|rd|approx|dept|est|cf|al|"
    "ca|bzw|hr|fr|nr|str|evtl|ggf|inkl|usw|sog|mme|mlle|mm|me|sra|srta|uds?|dña|sig|dott|ing|avv|dhr|mevr|drs|"
    "им|стр|проф|акад|рис|табл"
)
# Languages that write the number of an ordinal with a full stop: "am 3. Oktober".
_ORDINALS = re.compile("de|cs|sk|da|no|nb|nn|fi|et|hu|pl|hr|sr|bs|sl|lv|lt|is|fo|tr|eu|lb")


def split_sentences(line: str, language: str | None = None) -> list[str]:
    """The sentences of ``line`` without the white space between them; a line of one sentence is left as it is.

    Args:
        language: code of the line's language, if it is known; it decides whether ordinals have a full stop.
    """
    parts, start = [], 0
    for match in _END.finditer(line):
        if match["mark"] is None or _ends_sentence(line, match, language):
            parts.append(line[start : match.end()].strip())
            start = match.end()
    return [*parts, line[start:].strip()] if parts else [line]


def _ends_sentence(line: str, match: re.Match[str], language: str | None) -> bool:
    """Whether a full stop, an exclamation or a question mark ends a sentence."""
    following, mark = match["next"], match["mark"]
    if not following.isalpha() or following.islower():
        return False
    if mark != ".":  # an ellipsis hesitates; behind a quotation with ! or ? may come who says it
        return not mark.startswith("..") and not set(match["close"]) & set("\"'”’»")
    at = match.start()
    (word,) = _WORD.findall(line[max(0, at - _LONGEST_WORD) : at])[:1]
    word = word.lstrip("\"'“‘«„([¿¡").lower()
    if word.isdecimal():
        ordinal = language is None or _ORDINALS.fullmatch(re.split("[-_]", language)[0].lower())
        return at > len(word) and not (ordinal and len(word) <= 2)
    return len(word) > 1 and "." not in word and not _ABBREVIATION.fullmatch(word)


def share_of_several(lines: Iterable[str], language: str | None) -> float:
    """The share of lines that hold more than one sentence."""
    several = [len(split_sentences(line, language)) > 1 for line in lines]
    return sum(several) / max(1, len(several))


def with_split_sentences(config: Config, corpus: Corpus, tokenizer: Tokenizer) -> Config:
    """``config`` with true or false in decode.split_sentences, by a sample of the training corpus' source text."""
    if config.decode.split_sentences != "auto":
        return config
    count = len(corpus.lines)
    chosen = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int).tolist()
    lines = tokenizer.decode_batch([corpus.src(i).tolist() for i in chosen])
    single = share_of_several(lines, config.data.source_language) < _FEW
    return config.model_copy(update={"decode": config.decode.model_copy(update={"split_sentences": single})})
