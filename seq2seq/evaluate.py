"""BLEU and chrF that say what they are: sacreBLEU on detokenised text, with signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from seq2seq.errors import DataError, UserError
from seq2seq.files import checksum

# sacreBLEU's own advice; its tokenizers for Japanese and Korean need packages that are not always there.
_TOKENIZERS = {"zh": "zh", "lzh": "zh", "yue": "zh", "wuu": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}


@dataclass(frozen=True)
class Scores:
    """Scores of one set of translations, each with the signature that lets others reproduce it."""

    bleu: float
    bleu_signature: str
    bleu_details: str  # n-gram precisions, brevity penalty, lengths
    chrf: float
    chrf_signature: str
    num_lines: int

    def __str__(self) -> str:
        """In sacreBLEU's own one-line format, BLEU last."""
        return (
            f"chrF2|{self.chrf_signature} = {self.chrf:.2f}\n"
            f"BLEU|{self.bleu_signature} = {self.bleu:.2f} {self.bleu_details}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def tokenizer_for(language: str | None) -> str:
    """sacreBLEU's tokenizer for a target language code; ``13a`` where there is no special one.

    Falls back to ``char`` for Japanese and Korean where MeCab is not installed; the signature shows it.
    """
    name = _TOKENIZERS.get((language or "").replace("_", "-").split("-")[0].lower(), "13a")
    if name.endswith("-mecab"):
        try:
            BLEU(tokenize=name)
        except (ImportError, RuntimeError):
            return "char"
    return name


def fingerprint_lines(lines: Sequence[str]) -> str:
    """Hex checksum (16 bytes) of a text, so that a score names the very test set it was measured on."""
    return checksum("".join(f"{line}\n" for line in lines).encode())


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokenize: str) -> Scores:
    """Corpus BLEU and chrF.

    Args:
        hypotheses: [lines].
        references: one list of [lines] for each reference translation.
        tokenize: name of a sacreBLEU tokenizer, such as "13a", "zh" or "char".

    Raises:
        DataError: line counts differ, or there are no lines.
        UserError: sacreBLEU knows no such tokenizer.
    """
    for number, reference in enumerate(references, start=1):
        if len(reference) != len(hypotheses):
            raise DataError(f"{len(hypotheses)} translations but {len(reference)} lines in reference {number}")
    if not hypotheses:
        raise DataError("nothing to score: there are no lines")
    if tokenize not in BLEU.TOKENIZERS:
        raise UserError(f"unknown BLEU tokenizer {tokenize!r}; choose from {', '.join(sorted(BLEU.TOKENIZERS))}")
    try:
        bleu = BLEU(tokenize=tokenize)
    except (ImportError, RuntimeError) as error:
        raise UserError(f"BLEU tokenizer {tokenize!r} cannot be used here: {error}") from None
    chrf = CHRF()
    bleu_score = bleu.corpus_score(hypotheses, references)
    chrf_score = chrf.corpus_score(hypotheses, references)
    return Scores(
        bleu=float(bleu_score.score),
        bleu_signature=str(bleu.get_signature()),
        bleu_details=str(bleu_score).split(" ", 3)[3],
        chrf=float(chrf_score.score),
        chrf_signature=str(chrf.get_signature()),
        num_lines=len(hypotheses),
    )
