"""Where a line is cut: into sentences, with the check whether a model needs it, and where it is too long.

A line is cut only where a sentence end is nearly certain: not after an abbreviation, an initial, an ellipsis or an
ordinal number, and not before a lower-case letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from seq2seq.config import Config
from seq2seq.data.corpus import Corpus
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.languages import CUTS

_FEW = 0.02  # share of training lines with several sentences; with fewer, a model translates only one of them
_SAMPLE = 10_000  # lines
_END = re.compile(
    r"(?<![.!?])(?P<mark>[.!?]+)(?P<close>[\"'”’»)\]]*)\s+(?=[\"'“‘«„(\[¿¡]*(?P<next>\w))"
    r"|[।॥؟۔։።။។][\"'”’»)\]]*\s+(?=\S)"  # Indic, Arabic, Armenian, Ethiopic, Burmese, Khmer
    r"|(?<![。！？｡])[。！？｡]+[”’」』）】》\"')]*\s*(?=\S)"  # Chinese, Japanese: no space follows
)
_WORD = re.compile(r"\S*$")
_LONGEST_WORD = 30
# Words written with a full stop inside a sentence, in English and related languages; here in lower case, without it.
_ABBREVIATION = re.compile(
    "mrs?|ms|dr|prof|st|sr|jr|gen|col|sgt|lt|capt|cpt|rev|hon|pres|gov|sen|rep|inc|ltd|co|corp|bros|vs|nos?|figs?|vol|"
    "pp|ch|sec|art|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mt|ft|ave|blvd|rd|approx|dept|est|cf|al|"
    "ca|bzw|hr|fr|nr|str|evtl|ggf|inkl|usw|sog|mme|mlle|mm|me|sra|srta|uds?|dña|sig|dott|ing|avv|dhr|mevr|drs|"
    "им|стр|проф|акад|рис|табл"
)
# Languages that write ordinal numbers with a full stop: "am 3. Oktober".
_ORDINALS = re.compile("de|cs|sk|da|no|nb|nn|fi|et|hu|pl|hr|sr|bs|sl|lv|lt|is|fo|tr|eu|lb")


def split_sentences(line: str, language: str | None = None) -> list[str]:
    """The sentences of ``line``, without the white space between them; a line of one sentence is not changed.

    Args:
        language: the line's language code, if known; it decides whether ordinals have a full stop.
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
    if mark != ".":  # not after an ellipsis, nor after a quotation with ! or ?: 'Why?' Anna asked
        return not mark.startswith("..") and not set(match["close"]) & set("\"'”’»")
    at = match.start()
    (word,) = _WORD.findall(line[max(0, at - _LONGEST_WORD) : at])[:1]
    word = word.lstrip("\"'“‘«„([¿¡").lower()
    if word.isdecimal():
        ordinal = language is None or _ORDINALS.fullmatch(re.split("[-_]", language)[0].lower())
        return at > len(word) and not (ordinal and len(word) <= 2)
    return len(word) > 1 and "." not in word and not _ABBREVIATION.fullmatch(word)


def share_of_several(lines: Iterable[str], language: str | None) -> float:
    """The share of lines with more than one sentence."""
    several = [len(split_sentences(line, language)) > 1 for line in lines]
    return sum(several) / max(1, len(several))


def with_split_sentences(config: Config, corpus: Corpus, tokenizer: Tokenizer) -> Config:
    """``config`` with decode.split_sentences: auto replaced by true or false, from a sample of the training text."""
    if config.decode.split_sentences != "auto":
        return config
    count = len(corpus.lines)
    chosen = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int).tolist()
    lines = tokenizer.decode_batch([corpus.sentence("src", i).tolist() for i in chosen])
    single = share_of_several(lines, config.data.source_language) < _FEW
    return config.model_copy(update={"decode": config.decode.model_copy(update={"split_sentences": single})})


def cut_to_fit(line: str, limit: int, tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    """Cut a line at the best place near its middle, again and again, into parts of at most ``limit`` tokens.

    Returns:
        Text and ids of each part.
    """
    (ids,) = tokenizer.encode([line])
    if len(ids) <= limit or len(line) < 2:
        return [(line, ids[:limit])]  # in real models no single character has more tokens than that
    middle = len(line) // 2
    for pattern in CUTS:
        ends = [match.end() for match in pattern.finditer(line)]
        ends = [end for end in ends if len(line) // 4 < end < 3 * len(line) // 4]
        if ends:
            middle = min(ends, key=lambda end: abs(end - middle))
            break
    return cut_to_fit(line[:middle], limit, tokenizer) + cut_to_fit(line[middle:], limit, tokenizer)
