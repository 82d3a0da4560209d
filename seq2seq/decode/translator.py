"""The Python API: translation of lines of text, exactly one output for each input, in order.

Lines are read in windows, sorted by length, decoded in batches, and returned in their order. Memory does not grow with
the input.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from seq2seq.config import Config, DecodeConfig, override_decode
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair
from seq2seq.decode.engine import Engine, Source, TorchEngine, compute_in_fork
from seq2seq.decode.explain import attention_of, explain, run_once
from seq2seq.decode.explanation import Attention, Explanation
from seq2seq.decode.glossary import Glossary
from seq2seq.decode.likelihood import TargetScore, score_pairs
from seq2seq.decode.parts import Part, PartTranslator
from seq2seq.decode.placing import Bare
from seq2seq.decode.sentences import cut_to_fit, split_sentences
from seq2seq.decode.speller import Speller
from seq2seq.decode.translation import Translation, joined
from seq2seq.decode.wanted import Prefixes, Wanted
from seq2seq.decode.windows import windows_of, windows_of_pairs
from seq2seq.device import choose_device, compute_dtype
from seq2seq.errors import DataError, ModelError, UserError
from seq2seq.files import checksum
from seq2seq.languages import script_of
from seq2seq.model_folder import LoadedModel, find_model_folder, load_model_folder

if TYPE_CHECKING:
    from seq2seq.decode.rerank import ReverseModel


def _lines_of(
    lines: Iterable[str], hint: str = 'lines must be a list of strings, not {}: translate(["..."])'
) -> Iterator[str]:
    """The lines; each is checked when it is read. TypeError at once for what is no list of strings."""
    # What has keys, a dict or a table of pandas, would give them instead of lines.
    if isinstance(lines, (str, bytes)) or hasattr(lines, "keys") or not isinstance(lines, Iterable):
        raise TypeError(hint.format(type(lines).__name__))
    return map(_checked_line, count(1), lines)


def _checked_line(number: int, line: str) -> str:
    if not isinstance(line, str):
        raise TypeError(f"line {number} is {type(line).__name__}, not str")
    return line


def _engine(name: str, loaded: Sequence[LoadedModel], folders: Sequence[Path], device: str, precision: str) -> Engine:
    """The engine for loaded models; see :meth:`Translator.load`."""
    if name == "torch":
        chosen = choose_device(device)
        compute_in_fork(chosen)
        return TorchEngine([one.model.to(chosen) for one in loaded], compute_dtype(precision, chosen))
    from seq2seq.decode.ctranslate2_engine import CTranslate2Engine

    if len(loaded) > 1:
        raise UserError("decode.engine: ctranslate2 cannot run several models together; use decode.engine: torch")
    if device not in ("auto", "cpu") or precision not in ("auto", "fp32"):
        what = f"{device}, {precision}".replace("auto, ", "").replace(", auto", "")
        raise UserError(f"decode.engine: ctranslate2 computes in fp32 on the CPU, not {what}; use decode.engine: torch")
    return CTranslate2Engine(loaded[0].model, loaded[0].metadata, folders[0])


@dataclass(eq=False)
class Translator:
    """A trained model, ready to translate.

    >>> translator = Translator.load("runs/multi30k")
    >>> translator
    Translator(runs/multi30k/best: transformer, 7,612,416 parameters, en to de, vocabulary 8,000; cpu, fp32)
    >>> translator.translate("A man rides a horse.")
    'Ein Mann reitet auf einem Pferd.'
    >>> translator.translate(["A man rides a horse.", "Two dogs play."], beam_size=2)
    ['Ein Mann reitet auf einem Pferd.', 'Zwei Hunde spielen.']
    """

    engine: Engine  # over a model of this config and these tokenizers
    config: Config
    tokenizers: TokenizerPair
    metadata: dict[str, str] = field(default_factory=dict)  # of the model folder, if the model was loaded from one
    edited: tuple[str, ...] = ()  # its settings that were edited after training
    folders: tuple[Path, ...] = ()  # of the model, or of the models of an ensemble, if they were loaded
    reverse: ReverseModel | None = None  # chooses among the candidates; see seq2seq.decode.rerank.with_reverse

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path],
        device: str = "auto",
        precision: str = "auto",
        engine: str | None = None,
    ) -> Translator:
        """Load a run folder (its best model) or a model folder; a list of several makes an ensemble.

        The models of an ensemble have the same tokenizer. The settings for decoding are those of the first one.

        Args:
            device: "cpu", "cuda", or "auto" (CUDA if there is one).
            precision: "fp32", on CUDA also "bf16" and "fp16", or "auto" (one of these on CUDA, fp32 on the CPU).
            engine: "torch", "ctranslate2" (one model, on the CPU, in fp32), or None: that of the settings for decoding.

        Raises:
            ModelError: a folder is missing, incomplete or damaged, or the tokenizers differ.
            UserError: there is no CUDA device, or the engine cannot run the model.
        """
        compute_in_fork(torch.device("cpu"))  # reads the weights, whatever the engine
        paths = [Path(one).expanduser() for one in ([path] if isinstance(path, (str, Path)) else path)]
        if not paths:
            raise UserError("give at least one model folder")
        loaded = [load_model_folder(one) for one in paths]
        folders = tuple(find_model_folder(one) for one in paths)
        first, *others = loaded
        given = {} if engine is None else {"engine": engine}
        config = first.config.replace("decode", engine=override_decode(first.config.decode, given).engine)
        runs = _engine(config.decode.engine, loaded, folders, device, precision)
        if not others:
            return cls(runs, config, first.tokenizers, first.metadata, first.edited, folders)
        for other, folder in zip(others, paths[1:], strict=True):
            if other.tokenizers.fingerprint != first.tokenizers.fingerprint:
                raise ModelError(
                    f"{folder}: its tokenizer is not that of {paths[0]}, but the models of an ensemble need the same "
                    "one; train them with the same data and data.cache_dir, and other seeds"
                )
        config = config.replace("data", max_length=min(one.config.data.max_length for one in loaded))
        metadata = {f"{n}.{key}": value for n, one in enumerate(loaded, 1) for key, value in one.metadata.items()}
        edited = [f"{folder}: {edit}" for folder, one in zip(paths, loaded, strict=True) for edit in one.edited]
        return cls(runs, config, first.tokenizers, metadata, tuple(edited), folders)

    def __repr__(self) -> str:
        """What it is: folder, architecture, size, languages, vocabulary, device and precision, in one line."""
        data, pair = self.config.data, self.tokenizers
        sizes = [pair.src.vocab_size] if pair.joint else [pair.src.vocab_size, pair.tgt.vocab_size]
        parts = [self.config.model.architecture, f"{self.engine.num_parameters:,} parameters"]
        if data.source_language and data.target_language:
            parts.append(f"{data.source_language} to {data.target_language}")
        parts.append(f"vocabulary {' and '.join(f'{size:,}' for size in sizes)}")
        place = " + ".join(map(str, self.folders)) + ": " if self.folders else ""
        return f"Translator({place}{', '.join(parts)}; {', '.join(self.engine.identity.values())})"

    @overload
    def translate(
        self,
        lines: str,
        decode: DecodeConfig | None = None,
        *,
        prefix: str | None = None,
        glossary: Mapping[str, str] | Path | str | None = None,
        **options: Any,
    ) -> str: ...

    @overload
    def translate(
        self,
        lines: Iterable[str],
        decode: DecodeConfig | None = None,
        *,
        prefix: Iterable[str] | None = None,
        glossary: Mapping[str, str] | Path | str | None = None,
        **options: Any,
    ) -> list[str]: ...

    def translate(
        self,
        lines: str | Iterable[str],
        decode: DecodeConfig | None = None,
        *,
        prefix: str | Iterable[str] | None = None,
        glossary: Mapping[str, str] | Path | str | None = None,
        **options: Any,
    ) -> str | list[str]:
        """The best translation of a line, or of every line of a list; a blank line gives an empty one.

        Args:
            lines: a string, which gives a string, or a list of strings, which gives a list.
            decode: how to search; default: the settings in the model's config.
            prefix: how the translation begins, a string for each line; blank for any. Its last word may continue,
                unless a space follows it.
            glossary: the translation of each source term, or a CSV file; see
                :class:`~seq2seq.decode.glossary.Glossary`. A line that cannot have its terms is translated without.
            options: keys of :class:`DecodeConfig` that replace those of ``decode``, such as ``beam_size=2``.

        Raises:
            TypeError: ``lines`` is something else; nothing is translated.
            ConfigError: an option is unknown, or its value is not allowed.
        """
        one = isinstance(lines, str)
        checked = list(_lines_of([lines] if isinstance(lines, str) else lines))
        prefix = [prefix] if one and isinstance(prefix, str) else prefix
        found = self.translate_stream(checked, decode, prefix=prefix, glossary=glossary, **options)
        texts = [translations[0].text for translations in found]
        return texts[0] if one else texts

    def score(
        self, sources: Iterable[str], targets: Iterable[str], decode: DecodeConfig | None = None, **options: Any
    ) -> list[TargetScore]:
        """How likely the model finds given translations, one result for each pair; there is no search.

        A pair that is too long for the model, or has a blank source and a target that is not blank, has no score.

        Args:
            decode: default: the settings in the model's config; only the tag, the precision and batch_tokens count.
            options: as for :meth:`translate`.

        Raises:
            TypeError: what should be a list of strings is something else.
            DataError: there are more sources than targets, or fewer.
        """
        both = [
            list(_lines_of(side, 'lines must be a list of strings, not {}: score(["..."], ["..."])'))
            for side in (sources, targets)
        ]
        if len(both[0]) != len(both[1]):
            raise DataError(f"{len(both[0]):,} sources but {len(both[1]):,} targets; give a target for each source")
        decode = self.engine.settle(override_decode(decode or self.config.decode, options), warnings.warn)
        return list(self.score_stream(zip(*both, strict=True), decode))

    def score_stream(
        self,
        pairs: Iterable[tuple[str, str]],
        decode: DecodeConfig,
        on_problem: Callable[[int, str], None] = lambda line, message: None,
    ) -> Iterator[TargetScore]:
        """:meth:`score` for any number of pairs in constant memory.

        ``on_problem``: called with a line number (from 1) and the reason if a pair cannot be scored.

        Raises:
            UserError: at once, if the tag is unknown, or missing.
            ModelError: later, if the model computes no finite numbers.
        """
        return self._score_windows(pairs, decode, self._prefix(decode), on_problem)

    def _score_windows(
        self,
        pairs: Iterable[tuple[str, str]],
        decode: DecodeConfig,
        prefix: Sequence[int],
        on_problem: Callable[[int, str], None],
    ) -> Iterator[TargetScore]:
        first, max_length = 1, self.config.data.max_length
        for window in windows_of_pairs(pairs):

            def report(index: int, message: str, first: int = first) -> None:
                on_problem(first + index, message)

            yield from score_pairs(self.engine, self.tokenizers, window, decode, prefix, max_length, report)
            first += len(window)

    def attention(self, text: str, target: str | None = None) -> Attention:
        """The attention weights for one sentence, as arrays.

        Args:
            target: the translation to look at; default: the model's own.

        Raises:
            UserError: a text is blank or too long, or the engine runs several models.
        """
        engine, src = self._inside(text, self.config.decode)
        if target is None:
            return self.explain(text).attention
        tgt = self._one_sentence(target, self.tokenizers.tgt, "the target")
        return attention_of(self.tokenizers, src, tgt, run_once(engine, src, tgt))

    def explain(
        self, text: str, reference: str | None = None, decode: DecodeConfig | None = None, **options: Any
    ) -> Explanation:
        """How the model came to its translation of one sentence: attention, words that it weighed, and the beam.

        Args:
            reference: another translation, to be scored beside the model's.
            decode: beam size and length penalty; default: the settings in the model's config.
            options: as for :meth:`translate`.

        Raises:
            UserError: a text is blank or too long, or the engine runs several models.
        """
        decode = override_decode(decode or self.config.decode, options)
        beam = decode.model_copy(update={"sample": False})
        wanted = self.wanted(beam)
        bare = wanted.bare(text)
        text = bare.text
        engine, src = self._inside(text, decode)
        if reference is not None:
            self._one_sentence(reference, self.tokenizers.tgt, "the reference")
        architecture = self.config.model.architecture
        source = Source(src, (0, 0))
        if terms := wanted.terms(text):
            (found,) = self.engine.search([source], beam, wanted.rules)
            is_there = self._part_translator(beam).has_all(Part(source, bare), found, wanted)
            source = source if is_there else replace(source, terms=terms)
        return explain(engine, self.tokenizers, architecture, text, source, reference, decode, wanted.rules)

    def _inside(self, text: str, decode: DecodeConfig) -> tuple[TorchEngine, list[int]]:
        """The engine, if one can look into its model, and the ids of a source sentence."""
        if not isinstance(self.engine, TorchEngine):
            raise UserError("only decode.engine: torch can look into a model; load it with that")
        if self.engine.num_models > 1:
            raise UserError("an ensemble cannot be explained; load one of its models")
        return self.engine, self._one_sentence(text, self.tokenizers.src, "the sentence", self._prefix(decode))

    def _one_sentence(self, text: str, tokenizer: Tokenizer, name: str, prefix: Sequence[int] = ()) -> list[int]:
        """The ids of a text with what stands before it, and with EOS."""
        (ids,) = tokenizer.encode([text])
        limit = self.config.data.max_length - 1 - len(prefix)
        if not ids or not text.strip():
            raise UserError(f"{name} is blank; give one with words")
        if len(ids) > limit:
            raise UserError(f"{name} has {len(ids):,} tokens, but the model reads at most {limit:,}; shorten it")
        return [*prefix, *ids, EOS_ID]

    def translate_stream(
        self,
        lines: Iterable[str],
        decode: DecodeConfig | None = None,
        on_problem: Callable[[int, str], None] = lambda line, message: None,
        *,
        prefix: Iterable[str] | None = None,
        glossary: Mapping[str, str] | Path | str | None = None,
        **options: Any,
    ) -> Iterator[list[Translation]]:
        """Translate any number of lines in constant memory: one list of ``decode.n_best`` translations per line.

        The texts of a list differ (samples may be equal, unless ``decode.num_samples`` is set). The list is shorter if
        the search finds fewer texts, but never empty. A line that is too long for the model is cut at the ends of
        sentences or clauses; with ``decode.split_sentences``, a line of several sentences is cut, too. The translations
        of the parts are joined.

        Args:
            lines: any iterable of strings, such as a list, a generator or an open file.
            on_problem: called with a line number (from 1) and the reason if a line cannot be translated as requested.
            prefix, glossary, options: as for :meth:`translate`; also ``n_best=3``.

        Raises:
            TypeError: ``lines`` is a single string or no iterable; later, if a line is not a string.
            ConfigError: an option is unknown, or its value is not allowed.
        """
        if decode is not None and not isinstance(decode, DecodeConfig):
            raise TypeError(f"decode must be a DecodeConfig, not {type(decode).__name__}; or write beam_size=2")
        checked, decode = _lines_of(lines), decode or self.config.decode
        if options.get("engine", self.config.decode.engine) != self.config.decode.engine:
            raise UserError('the engine is chosen when a model is loaded: Translator.load(..., engine="ctranslate2")')
        settled = self.engine.settle(override_decode(decode, options) if options else decode, warnings.warn)
        terms: Glossary | None = None
        if isinstance(glossary, (str, Path)):
            terms = self.read_glossary(Path(glossary))
        elif glossary is not None:
            terms = Glossary.of(glossary)
        hint = "prefix must be a list of strings, one for each line, not {}"
        prefixes = None if prefix is None else Prefixes(_lines_of(prefix, hint))
        wanted = self.wanted(settled, prefixes, terms)
        return chain.from_iterable(self.translate_windows(checked, settled, on_problem, wanted=wanted))

    def read_glossary(self, path: Path) -> Glossary:
        """The glossary in a CSV file, for the languages of the model; raises DataError if it cannot be read."""
        data = self.config.data
        return Glossary.read(path, (data.source_language, data.target_language))

    def wanted(
        self, decode: DecodeConfig, prefixes: Prefixes | None = None, glossary: Glossary | None = None
    ) -> Wanted:
        """What is wanted from translations; raises UserError if this model or its engine cannot do it."""
        if not isinstance(self.engine, TorchEngine) and (prefixes is not None or glossary is not None):
            raise UserError("decode.engine: ctranslate2 has no prefixes and glossaries; use decode.engine: torch")
        return Wanted(self._speller, decode, prefixes, glossary, self.config.data.target_language)

    @cached_property
    def _speller(self) -> Speller:
        return Speller(self.tokenizers.tgt)

    def translate_windows(
        self,
        lines: Iterable[str],
        decode: DecodeConfig,
        on_problem: Callable[[int, str], None] = lambda line, message: None,
        done: int = 0,
        none_is_there: Callable[[], bool] = lambda: False,
        wanted: Wanted | None = None,
        token_scores: bool = False,
        on_lines: Callable[[int], None] = lambda count: None,
    ) -> Iterator[list[list[Translation]]]:
        """:meth:`translate_stream` window by window; reads from ``lines`` only the lines of the windows it returns.

        Args:
            done: the number of earlier lines, in whole windows, that were translated before. Line numbers, windows and
                random numbers are then the same as in one uninterrupted translation.
            none_is_there: called after every line; True: translate the lines read so far instead of waiting for more.
            wanted: from :meth:`wanted`; None: only what ``decode`` says.
            token_scores: whether translations have ``lowest``, which takes one more pass over them.
            on_lines: called with the number of lines that were searched since the last call, batch by batch.
        """
        if self.reverse is not None and (decode.choose == "mbr" or decode.num_hypotheses < 2):
            more = "num_samples" if decode.sample else "beam_size"
            what = "choose: score, not mbr" if decode.choose == "mbr" else f"several candidates; raise {more}"
            raise UserError(f"a reverse model needs {what}")
        wanted = wanted or self.wanted(decode)
        for window in windows_of(lines, none_is_there):
            yield self._translate_window(window, done, decode, on_problem, wanted, token_scores, on_lines)
            done += len(window)
        if wanted.prefixes is not None:
            wanted.prefixes.finish()

    def identity(self) -> dict[str, str]:
        """Everything about a loaded model that affects its translations; it does not depend on the folder's name."""
        parts = [
            self.metadata,  # with the weights' checksum
            self.tokenizers.fingerprint,
            self.config.model.model_dump(mode="json"),
            self.config.data.max_length,
            script_of(self.config.data.target_language),
        ]
        own = {"model": checksum(json.dumps(parts, sort_keys=True).encode()), **self.engine.identity}
        return own if self.reverse is None else {**own, **self.reverse.identity()}

    def _translate_window(
        self,
        lines: list[str],
        first: int,
        decode: DecodeConfig,
        on_problem: Callable[[int, str], None],
        wanted: Wanted,
        token_scores: bool,
        on_lines: Callable[[int], None],
    ) -> list[list[Translation]]:
        prefixes = wanted.prefixes.next(len(lines)) if wanted.prefixes is not None else [""] * len(lines)
        parts = self._parts_of(lines, prefixes, first, decode, on_problem, wanted)
        left = Counter(part.source.key[0] for part in parts)  # parts of each line that were not searched yet
        on_lines(len(lines) - len(left))  # blank ones

        def on_found(some: Sequence[Source]) -> None:
            left.subtract(source.key[0] for source in some)
            on_lines(sum(left[line] == 0 for line in {source.key[0] for source in some}))

        translator = self._part_translator(decode)
        translated = translator.translate(
            parts, decode, wanted, token_scores=token_scores, on_found=on_found, on_problem=on_problem
        )
        found: list[list[list[Translation]]] = [[] for _ in lines]
        cut: dict[int, str] = {}
        for part, translations in zip(parts, translated, strict=True):
            line = part.source.key[0]
            found[line - first].append(translations)
            if translations[0].cut:
                cut.setdefault(line + 1, translator.limit_reached(part, decode))
        for number, message in cut.items():
            on_problem(number, message)
        results = [joined(translations, self.config.data.target_language, decode) for translations in found]
        for index, (text, some) in enumerate(zip(lines, results, strict=True)):
            if not found[index] and wanted.bare(text).elements:  # there are no words beside them
                some[:] = [replace(one, text=text.strip()) for one in some]
            wanted.check(text, [one.text for one in some], prefixes[index], partial(on_problem, first + index + 1))
        return results

    def _parts_of(
        self,
        lines: list[str],
        prefixes: Sequence[str],
        first: int,
        decode: DecodeConfig,
        on_problem: Callable[[int, str], None],
        wanted: Wanted,
    ) -> list[Part]:
        """The parts of all lines that have words; ``first``: the number of earlier lines."""
        tag = self._prefix(decode)
        limit = self.config.data.max_length - 1 - len(tag)  # room for EOS
        parts: list[Part] = []
        for index, sentences in enumerate(self._encode(lines, decode, prefixes)):
            pieces: list[tuple[str, list[int]]] = []
            for text, ids in sentences:
                pieces += cut_to_fit(text, limit, self.tokenizers.src) if len(ids) > limit else [(text, ids)]
            if len(pieces) > len(sentences):
                on_problem(first + index + 1, f"longer than {limit} tokens; translated in {len(pieces)} parts")
            prefix = prefixes[index]  # for the first part with words
            for number, (text, ids) in enumerate(pieces):
                bare = Bare(text, ()) if prefix.strip() else wanted.bare(text)
                if bare.elements:
                    (ids,) = self.tokenizers.src.encode([bare.text if bare.text.strip() else ""])
                if not ids:
                    continue
                whole, beginning = [*tag, *ids, EOS_ID], None
                if prefix.strip():
                    longest = self.engine.longest_output(len(whole), decode)
                    beginning, prefix = wanted.beginning(prefix, first + index + 1, longest), ""
                source = Source(whole, (first + index, number), beginning, wanted.terms(bare.text))
                parts.append(Part(source, bare))
        return parts

    def _encode(
        self, lines: list[str], decode: DecodeConfig, prefixes: Sequence[str]
    ) -> list[list[tuple[str, list[int]]]]:
        """Text and ids of every line, or of each of its sentences.

        A line whose translation begins with several sentences stays whole: nobody knows which of its own they are.
        """
        texts = [[line if line.strip() else ""] for line in lines]  # white space has no translation
        if decode.split_sentences is True:
            source, target = self.config.data.source_language, self.config.data.target_language
            for index, prefix in enumerate(prefixes):
                if len(split_sentences(prefix, target)) == 1:
                    texts[index] = split_sentences(texts[index][0], source)
        encoded = iter(self.tokenizers.src.encode([text for sentences in texts for text in sentences]))
        return [[(text, next(encoded)) for text in sentences] for sentences in texts]

    def _part_translator(self, decode: DecodeConfig) -> PartTranslator:
        return PartTranslator(self.engine, self.tokenizers, self.reverse, len(self._prefix(decode)))

    def _prefix(self, decode: DecodeConfig) -> list[int]:
        """The ids before every source sentence; raises UserError if the tag is unknown, or missing."""
        data = self.config.data
        if decode.tag is None and all(text.tag is not None for text in data.train):
            raise UserError(f"the model needs a tag before every sentence: {', '.join(data.tags)} (decode.tag, --tag)")
        return self.tokenizers.src.prefix(decode.tag)

    def with_elements(
        self,
        bares: Sequence[Bare],
        translations: Sequence[str],
        decode: DecodeConfig,
        written: Callable[[str], str] = str,
    ) -> list[str]:
        """The translations of bare sentences with what was taken out of these, where the model looked from.

        Args:
            decode: only the tag counts.
            written: how the translations themselves are written, such as escaped.

        Raises:
            UserError: a text is blank or too long, or the engine runs several models.
        """
        parts = [Part(Source(self._inside(bare.text, decode)[1], (0, 0)), bare) for bare in bares]
        targets = [self._one_sentence(text, self.tokenizers.tgt, "the translation")[:-1] for text in translations]
        return self._part_translator(decode).with_elements(parts, targets, translations, written)
