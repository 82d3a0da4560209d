"""Lines, or parts of long ones, as a model translates them: search, choice, and what was taken out of them.

A part is what one search translates: a line, one of its sentences, or a piece of a sentence that is too long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from seq2seq.config import DecodeConfig
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.decode.engine import Engine, OnFound, Source, TorchEngine
from seq2seq.decode.placing import Bare, look, put_in
from seq2seq.decode.search import Hypothesis
from seq2seq.decode.translation import Translation, best_of, with_expected_chrf
from seq2seq.decode.wanted import Wanted
from seq2seq.errors import ModelError

if TYPE_CHECKING:
    from seq2seq.decode.rerank import ReverseModel

_NOT_RANKED = "too long for the reverse model; the candidates keep their order"


class Part(NamedTuple):
    """What one search translates."""

    source: Source  # key: the line of the input, the part of it
    bare: Bare  # its text


@dataclass(frozen=True)
class PartTranslator:
    """Translates parts with an engine and, if there is one, a reverse model that chooses."""

    engine: Engine
    tokenizers: TokenizerPair
    reverse: ReverseModel | None
    num_tags: int  # ids before every source sentence

    def translate(
        self,
        parts: Sequence[Part],
        decode: DecodeConfig,
        wanted: Wanted,
        *,
        token_scores: bool,
        on_found: OnFound,
        on_problem: Callable[[int, str], None],
    ) -> list[list[Translation]]:
        """The translations of each part, best first; at least one.

        Args:
            token_scores: whether translations have ``lowest``, which takes one more pass over them.
            on_found: called with the sources that were searched since the last call, batch by batch.
            on_problem: called with a line number (from 1) and what a part of the line cannot have.

        Raises:
            ModelError: the model computes no finite numbers.
        """
        chooses = decode.choose == "mbr" or self.reverse is not None
        every = decode.model_copy(update={"n_best": decode.num_hypotheses})
        found = self._search(parts, every if chooses else decode, wanted, on_found)
        if not all(found):  # every hypothesis ends at the maximum length, so no score was finite
            raise ModelError("the model computes no finite numbers: its weights are damaged, or training diverged")
        texts = iter(self.tokenizers.tgt.decode_batch([h.ids for hypotheses in found for h in hypotheses]))
        results = [
            [Translation(next(texts), h.score, h.log_prob, h.cut, len(h.ids) + 1) for h in hypotheses]
            for hypotheses in found
        ]
        if decode.choose == "mbr":
            results = [with_expected_chrf(candidates, decode) for candidates in results]
        if self.reverse is not None:
            sources = [part.bare.text for part in parts]
            lines = [part.source.key[0] + 1 for part in parts]
            results = self.reverse.rank(sources, results, lambda part: on_problem(lines[part], _NOT_RANKED))
        kept = [(part, i) for part, candidates in enumerate(results) for i in best_of(candidates, decode)]
        if token_scores:
            targets = [[*found[part][i].ids, EOS_ID] for part, i in kept]
            scored = self.engine.score([parts[part].source.ids for part, _ in kept], targets, decode)
            for (part, i), log_probs in zip(kept, scored, strict=True):
                results[part][i] = replace(results[part][i], lowest=float(log_probs.min()))
        if bare := [(part, i) for part, i in kept if parts[part].bare.elements]:
            completed = self.with_elements(
                [parts[part] for part, _ in bare],
                [found[part][i].ids for part, i in bare],
                [results[part][i].text for part, i in bare],
            )
            for (part, i), text in zip(bare, completed, strict=True):
                results[part][i] = replace(results[part][i], text=text)
        best: list[list[Translation]] = [[] for _ in parts]
        for part, i in kept:
            best[part].append(results[part][i])
        return best

    def _search(
        self, parts: Sequence[Part], decode: DecodeConfig, wanted: Wanted, on_found: OnFound
    ) -> list[list[Hypothesis]]:
        """The hypotheses of each part, as :meth:`Engine.search` gives them.

        Plain search comes first, because a search for terms finds worse translations: its hypotheses compete with
        those that write the terms early. It is done where the plain hypotheses lack something.
        """
        sources, rules = [part.source for part in parts], wanted.rules
        with_terms = {source.key: number for number, source in enumerate(sources) if source.terms}
        if not with_terms:
            return self.engine.search(sources, decode, rules, on_found)
        plain = [replace(source, terms=()) for source in sources]
        found = self.engine.search(
            plain, decode, rules, lambda some: on_found([one for one in some if one.key not in with_terms])
        )
        lacking = [number for number in with_terms.values() if not self.has_all(parts[number], found[number], wanted)]
        on_found([sources[number] for number in sorted({*with_terms.values()} - {*lacking})])
        if lacking:
            again = self.engine.search([sources[number] for number in lacking], decode, rules, on_found)
            for number, hypotheses in zip(lacking, again, strict=True):
                found[number] = hypotheses
        return found

    def has_all(self, part: Part, hypotheses: Sequence[Hypothesis], wanted: Wanted) -> bool:
        """Whether one of the hypotheses has all that is wanted from the part."""
        texts = self.tokenizers.tgt.decode_batch([one.ids for one in hypotheses])
        return wanted.is_there(part.bare.text, texts)

    def with_elements(
        self,
        parts: Sequence[Part],
        targets: Sequence[Sequence[int]],
        translations: Sequence[str],
        written: Callable[[str], str] = str,
    ) -> list[str]:
        """The translations with what was taken out of their sources, where the model looked from.

        Args:
            targets: the ids of the translations, without EOS.
            written: how the translations themselves are written, such as escaped.
        """
        assert isinstance(self.engine, TorchEngine)
        sources = [part.source.ids for part in parts]
        alignments = self.engine.alignments(sources, [[*ids, EOS_ID] for ids in targets])
        found = []
        for part, ids, text, alignment in zip(parts, targets, translations, alignments, strict=True):
            looked = look(self.tokenizers, part.bare, ids, text, alignment[:-1, self.num_tags : -1])
            found.append(put_in(looked, part.bare.elements, written))
        return found

    def limit_reached(self, part: Part, decode: DecodeConfig) -> str:
        """The message for a part whose translation is cut."""
        num_tokens = len(part.source.ids)
        longest = self.engine.longest_output(num_tokens, decode)
        raised = decode.model_copy(update={"max_length_offset": decode.max_length_offset + 1})
        more = self.engine.longest_output(num_tokens, raised) > longest
        advice = "raise decode.max_length_ratio" if more else "the model does not allow longer ones"
        return f"the translation reached its length limit of {longest} tokens; {advice}"
