"""BLEU and chrF by sacreBLEU on detokenised text, with signatures."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from sacrebleu.metrics.bleu import BLEU, BLEUScore
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR
from sentencepiece import SentencePieceProcessor

from seq2seq.errors import DataError, UserError
from seq2seq.files import checksum
from seq2seq.languages import UNSPACED_SCRIPTS, script_in, script_of
from seq2seq.traces import processed

# By target script: sacreBLEU's advice, and "char" for scripts without spaces between words. Its subword tokenizers
# (flores200) would work, too, but need a download.
_TOKENIZERS = {**dict.fromkeys(UNSPACED_SCRIPTS, "char"), "han": "zh", "kana": "ja-mecab", "hangul": "ko-mecab"}
_DEFAULT = "13a"
_WORDS = (_DEFAULT, "intl", "none")  # the tokenizers that need spaces between words
_ADVICE = "set the language in data.tgt_lang (evaluate: --tgt-lang)"
_DOWNLOAD_SECONDS = 30.0  # timeout
_CHECKSUM = 16  # hex digits of a checksum in a signature


@dataclass(frozen=True, repr=False)
class Scores:
    """Scores of one set of translations, with the signatures to reproduce them."""

    bleu: float
    bleu_signature: str
    bleu_details: str  # n-gram precisions, brevity penalty, lengths
    chrf: float
    chrf_signature: str
    num_lines: int
    notes: tuple[str, ...] = ()  # warnings about the scores, one line each

    def __str__(self) -> str:
        """The scores in sacreBLEU's one-line format."""
        return (
            f"BLEU|{self.bleu_signature} = {self.bleu:.2f} {self.bleu_details}\n"
            f"chrF2|{self.chrf_signature} = {self.chrf:.2f}"
        )

    def __repr__(self) -> str:
        """What a notebook shows: both scores, the signatures that make them comparable, and the warnings."""
        head = f"BLEU {self.bleu:.2f}, chrF {self.chrf:.2f} ({self.num_lines:,} line{'s' * (self.num_lines != 1)})"
        return "\n".join([head, str(self), *(f"note: {note}" for note in self.notes)])

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {name: value for name, value in asdict(self).items() if name != "notes"}


class _Pieces:
    """A SentencePiece model as a tokenizer of sacreBLEU's: a line becomes its pieces with spaces between them."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if the file cannot be read, or is no SentencePiece model."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"BLEU tokenizer {path}: cannot be read: {error.strerror}") from None
        try:
            if not content:  # for SentencePiece this means "load later"
                raise ValueError
            self._pieces = SentencePieceProcessor(model_proto=content)
        except (RuntimeError, ValueError):
            raise UserError(
                f"BLEU tokenizer {path}: is no SentencePiece model, or a damaged one; download or copy it again"
            ) from None
        name = re.sub(r"[|:\s]", "_", path.name)  # a signature has | and : between its parts
        self._signature = f"spm-{name}-{checksum(content)[:_CHECKSUM]}"
        self._tokenize = lru_cache(maxsize=1 << 16)(self._cut)

    def signature(self) -> str:
        """The name of the file and the start of its checksum (``b2sum -l 128``)."""
        return self._signature

    def __call__(self, line: str) -> str:
        return self._tokenize(line)

    def _cut(self, line: str) -> str:
        return " ".join(self._pieces.encode(line, out_type=str))


def load_tokenizer(name: str) -> BLEU:
    """sacreBLEU's BLEU with one of its tokenizers, or with a SentencePiece model (spBLEU) for the path of one.

    Raises:
        UserError: sacreBLEU has no such tokenizer and there is no such file, or it cannot be used here: a package is
            missing, a model is missing and cannot be downloaded, or a file is no SentencePiece model.
    """
    if name not in BLEU.TOKENIZERS and (Path(name).suffix == ".model" or os.sep in name or Path(name).is_file()):
        bleu = BLEU(tokenize="none", force=True)
        bleu.tokenizer = _Pieces(Path(name))
        bleu.tokenizer_signature = bleu.tokenizer.signature()
        return bleu
    if name not in BLEU.TOKENIZERS:
        choices = ", ".join(sorted(BLEU.TOKENIZERS))
        raise UserError(f"unknown BLEU tokenizer {name!r}; choose from {choices}, or name a SentencePiece model")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_SECONDS)
    try:
        # spm is flores101 with a warning. force: sacreBLEU's advice would name a parameter that users do not have.
        return BLEU(tokenize="flores101" if name == "spm" else name, force=True)
    except (Exception, SystemExit) as error:  # any error of a download, a package or a damaged file
        text = f"BLEU tokenizer {name!r} cannot be used here: {' '.join(str(error).split()) or type(error).__name__}"
        if name in SPM_MODELS:
            text += (
                f"; sacreBLEU downloads its model once, into {SACREBLEU_DIR}: connect to the network, set SACREBLEU to "
                "a folder with the model, or choose another tokenizer (char needs no download)"
            )
        raise UserError(text) from None
    finally:
        socket.setdefaulttimeout(timeout)


def tokenizer_for(language: str | None, references: Sequence[str] = ()) -> tuple[str, str | None]:
    """sacreBLEU's tokenizer for a target language code, and a note if the references decided.

    The default is ``13a``. The script of the references decides if the language is unknown, or if they use a script of
    another language. Falls back to ``char`` for Japanese and Korean if MeCab is not installed; the signature shows it.
    """
    expected = script_of(language)
    found = script_in(references, expected) or expected
    name = _TOKENIZERS.get(found or "", _DEFAULT)
    if name.endswith("-mecab"):
        try:
            load_tokenizer(name)
        except UserError:
            name = "char"
    if _TOKENIZERS.get(found or "") == _TOKENIZERS.get(expected or ""):
        return name, None
    what = f"the target language is {language}, but " if language else "the target language is unknown, and "
    script = {"han": "Chinese", "kana": "Japanese", "hangul": "Korean"}.get(found or "", (found or "").capitalize())
    return name, f"{what}the references are in {script} script: BLEU uses the tokenizer {name}; {_ADVICE}"


def fingerprint_lines(lines: Sequence[str]) -> str:
    """Hex checksum (16 bytes) of a text, to identify the test set of a score."""
    return checksum("".join(f"{line}\n" for line in lines).encode())


def score(
    hypotheses: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    tokenize: str | None = None,
    target_language: str | None = None,
) -> Scores:
    """Corpus BLEU and chrF.

    >>> seq2seq.score(translator.translate(source_lines), reference_lines, target_language="de")

    Args:
        hypotheses: the translations, a list of lines.
        references: a list of lines, or a list of such lists if there are several reference translations.
        tokenize: name of a sacreBLEU tokenizer, such as "13a", "zh" or "char", or the path of a SentencePiece model;
            default: the one for the language.
        target_language: its code, such as "de", "zh" or "zho_Hans"; default: the script of the references decides.

    Raises:
        TypeError: what should be a list of strings is something else.
        DataError: line counts differ, or there are no lines.
        UserError: the tokenizer cannot be used (:func:`load_tokenizer`).
    """
    every = check_texts(hypotheses, references)
    bleu, notes = bleu_for(every, tokenize, target_language)
    chrf = CHRF()
    bleu_score = bleu.corpus_score(hypotheses, every)
    chrf_score = chrf.corpus_score(hypotheses, every)
    return Scores(
        bleu=float(bleu_score.score),
        bleu_signature=str(bleu.get_signature()),
        bleu_details=details_of(bleu_score),
        chrf=float(chrf_score.score),
        chrf_signature=str(chrf.get_signature()),
        num_lines=len(hypotheses),
        notes=(*notes, *processing_notes(every, [hypotheses])),
    )


def details_of(score: BLEUScore) -> str:
    """What sacreBLEU prints after a BLEU score: n-gram precisions, brevity penalty, lengths."""
    return str(score).split(" ", 3)[3]


def check_texts(
    hypotheses: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]
) -> Sequence[Sequence[str]]:
    """The references as a list of texts, each with a line for every translation.

    Raises:
        TypeError: what should be a list of strings is something else.
        DataError: line counts differ, or there are no lines.
    """
    _check_lines("hypotheses", hypotheses)
    several = isinstance(references, (list, tuple)) and not any(isinstance(line, str) for line in references)
    every: Any = references if several and references else [references]
    for reference in every:
        _check_lines("references", reference)
    for number, reference in enumerate(every, start=1):
        if len(reference) != len(hypotheses):
            raise DataError(f"{len(hypotheses)} translations but {len(reference)} lines in reference {number}")
    if not hypotheses:
        raise DataError("nothing to score: there are no lines")
    checked: Sequence[Sequence[str]] = every
    return checked


def bleu_for(
    references: Sequence[Sequence[str]], tokenize: str | None, target_language: str | None
) -> tuple[BLEU, list[str]]:
    """BLEU with the tokenizer that is asked for, or else with the one for the text; and notes about that choice.

    Raises:
        UserError: the tokenizer cannot be used (:func:`load_tokenizer`).
    """
    lines = list(chain.from_iterable(references))
    notes = []
    if tokenize is None:
        tokenize, note = tokenizer_for(target_language, lines)
        notes += [note] if note else []
    elif tokenize in _WORDS and (script := script_in(lines)) in UNSPACED_SCRIPTS:
        notes.append(
            f"the references have no spaces between words ({script} script): BLEU with the tokenizer {tokenize} "
            f"is not meaningful; use {tokenizer_for(None, lines)[0]}"
        )
    return load_tokenizer(tokenize), notes


def processing_notes(references: Sequence[Sequence[str]], translations: Sequence[Sequence[str]]) -> list[str]:
    """A note if the references, or else the translations, are subwords or tokens and no plain text."""
    for name, texts in (("references", references), ("translations", translations)):
        if found := next(filter(None, map(processed, texts)), None):
            return [f"the {name} look {found}: scores are not comparable; restore plain text before scoring"]
    return []


def sentence_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[list[float], str]:
    """chrF of each line, from 0 to 100, and its signature."""
    chrf = CHRF()
    chrf.num_refs = 1  # for the signature, if there are no lines
    scores = [float(chrf.sentence_score(hyp, [ref]).score) for hyp, ref in zip(hypotheses, references, strict=True)]
    return scores, f"chrF2|{chrf.get_signature()}"


def _check_lines(name: str, lines: object) -> None:
    """Raise TypeError for what is no list of strings: sacreBLEU would score the letters of a single one."""
    if isinstance(lines, (str, bytes)) or not isinstance(lines, Sequence):
        raise TypeError(f"{name} must be a list of strings, not {type(lines).__name__}")
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str):
            raise TypeError(f"{name}: line {number} is {type(line).__name__}, not str")
