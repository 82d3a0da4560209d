"""BLEU and chrF by sacreBLEU on detokenised text, with signatures."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR

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


def load_tokenizer(name: str) -> BLEU:
    """sacreBLEU's BLEU with one of its tokenizers.

    Raises:
        UserError: sacreBLEU has no such tokenizer, or it cannot be used here: a package is missing, or its model is
            missing and cannot be downloaded.
    """
    if name not in BLEU.TOKENIZERS:
        raise UserError(f"unknown BLEU tokenizer {name!r}; choose from {', '.join(sorted(BLEU.TOKENIZERS))}")
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
        tokenize: name of a sacreBLEU tokenizer, such as "13a", "zh" or "char"; default: the one for the language.
        target_language: its code, such as "de", "zh" or "zho_Hans"; default: the script of the references decides.

    Raises:
        TypeError: what should be a list of strings is something else.
        DataError: line counts differ, or there are no lines.
        UserError: the tokenizer cannot be used (:func:`load_tokenizer`).
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
    notes, lines = [], list(chain.from_iterable(every))
    if tokenize is None:
        tokenize, note = tokenizer_for(target_language, lines)
        notes += [note] if note else []
    elif tokenize in _WORDS and (script := script_in(lines)) in UNSPACED_SCRIPTS:
        notes.append(
            f"the references have no spaces between words ({script} script): BLEU with the tokenizer {tokenize} "
            f"is not meaningful; use {tokenizer_for(None, lines)[0]}"
        )
    bleu, chrf = load_tokenizer(tokenize), CHRF()
    for name, texts in (("references", every), ("translations", [hypotheses])):
        if found := next(filter(None, map(processed, texts)), None):
            notes.append(f"the {name} look {found}: scores are not comparable; restore plain text before scoring")
            break
    bleu_score = bleu.corpus_score(hypotheses, every)
    chrf_score = chrf.corpus_score(hypotheses, every)
    return Scores(
        bleu=float(bleu_score.score),
        bleu_signature=str(bleu.get_signature()),
        bleu_details=str(bleu_score).split(" ", 3)[3],
        chrf=float(chrf_score.score),
        chrf_signature=str(chrf.get_signature()),
        num_lines=len(hypotheses),
        notes=tuple(notes),
    )


def sentence_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[list[float], str]:
    """chrF of each line, from 0 to 100, and its signature."""
    chrf = CHRF()
    scores = [float(chrf.sentence_score(hyp, [ref]).score) for hyp, ref in zip(hypotheses, references, strict=True)]
    return scores, f"chrF2|{chrf.get_signature()}"


def _check_lines(name: str, lines: object) -> None:
    """Raise TypeError for what is no list of strings: sacreBLEU would score the letters of a single one."""
    if isinstance(lines, (str, bytes)) or not isinstance(lines, Sequence):
        raise TypeError(f"{name} must be a list of strings, not {type(lines).__name__}")
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str):
            raise TypeError(f"{name}: line {number} is {type(line).__name__}, not str")
