"""Engines that compute hypotheses from source ids: batches, threads, dtype, int8; no text.

:class:`Engine` is the interface that ``Translator`` uses; :class:`TorchEngine` is this package's implementation.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, groupby
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from seq2seq.config import DecodeConfig
from seq2seq.data.packed import pack_sentences
from seq2seq.decode.constraints import Bans, Beginning, Beginnings, Constraint, Rules
from seq2seq.decode.scoring import batches_of_pairs, teacher_forced, token_log_probs
from seq2seq.decode.search import Hypothesis, SearchState, search
from seq2seq.decode.stepper import Constraints, EagerStepper, GraphStepper, begin, without_free_rows
from seq2seq.decode.terms import Term, Terms, beam_for
from seq2seq.device import compute_dtype
from seq2seq.errors import UserError
from seq2seq.memory import memory_explained
from seq2seq.model.ensemble import Ensemble
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.model.quantize import int8_layer, linear_shapes, quantize, update_weights, with_weights_in
from seq2seq.model.state import round_up

T = TypeVar("T")
R = TypeVar("R")

_PROCESS = os.getpid()  # the process that loaded this module; a forked child has another number
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
# The default of decode.batch_tokens. A GPU computes a step of many sentences in hardly more time than one of a few.
_BATCH_TOKENS = {"cpu": 8_192, "cuda": 65_536}
_SAMPLE_TOKENS = 16_384  # the same for sampling on CUDA, which sorts the vocabulary of every hypothesis in float64
_GRID = 16  # padded lengths of sources are multiples of it
_NO_RULES = Rules()
OnFound: TypeAlias = Callable[[Sequence["Source"]], None]
_LOOK = 1024  # tokens of a batch to look into; the weights of all layers and heads are kept
_SMALLEST_SHARE = 1024  # tokens times beam size; in smaller batches a step's matrices are too small for one thread


@dataclass(frozen=True)
class Source:
    """A sentence to translate."""

    ids: list[int]  # with EOS
    key: tuple[int, int]  # part of the seed for sampling
    beginning: Beginning | None = None  # of its translation
    terms: tuple[Term, ...] = ()  # that its translation must have; not for sampling


def unnoticed(sources: Sequence[Source]) -> None:
    """The default of ``on_found``: nobody follows the progress of a search."""


class Engine(Protocol):
    """The interface of an engine. Only one thread may call it at a time, unless the engine allows more."""

    def search(
        self,
        sources: Sequence[Source],
        decode: DecodeConfig,
        rules: Rules = _NO_RULES,
        on_found: OnFound = unnoticed,
    ) -> list[list[Hypothesis]]:
        """The best finished hypothesis of each source; with ``decode.n_best`` above 1, all of them, best first.

        They do not depend on the other sources. A list is empty if the model's numbers are not finite. If no
        translation has all terms of a source within its length, it is translated without them.

        Args:
            rules: ``decode.suppress`` in pieces, and what the beginnings and terms of sources need.
            on_found: called with the sources of each batch that was searched; every source once.
        """

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], decode: DecodeConfig
    ) -> list[NDArray[np.float64]]:
        """The log-probability of each token of each target, in nats; all ids are with EOS.

        They do not depend on the other pairs. Of ``decode``, only the precision and the size of batches count.
        """

    def longest_output(self, num_source_tokens: int, decode: DecodeConfig) -> int:
        """The maximum number of output tokens, EOS included, for a source of ``num_source_tokens``."""

    def settle(self, decode: DecodeConfig, say: Callable[[str], None]) -> DecodeConfig:
        """The options that this engine will use instead of ``decode``; ``say`` gets the reason for each change."""

    @property
    def identity(self) -> dict[str, str]:
        """Everything that affects the hypotheses, except the model, the sources and the options."""

    @property
    def num_parameters(self) -> int:
        """The number of weights of the model."""


def compute_in_fork(device: torch.device) -> None:
    """Set PyTorch to one thread in a forked child: it would wait for its parent's threads, which do not exist there.

    Raises:
        UserError: the device is CUDA, which a forked child cannot use.
    """
    if os.getpid() == _PROCESS:
        return
    if device.type != "cpu":
        raise UserError("CUDA does not work in a forked process; start the process with spawn or forkserver instead")
    torch.set_num_threads(1)


def _describe(sources: Sequence[Source], decode: DecodeConfig, batch_tokens: int) -> str:
    """The size of a search and which settings make it smaller, for an error message."""
    more = "beam_size" if not decode.sample else "n_best" if decode.num_samples is None else "num_samples"
    return (
        f"a search of {len(sources):,} lines with {decode.num_hypotheses} hypotheses each and up to "
        f"{max(len(source.ids) for source in sources):,} tokens per line: lower decode.batch_tokens "
        f"({batch_tokens}) or the number of hypotheses (decode.{more})"
    )


def widened(decode: DecodeConfig, source: Source) -> DecodeConfig:
    """``decode`` as a source with terms needs it: with more hypotheses, and ranked by log-probability alone.

    A term that the model does not expect has a very low log-probability, and a penalty for length divides it. So each
    word that is added to the translation would raise its score, whatever it is.
    """
    if not source.terms:
        return decode
    return decode.model_copy(update={"beam_size": beam_for(source.terms, decode.beam_size), "length_penalty": 0.0})


@dataclass(frozen=True)
class Batch:
    """Sources that are searched together."""

    sources: list[Source]
    decode: DecodeConfig
    enough: int  # finished hypotheses of a sentence
    rules: Rules

    def constraints(self, num_steps: int) -> Constraints:
        """What the search must obey; nothing if there is nothing."""
        parts: list[Constraint] = []
        rules, decode, terms = self.rules, self.decode, None
        beginnings = [source.beginning for source in self.sources]
        if any(beginnings):
            assert rules.table is not None
            parts.append(Beginnings(beginnings, rules.table))
        if rules.banned or decode.no_repeat_ngram:
            parts.append(Bans(rules.banned, decode.no_repeat_ngram, len(self.sources), num_steps))
        if self.sources[0].terms:
            assert rules.table is not None
            terms = Terms([source.terms for source in self.sources], rules.table)
            parts.append(terms)
        return Constraints(tuple(parts), terms)


class TorchEngine:
    """An :class:`Engine` for a model of this package, on the model's device."""

    def __init__(self, model: Seq2SeqModel | Sequence[Seq2SeqModel], dtype: torch.dtype | None = None) -> None:
        """``model``: several make an ensemble; ``dtype``: to compute in, or None: the best one for the device.

        See :meth:`update`.
        """
        if not isinstance(model, Seq2SeqModel):
            model = model[0] if len(model) == 1 else Ensemble(model)
        self.model = self._original = model
        self.device = next(model.parameters()).device
        self._dtype = compute_dtype("auto", self.device) if dtype is None else dtype
        self._graphs: Graphs | None = None
        if self.device.type == "cuda":
            self._graphs = Graphs(self.device)
            self.model = with_weights_in(self._dtype, model)
        self._graphs_lock = threading.Lock()

    @property
    def num_models(self) -> int:
        """More than 1 for an ensemble."""
        return len(self.model.members) if isinstance(self.model, Ensemble) else 1

    def update(self) -> None:
        """Use the present weights of the model; on CUDA the engine has a copy of them. Its graphs stay."""
        if self.model is not self._original:
            update_weights(self.model, self._original)

    @property
    def identity(self) -> dict[str, str]:
        """Device and precision."""
        return {"device": self.device.type, "precision": _NAMES[self._dtype]}

    @property
    def num_parameters(self) -> int:
        """Tied weights count once."""
        return sum(parameter.numel() for parameter in self._original.parameters())

    def settle(self, decode: DecodeConfig, say: Callable[[str], None]) -> DecodeConfig:
        """Replace int8 by fp32 where int8 is not faster."""
        if decode.quantize is None or self.device.type != "cpu" or self._int8_layer is not None:
            return decode
        say("int8 is not faster than fp32 with a model of this size on this CPU; translating in fp32")
        return decode.model_copy(update={"quantize": None})

    def longest_output(self, num_source_tokens: int, decode: DecodeConfig) -> int:
        """See :class:`Engine`; at most the number of positions that the model has."""
        longest = int(num_source_tokens * decode.max_length_ratio) + decode.max_length_offset
        return max(1, min(longest, self.model.max_length or longest))

    def batch_tokens(self, decode: DecodeConfig) -> int:
        """``decode.batch_tokens``, or the default for the device."""
        default = _BATCH_TOKENS[self.device.type]
        return decode.batch_tokens or (min(default, _SAMPLE_TOKENS) if decode.sample else default)

    def search(
        self,
        sources: Sequence[Source],
        decode: DecodeConfig,
        rules: Rules = _NO_RULES,
        on_found: OnFound = unnoticed,
    ) -> list[list[Hypothesis]]:
        """Search in batches of similar lengths, longest sources first.

        Sources with terms have batches of their own, because more hypotheses are kept for them.
        """
        compute_in_fork(self.device)
        sources = [source if self._has_room(source, decode) else replace(source, terms=()) for source in sources]
        beams = [beam_for(source.terms, decode.num_hypotheses) for source in sources]
        order = sorted(range(len(sources)), key=lambda i: (beams[i], -len(sources[i].ids)))
        batches: list[Batch] = []
        for _, some in groupby(order, key=beams.__getitem__):
            alike = [sources[i] for i in some]
            wide = widened(decode, alike[0])
            batches += [Batch(batch, wide, decode.num_hypotheses, rules) for batch in self._batches(alike, wide)]
        found = dict(zip(order, chain.from_iterable(self._search_all(batches, on_found)), strict=True))
        failed = [i for i, source in enumerate(sources) if source.terms and not found[i]]
        if failed:
            without = self.search([replace(sources[i], terms=()) for i in failed], decode, rules)
            found |= zip(failed, without, strict=True)
        return [found[i] for i in range(len(sources))]

    def _has_room(self, source: Source, decode: DecodeConfig) -> bool:
        """Whether the longest translation can have each term of a source; a beam for thousands of pieces is useless."""
        longest = max((term.fewest_pieces for term in source.terms), default=0)
        return longest < self.longest_output(len(source.ids), decode)

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], decode: DecodeConfig
    ) -> list[NDArray[np.float64]]:
        """Score in batches of similar lengths, longest pairs first."""
        compute_in_fork(self.device)
        lengths = [(len(source), len(target)) for source, target in zip(sources, targets, strict=True)]
        budget = self._share(self.batch_tokens(decode), sum(map(max, lengths)))
        batches = batches_of_pairs(lengths, budget)
        model = self._model_for(decode)
        found: list[NDArray[np.float64]] = [np.empty(0)] * len(lengths)
        work = [([sources[pair] for pair in batch], [targets[pair] for pair in batch]) for batch in batches]
        for batch, scored in zip(batches, self._each(partial(self._score, model), work), strict=True):
            for pair, log_probs in zip(batch, scored, strict=True):
                found[pair] = log_probs
        return found

    @torch.inference_mode()
    def _score(
        self, model: Seq2SeqModel, pairs: tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]
    ) -> list[NDArray[np.float64]]:
        sources, targets = pairs
        longest_src, longest_tgt = (max(map(len, side)) for side in pairs)
        batch = teacher_forced(sources, targets, (self._grid_length(longest_src), self._grid_length(longest_tgt)))
        shape = f"scoring {len(targets):,} pairs of up to {longest_src:,} and {longest_tgt:,} tokens"
        with memory_explained(lambda: f"{shape}: lower decode.batch_tokens"), self.autocast():
            log_probs = token_log_probs(model, batch.to(self.device)).double().cpu().numpy()
        return np.split(log_probs, np.cumsum([len(target) for target in targets])[:-1])

    @torch.inference_mode()
    def alignments(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        """Where the model looked for each token of each target, [T, S]; all ids are with EOS.

        It is the mean over layers and heads; of an ensemble, that of its first model. A model without attention looks
        from the first token to the last.
        """
        compute_in_fork(self.device)
        model = self.model.members[0] if isinstance(self.model, Ensemble) else self.model
        assert isinstance(model, Seq2SeqModel)
        found: list[NDArray[np.float64]] = [np.empty(0)] * len(sources)
        lengths = [(len(source), len(target)) for source, target in zip(sources, targets, strict=True)]
        for pairs in batches_of_pairs(lengths, _LOOK):  # not in threads: hooks look into the model
            longest = [self._grid_length(max(lengths[pair][side] for pair in pairs)) for side in (0, 1)]
            some, others = ([side[pair] for pair in pairs] for side in (sources, targets))
            batch = teacher_forced(some, others, (longest[0], longest[1])).to(self.device)
            with self.autocast():
                _, maps = model.attention_maps(batch)
            means = maps["cross"].mean(dim=(1, 2)).double().cpu().numpy() if "cross" in maps else None
            for row, pair in enumerate(pairs):
                num_source, num_target = lengths[pair]
                places = np.linspace(0, num_source - 1, num_target).round().astype(int)
                found[pair] = np.eye(num_source)[places] if means is None else means[row, :num_target, :num_source]
        return found

    def _share(self, budget: int, num_tokens: int) -> int:
        """The size of batches; on the CPU every thread gets one, unless the batches become very small."""
        if self.device.type != "cpu":
            return budget
        return min(budget, max(num_tokens // torch.get_num_threads(), _SMALLEST_SHARE))

    def _batches(self, left: list[Source], decode: DecodeConfig) -> list[list[Source]]:
        """Cut sources, longest first, into batches."""
        beam_size = decode.num_hypotheses
        budget = self._share(self.batch_tokens(decode), beam_size * sum(len(source.ids) for source in left))
        batches: list[list[Source]] = []
        while left:
            longest = len(left[0].ids)
            size = max(1, budget // (beam_size * longest))
            if self._graphs is not None:  # shorter ones are padded, which takes memory, too
                size = without_free_rows(max(1, budget // (beam_size * max(longest, _GRID))))
            batches.append(left[:size])
            left = left[size:]
        return batches

    def _grid_length(self, longest: int) -> int:
        """The length to pad sources to, the longest of which has ``longest`` tokens.

        Kernels add in vectors of 16 numbers. If the length is a multiple of 16, more padding does not change any bit of
        a sum. int8 needs that, because rounding can make a tiny difference large; it does not cost time.
        """
        length = -(-longest // _GRID) * _GRID if self._graphs is None else round_up(longest, _GRID)
        return min(length, self.model.max_length or length)

    def _search_all(self, batches: list[Batch], on_found: OnFound) -> Iterator[list[list[Hypothesis]]]:
        if not batches:
            return
        found = self._each(partial(self._search, self._model_for(batches[0].decode)), batches)
        for batch, hypotheses in zip(batches, found, strict=True):
            on_found(batch.sources)
            yield hypotheses

    def _model_for(self, decode: DecodeConfig) -> Seq2SeqModel:
        """The model, or its int8 copy."""
        if decode.quantize is not None and self.device.type != "cpu":
            raise UserError(f"decode.quantize: {decode.quantize} is for the CPU; set it to null or use device cpu")
        return self.model if decode.quantize is None else self._quantized

    def _each(self, compute: Callable[[T], R], batches: Sequence[T]) -> Iterator[R]:
        """Compute batch by batch; on the CPU, several batches in parallel, each on one thread.

        The matrices of a step are small. Four threads that share every matrix need 1/2 of the time of one thread;
        four threads with a batch each need 1/4.
        """
        num_threads = torch.get_num_threads()
        if len(batches) < 2 or num_threads == 1 or self.device.type != "cpu":
            yield from map(compute, batches)
            return
        with ThreadPoolExecutor(min(num_threads, len(batches)), initializer=lambda: torch.set_num_threads(1)) as pool:
            try:
                yield from pool.map(compute, batches)
            finally:
                torch.set_num_threads(num_threads)  # the workers have changed the default for new threads

    @property
    def _int8_layer(self) -> type[torch.nn.Module] | None:
        return int8_layer(linear_shapes(self.model))

    @cached_property
    def _quantized(self) -> Seq2SeqModel:
        layer = self._int8_layer
        assert layer is not None, "settle() puts fp32 in the place of an int8 that is no faster"
        return quantize(self.model, layer)

    @torch.inference_mode()
    def _search(self, model: Seq2SeqModel, batch: Batch) -> list[list[Hypothesis]]:
        sources, decode = batch.sources, batch.decode
        max_lengths = [self.longest_output(len(source.ids), decode) for source in sources]
        uniforms = None
        if decode.sample:  # each line has its own random numbers, so its samples do not depend on the batch
            uniforms = np.zeros((len(sources), decode.num_hypotheses, max(max_lengths)))
            for row, source in enumerate(sources):
                rng = np.random.Generator(np.random.PCG64([decode.seed, *source.key]))
                uniforms[row, :, : max_lengths[row]] = rng.random((max_lengths[row], decode.num_hypotheses)).T
        grid_length = self._grid_length(max(len(source.ids) for source in sources))
        src = pack_sentences([source.ids for source in sources], grid_length).to(self.device)
        lock = nullcontext() if self._graphs is None else self._graphs_lock  # graphs serve one search at a time
        describe = partial(_describe, sources, decode, self.batch_tokens(decode))
        with memory_explained(describe), self.autocast(), lock:
            constraints = batch.constraints(max(max_lengths))
            state = begin(model, src, max_lengths, decode, uniforms, constraints)
            stepper: SearchState = EagerStepper(model, state, decode, constraints)
            if self._graphs is not None and not isinstance(model, Ensemble):
                stepper = GraphStepper(self._graphs, model, state, decode, constraints)
            # Several hypotheses can spell the same text, so n_best texts may need more than n_best hypotheses.
            num_best = 1 if decode.n_best == 1 else None
            return search(stepper, max_lengths, decode.num_hypotheses, decode.length_penalty, num_best, batch.enough)

    def autocast(self) -> AbstractContextManager[object]:
        """Autocast. On CUDA without its cache: a graph's results must not outlive it, and weights are cast already."""
        lower, cached = self._dtype != torch.float32, self._graphs is None
        return torch.autocast(self.device.type, self._dtype, cache_enabled=cached) if lower else nullcontext()
