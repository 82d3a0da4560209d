"""Text to text: the Python API, and the promise of exactly one output for each input, in order.

Lines are read in windows, sorted by length within a window, decoded in batches, and given back in their order; memory
does not grow with the input.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from seq2seq.config import Config, DecodeConfig
from seq2seq.data.packed import pack_sentences
from seq2seq.data.symbols import BOS_ID, EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.decode.search import Hypothesis, SearchOptions, SearchState, search
from seq2seq.decode.sentences import split_sentences
from seq2seq.decode.stepper import EagerStepper, GraphStepper, begin
from seq2seq.device import choose_device, compute_dtype
from seq2seq.errors import ModelError, UserError
from seq2seq.files import checksum
from seq2seq.languages import CUTS, joiner, script_of
from seq2seq.memory import memory_explained
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.model.quantize import is_int8_slow, quantize, with_weights_in
from seq2seq.model.state import round_up
from seq2seq.model.transformer import Transformer
from seq2seq.model_folder import load_model_folder

WINDOW_LINES = 4096
WINDOW_CHARACTERS = 1 << 22  # eight times as many as 4,096 usual lines have
_PROCESS = os.getpid()  # a forked child has another number than the process that loaded this module
_SMALLEST_SHARE = 1024  # tokens times beam size: below it, the matrices of a step are too small for one thread


@dataclass(frozen=True)
class Translation:
    """One output. ``score`` is what hypotheses are ranked by: log-probability over length penalty."""

    text: str
    score: float
    log_prob: float  # natural logarithm, of all tokens
    cut: bool = False  # it reached its length limit before it was complete


@dataclass(frozen=True)
class _Part:
    """A line, or a part of one too long for the model."""

    line: int  # index in the window
    ids: list[int]  # with EOS
    key: tuple[int, int]  # (line of the whole input, part): what seeds its sampling


def _windows(lines: Iterable[str], none_is_there: Callable[[], bool]) -> Iterator[list[str]]:
    """Neither many lines nor long ones may fill the memory, and what is there does not wait for what is not."""
    window: list[str] = []
    num_characters = 0
    for line in lines:
        window.append(line)
        num_characters += len(line)
        if len(window) == WINDOW_LINES or num_characters >= WINDOW_CHARACTERS or none_is_there():
            yield window
            window, num_characters = [], 0
    if window:
        yield window


def _checked(lines: Iterable[str]) -> Iterator[str]:
    """The same lines; raises TypeError for anything else, which would be translated as something that it is not."""
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, str):
            raise TypeError(f"line {number} is {type(line).__name__}, not str")
        yield line


def _distinct(translations: list[Translation]) -> list[Translation]:
    """Without those whose text has come before: a text can be cut into pieces in several ways."""
    first: dict[str, Translation] = {}
    for translation in translations:
        first.setdefault(translation.text, translation)
    return list(first.values())


def _compute_in_fork(device: torch.device) -> None:
    """In a forked child, compute on one thread: PyTorch would wait for those of its parent, which it has not.

    Raises:
        UserError: the device is CUDA, which a forked child cannot use at all.
    """
    if os.getpid() == _PROCESS:
        return
    if device.type != "cpu":
        raise UserError("CUDA does not work in a forked process; start the process with spawn or forkserver instead")
    torch.set_num_threads(1)


def _describe(parts: list[_Part], beam_size: int, decode: DecodeConfig) -> str:
    """A search under way and what to change where it is too large."""
    return (
        f"a search of {len(parts):,} lines with {beam_size} hypotheses each, up to {max(len(p.ids) for p in parts):,} "
        f"tokens a line: lower decode.batch_tokens ({decode.batch_tokens}) or the number of hypotheses "
        f"(decode.{'n_best' if decode.sample else 'beam_size'})"
    )


class Translator:
    """A trained model, ready to translate.

    >>> Translator.load("runs/multi30k").translate(["A man rides a horse."])
    ['Ein Mann reitet auf einem Pferd.']
    """

    def __init__(
        self, model: Transformer, config: Config, tokenizers: TokenizerPair, dtype: torch.dtype | None = None
    ) -> None:
        """Translate with ``model`` on the device it is on, computing in ``dtype``; None: what is best there.

        In bf16 on CUDA with the weights of now: they are copied.
        """
        self.metadata: dict[str, str] = {}  # of the model folder, if the model comes from one
        self.edited: tuple[str, ...] = ()  # what of its settings was edited since it was written
        self.model = model
        self.config = config
        self.tokenizers = tokenizers
        self.device = model.output_weight.device
        self._quantized: Transformer | None = None  # made when it is first needed
        self._dtype = compute_dtype("auto", self.device) if dtype is None else dtype
        self._graphs: Graphs | None = None
        if self.device.type == "cuda":
            self._graphs = Graphs(self.device)
            self._model_of_graphs = with_weights_in(self._dtype, model)
        self._graphs_lock = threading.Lock()

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", precision: str = "auto") -> Translator:
        """Load a run folder (its best model) or a model folder.

        Args:
            device: "cpu", "cuda", or "auto" (CUDA where there is one).
            precision: "fp32", "bf16", or "auto" (bf16 on CUDA, fp32 on the CPU).

        Raises:
            ModelError: the folder is missing, incomplete or damaged.
            UserError: there is no CUDA device.
        """
        chosen = choose_device(device)
        _compute_in_fork(chosen)
        loaded = load_model_folder(Path(path))
        dtype = compute_dtype(precision, chosen)
        translator = cls(loaded.model.to(chosen), loaded.config, loaded.tokenizers, dtype)
        translator.metadata = loaded.metadata
        translator.edited = loaded.edited
        return translator

    def translate(self, lines: Sequence[str], decode: DecodeConfig | None = None) -> list[str]:
        """The best translation of every line; a blank line gives an empty one.

        Args:
            lines: a list of strings; a single string is refused.
            decode: how to search; default: as the model's config says.

        Raises:
            TypeError: ``lines`` is no list of strings.
        """
        return [translations[0].text for translations in self.translate_stream(lines, decode)]

    def translate_stream(
        self,
        lines: Iterable[str],
        decode: DecodeConfig | None = None,
        on_problem: Callable[[int, str], None] = lambda line, message: None,
    ) -> Iterator[list[Translation]]:
        """Translate any number of lines in flat memory: one list of ``decode.n_best`` translations for each, in order.

        A list holds different texts (samples may be equal), so it is shorter where the search finds fewer; it is never
        empty. A line longer than the model was trained for is cut at the ends of sentences or clauses, one of several
        sentences where ``decode.split_sentences`` says so; the translations of its parts are joined.

        Args:
            on_problem: called with the number of a line (from 1) that could not be translated as asked, and why.

        Raises:
            TypeError: ``lines`` is a single string, or one of them is no string.
        """
        for window in self.translate_windows(lines, self.settle(decode or self.config.decode), on_problem):
            yield from window

    def translate_windows(
        self,
        lines: Iterable[str],
        decode: DecodeConfig,
        on_problem: Callable[[int, str], None] = lambda line, message: None,
        done: int = 0,
        none_is_there: Callable[[], bool] = lambda: False,
    ) -> Iterator[list[list[Translation]]]:
        """:meth:`translate_stream` window by window; no more is read from ``lines`` than the windows given out hold.

        Args:
            done: the number of lines before these that were translated at another time, all of them whole windows.
                Line numbers, windows and random numbers are then the same as if all had been translated now.
            none_is_there: asked after every line whether to translate those that have come, rather than wait for more.
        """
        if isinstance(lines, (str, bytes)) or not isinstance(lines, Iterable):
            raise TypeError(f'lines must be a list of strings, not {type(lines).__name__}: translate(["..."])')
        for window in _windows(_checked(lines), none_is_there):
            yield self._translate_window(window, done, decode, on_problem)
            done += len(window)

    def settle(self, decode: DecodeConfig, say: Callable[[str], None] = warnings.warn) -> DecodeConfig:
        """``decode`` as this machine will carry it out: in fp32 where int8 would be slower. ``say`` gets the reason."""
        if decode.quantize is None or self.device.type != "cpu" or not is_int8_slow():
            return decode
        say("int8 is slower than fp32 on this CPU, which has no fast int8 products (VNNI); translating in fp32")
        return decode.model_copy(update={"quantize": None})

    def identity(self) -> dict[str, str]:
        """What of a loaded model decides its translations: equal where they are, whatever its folder is called."""
        config = [
            self.config.model.model_dump(mode="json"),
            self.config.data.max_length,
            script_of(self.config.data.target_language),
        ]
        parts = json.dumps([self.metadata, self.tokenizers.fingerprint, *config], sort_keys=True)
        model = checksum(parts.encode())  # the metadata hold the weights' checksum
        precision = "bf16" if self._dtype == torch.bfloat16 else "fp32"
        return {"model": model, "device": self.device.type, "precision": precision}

    def _translate_window(
        self, lines: list[str], first: int, decode: DecodeConfig, on_problem: Callable[[int, str], None]
    ) -> list[list[Translation]]:
        _compute_in_fork(self.device)
        limit = self.config.data.max_length - 1  # room for EOS
        parts: list[_Part] = []
        filled = [line if line.strip() else "" for line in lines]  # white space of any kind has no translation
        for index, sentences in enumerate(self._encode(filled, decode)):
            pieces: list[list[int]] = []
            for text, ids in sentences:
                pieces += self._cut(text, limit) if len(ids) > limit else [ids]
            if len(pieces) > len(sentences):
                on_problem(first + index + 1, f"longer than {limit} tokens; translated in {len(pieces)} parts")
            for number, piece in enumerate(pieces):
                if piece:
                    parts.append(_Part(index, [*piece, EOS_ID], (first + index, number)))
        found: list[list[list[Translation]]] = [[] for _ in lines]
        cut: dict[int, str] = {}
        translated = self._translate_parts(parts, decode)
        for part, translations in zip(parts, translated, strict=True):
            found[part.line].append(translations)
            if translations[0].cut:
                cut.setdefault(part.line, self._limit_reached(part, decode))
        for index, message in cut.items():
            on_problem(first + index + 1, message)
        return [self._join(translations, decode) for translations in found]

    def _encode(self, lines: list[str], decode: DecodeConfig) -> list[list[tuple[str, list[int]]]]:
        """The text and the ids of every line, or of every sentence in it."""
        texts = [[line] for line in lines]
        if decode.split_sentences is True:
            language = self.config.data.source_language
            texts = [split_sentences(line, language) for line in lines]
        encoded = iter(self.tokenizers.src.encode([text for sentences in texts for text in sentences]))
        return [[(text, next(encoded)) for text in sentences] for sentences in texts]

    def _longest_output(self, part: _Part, decode: DecodeConfig) -> int:
        """In tokens, EOS included."""
        longest = int(len(part.ids) * decode.max_length_ratio) + decode.max_length_offset
        return max(1, min(longest, self.model.max_length or longest))

    def _limit_reached(self, part: _Part, decode: DecodeConfig) -> str:
        longest = self._longest_output(part, decode)
        advice = "which is the model's" if longest == self.model.max_length else "raise decode.max_length_ratio"
        return f"the translation reached its length limit of {longest} tokens; {advice}"

    def _translate_parts(self, parts: list[_Part], decode: DecodeConfig) -> list[list[Translation]]:
        """Longest first, in batches of like lengths; results in the order of ``parts``."""
        order = sorted(range(len(parts)), key=lambda i: -len(parts[i].ids))
        beam_size = decode.n_best if decode.sample else decode.beam_size
        budget = decode.batch_tokens
        if self.device.type == "cpu":  # every thread should have a batch, unless they would be very small
            share = beam_size * sum(len(part.ids) for part in parts) // torch.get_num_threads()
            budget = min(budget, max(share, _SMALLEST_SHARE))
        batches: list[list[int]] = []
        while order:
            size = max(1, budget // (beam_size * len(parts[order[0]].ids)))
            batches.append(order[:size])
            order = order[size:]
        results: list[list[Translation]] = [[] for _ in parts]
        found = self._search_all([[parts[i] for i in batch] for batch in batches], decode)
        for batch, searched in zip(batches, found, strict=True):
            for i, hypotheses in zip(batch, searched, strict=True):
                if not hypotheses:  # every sentence ends at its longest length, so there was no number to rank by
                    raise ModelError("the model computes no finite numbers: its weights are damaged or have diverged")
                best = hypotheses[: 1 if decode.n_best == 1 else None]
                texts = self.tokenizers.tgt.decode_batch([hypothesis.ids for hypothesis in best])
                results[i] = [Translation(t, h.score, h.log_prob, h.cut) for t, h in zip(texts, best, strict=True)]
                if not decode.sample:
                    results[i] = _distinct(results[i])[: decode.n_best]
        return results

    def _search_all(self, batches: list[list[_Part]], decode: DecodeConfig) -> Iterator[list[list[Hypothesis]]]:
        """Search batch by batch; on the CPU as many at a time as PyTorch has threads, on one thread each.

        The matrices of a step are small: four threads that share each of them take half the time of one thread, four
        that have a batch each a quarter.
        """
        model = self._model_for(decode)
        num_threads = torch.get_num_threads()
        if len(batches) < 2 or num_threads == 1 or self.device.type != "cpu":
            yield from (self._search(model, batch, decode) for batch in batches)
            return
        with ThreadPoolExecutor(min(num_threads, len(batches)), initializer=lambda: torch.set_num_threads(1)) as pool:
            try:
                yield from pool.map(lambda batch: self._search(model, batch, decode), batches)
            finally:
                torch.set_num_threads(num_threads)  # the workers have changed what threads to come start with

    def _model_for(self, decode: DecodeConfig) -> Transformer:
        if decode.quantize is None:
            return self.model if self._graphs is None else self._model_of_graphs
        if self.device.type != "cpu":
            raise UserError(f"decode.quantize: {decode.quantize} is for the CPU; set it to null or use device cpu")
        if self._quantized is None:
            self._quantized = quantize(self.model)
        return self._quantized

    @torch.inference_mode()
    def _search(self, model: Transformer, parts: list[_Part], decode: DecodeConfig) -> list[list[Hypothesis]]:
        max_lengths = [self._longest_output(part, decode) for part in parts]
        beam_size, uniforms = decode.beam_size, None
        if decode.sample:  # random numbers belong to the line, so that its samples do not depend on its batch
            beam_size = decode.n_best
            uniforms = np.zeros((len(parts), beam_size, max(max_lengths)))
            for row, part in enumerate(parts):
                rng = np.random.Generator(np.random.PCG64([decode.seed, *part.key]))
                uniforms[row, :, : max_lengths[row]] = rng.random((max_lengths[row], beam_size)).T
        options = SearchOptions(
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            beam_size=beam_size,
            first_id=EOS_ID,  # before it are padding, unknown and BOS, which no training text holds
            temperature=decode.temperature,
            top_k=decode.top_k,
            top_p=decode.top_p,
        )
        # Kernels add up in vectors of 16: over whole ones a sum is the same to the last bit, however many masked ones
        # follow. Rounding to int8 needs that, as it makes large differences of the least ones; it is no slower.
        longest = max(len(part.ids) for part in parts)
        grid_length = -(-longest // 16) * 16 if self._graphs is None else round_up(longest, 16)
        grid_length = min(grid_length, model.max_length or grid_length)
        src = pack_sentences([part.ids for part in parts], grid_length).to(self.device)
        lock = nullcontext() if self._graphs is None else self._graphs_lock  # graphs are of one search at a time
        with memory_explained(partial(_describe, parts, beam_size, decode)), self._autocast(), lock:
            state = begin(model, src, max_lengths, options, uniforms)
            stepper: SearchState = EagerStepper(model, state, options)
            if self._graphs is not None:
                stepper = GraphStepper(self._graphs, model, state, options)
            return search(stepper, max_lengths, beam_size, decode.length_penalty)

    def _autocast(self) -> AbstractContextManager[object]:
        """On CUDA without its cache: what a graph computes must not outlive it, and the weights are cast already."""
        lower, cached = self._dtype != torch.float32, self._graphs is None
        return torch.autocast(self.device.type, self._dtype, cache_enabled=cached) if lower else nullcontext()

    def _cut(self, line: str, limit: int) -> list[list[int]]:
        """Halve a line until its parts have at most ``limit`` tokens each, at the best place near the middle."""
        (ids,) = self.tokenizers.src.encode([line])
        if len(ids) <= limit or len(line) < 2:
            return [ids[:limit]]  # a single character of more tokens than that does not exist in real models
        middle = len(line) // 2
        for pattern in CUTS:
            ends = [match.end() for match in pattern.finditer(line)]
            ends = [end for end in ends if len(line) // 4 < end < 3 * len(line) // 4]
            if ends:
                middle = min(ends, key=lambda end: abs(end - middle))
                break
        return self._cut(line[:middle], limit) + self._cut(line[middle:], limit)

    def _join(self, parts: list[list[Translation]], decode: DecodeConfig) -> list[Translation]:
        """The translations of a line from those of its parts: the best with the best, the second with the second."""
        if not parts:
            return [Translation("", 0.0, 0.0)] * (decode.n_best if decode.sample else 1)
        if len(parts) == 1:
            return parts[0]
        joined = []
        for ranked in zip(*parts):  # noqa: B905 - as far as every part has one of that rank
            text, language = ranked[0].text, self.config.data.target_language
            for translation in ranked[1:]:
                text += joiner(language, text, translation.text) + translation.text
            score, log_prob = sum(t.score for t in ranked), sum(t.log_prob for t in ranked)
            joined.append(Translation(text, score, log_prob, any(t.cut for t in ranked)))
        return joined if decode.sample else _distinct(joined)
