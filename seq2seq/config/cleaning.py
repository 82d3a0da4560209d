"""Rules for cleaning the training text: which pairs are left out before anything is learned from them.

``data.clean`` has the rules of all training text; a dataset of ``data.train`` may have a ``clean`` of its own, whose
keys override them for its pairs.
"""

from collections.abc import Iterator
from typing import Literal

from seq2seq.config.keys import OnePath, Section, option

Cause = Literal[
    "overlap",
    "identical",
    "repeats",
    "min_characters",
    "max_characters",
    "longest_word",
    "min_letters",
    "script",
    "markup",
    "numbers",
    "urls",
    "language",
    "score",
    "model",
]


class CleanConfig(Section):
    """The rules, in the order in which they are tried: a pair counts for the first one that leaves it out.

    Their names are those of the causes (:data:`Cause`); only ``score`` is stated in a dataset with columns.
    """

    overlap: bool = option(
        True,
        "Leave out pairs that are also in data.valid, data.guard or data.test, or the score would measure memory. "
        "Case, spaces and punctuation do not count.",
    )
    identical: bool = option(
        False,
        "Leave out pairs whose source equals the target, except for case, spaces and punctuation: they teach the "
        "model to copy.",
    )
    repeats: Literal["pairs", "sources"] | None = option(
        None,
        "pairs: leave out pairs that have the source and target of an earlier pair of train which no other rule leaves "
        "out. sources: that have its source. Case, spaces and punctuation do not count. null is off.",
    )
    min_characters: int | None = option(
        None, "Leave out pairs with a side of fewer characters. Spaces at both ends do not count.", gt=0
    )
    max_characters: int | None = option(
        None, "Leave out pairs with a side of more characters. Spaces at both ends do not count.", gt=0
    )
    longest_word: int | None = option(
        None,
        "Leave out pairs with a longer word on a side: more characters in a row without a space. Scripts that are "
        "written without spaces, such as Chinese, Japanese and Thai, do not count.",
        gt=0,
    )
    min_letters: float | None = option(
        None,
        "Leave out pairs with a side on which a smaller share of the characters are letters (accents and vowel signs "
        "included). Spaces do not count. 0.5 leaves out tables and rows of marks.",
        gt=0,
        le=1,
    )
    script: bool = option(
        False,
        "Leave out pairs with a side on which most letters are in another script than the language has. A language "
        "that is not known has the script of most lines.",
    )
    markup: bool = option(False, "Leave out pairs with tags or entities of HTML or XML on a side: <b>, &nbsp;")
    numbers: bool = option(
        False,
        "Leave out pairs whose sides have different numbers in digits. Their order, separators of thousands and the "
        "script of the digits do not count. Numbers in words (three, 3万) are not understood.",
    )
    urls: bool = option(False, "Leave out pairs whose sides have different web or e-mail addresses.")
    language: bool = option(
        False,
        "Leave out pairs with a side in another language than the stated one, as far as a program can tell from 20 "
        "letters or more. Needs the package eldc.",
    )

    model: OnePath | None = option(
        None,
        "Leave out pairs whose target this model finds unlikely: its log-probability per token is below min_log_prob. "
        "A run folder or a model folder that translates in the same direction; a relative path starts at the current "
        "folder. Pairs that are too long for it are kept.",
    )
    min_log_prob: float | None = option(
        None,
        "For model: the lowest log-probability per token (natural logarithm) of a pair that is kept. -5 leaves out "
        "few true pairs of text like the model's own; `seq2seq score` shows the numbers of a text.",
        le=0,
    )

    def overridden(self, other: "CleanConfig") -> "CleanConfig":
        """These rules with the keys that ``other`` states in their place; rules between keys are not checked."""
        return self.model_copy(update={**self.model_dump(), **other.model_dump(exclude_unset=True)})

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Rules between keys that are broken: the key and a message."""
        least, most = self.min_characters, self.max_characters
        if least is not None and most is not None and least > most:
            yield "min_characters", f"must be at most max_characters ({most}), not {least}"
        if self.model is not None and self.min_log_prob is None:
            yield "min_log_prob", "is needed with model: the lowest log-probability per token to keep, such as -5"
        if self.model is None and self.min_log_prob is not None:
            yield (
                "min_log_prob",
                "has no effect without model; name the model to score with, or remove this key",
            )

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        return self.broken_rules()
