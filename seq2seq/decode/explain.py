"""How a model came to a translation: its attention, the words that it weighed, and the hypotheses of the beam.

All but the beam is recomputed from the finished hypothesis, in one pass as in training. The beam is recorded beside the
search, which does not know of it.

Shapes: ``S`` source tokens, ``T`` target tokens, ``K`` hypotheses, ``V`` target vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seq2seq.config import DecodeConfig
from seq2seq.data.packed import pack_sentences
from seq2seq.data.symbols import BOS_ID, EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.decode.constraints import Rules
from seq2seq.decode.engine import Batch, Source, TorchEngine, widened
from seq2seq.decode.explanation import Attention, Candidate, Explanation, Node, Scored
from seq2seq.decode.scoring import teacher_forced
from seq2seq.decode.search import FIRST_ID, Hypothesis, SearchState, length_penalty, search
from seq2seq.decode.stepper import EagerStepper, begin
from seq2seq.errors import ModelError
from seq2seq.model.state import State

_CANDIDATES = 8  # tokens shown for each step
_POSITIONS = 32  # position vectors shown, at least


@dataclass(frozen=True)
class Pass:
    """One teacher-forced pass over a sentence pair."""

    log_probs: NDArray[np.float32]  # [T, V]
    maps: dict[str, NDArray[np.float32]]  # see Seq2SeqModel.attention_maps; of the one sentence


def run_once(engine: TorchEngine, src: Sequence[int], tgt: Sequence[int]) -> Pass:
    """Run the model over source and target ids, both with EOS."""
    batch = teacher_forced([src], [tgt]).to(engine.device)
    with engine.autocast(), torch.no_grad():
        hidden, maps = engine.model.attention_maps(batch)
        log_probs = engine.model.logits(hidden).float().log_softmax(dim=-1)
    return Pass(log_probs.cpu().numpy(), {kind: weights[0].cpu().numpy() for kind, weights in maps.items()})


class _Recorder:
    """A search state that keeps every step of one sentence's search."""

    def __init__(self, stepper: SearchState, state: State) -> None:
        self._stepper, self._state = stepper, state
        self.steps: list[tuple[NDArray[np.float64], list[float]]] = []

    def advance(self) -> NDArray[np.float64]:
        """See :class:`seq2seq.decode.search.SearchState`."""
        read = self._stepper.advance()
        self.steps.append((read[:, 0].copy(), self._state.of_sentences["log_probs"][0].tolist()))
        return read

    def keep(self, rows: NDArray[np.int64]) -> None:
        """See :class:`seq2seq.decode.search.SearchState`."""
        self._stepper.keep(rows)


@torch.inference_mode()
def recorded_search(
    engine: TorchEngine, source: Source, decode: DecodeConfig, rules: Rules, pieces: Sequence[str]
) -> tuple[Hypothesis, list[Node], DecodeConfig]:
    """The best hypothesis of a beam search for a source, all hypotheses on the way, and the settings for its terms.

    Args:
        pieces: [V], the text of each target id.

    Raises:
        ModelError: the model's numbers are not finite.
    """
    src, max_length = pack_sentences([source.ids]).to(engine.device), engine.longest_output(len(source.ids), decode)
    wide = widened(decode, source)
    constraints = Batch([source], wide, decode.beam_size, rules).constraints(max_length)
    with engine.autocast():
        state = begin(engine.model, src, [max_length], wide, None, constraints)
        recorder = _Recorder(EagerStepper(engine.model, state, wide, constraints), state)
        (found,) = search(recorder, [max_length], wide.beam_size, wide.length_penalty, None, decode.beam_size)
    if not found and source.terms:
        return recorded_search(engine, replace(source, terms=()), decode, rules, pieces)
    if not found:
        raise ModelError("the model computes no finite numbers: its weights are damaged, or training diverged")
    return found[0], _nodes(recorder.steps, max_length, wide.length_penalty, pieces), wide


def _nodes(
    steps: Sequence[tuple[NDArray[np.float64], list[float]]], max_length: int, alpha: float, pieces: Sequence[str]
) -> list[Node]:
    """The tree of all hypotheses, from what each step of the search read: see ``Extension`` of the search."""
    nodes: list[dict[str, Any]] = []
    before: list[int | None] = [None] * len(steps[0][1])  # the node of each live hypothesis
    for step, ((tokens, parents, ended, ended_parents), live) in enumerate(steps):
        penalty = length_penalty(step + 1, alpha)
        here = [
            (max(int(parent), ~int(parent)), EOS_ID, float(log_prob), "cut" if parent < 0 else "finished")
            for log_prob, parent in zip(ended, ended_parents, strict=True)
        ]
        if step + 1 < max_length:  # at the limit every hypothesis has ended
            here += [(int(parents[k]), int(tokens[k]), log_prob, "live") for k, log_prob in enumerate(live)]
        after: list[int | None] = []
        for parent, token, log_prob, state in here:
            filled = log_prob > -math.inf  # else an empty place
            if state == "live":
                after.append(len(nodes) if filled else None)
            if filled:
                node = {"parent": before[parent], "step": step, "piece": pieces[token], "state": state}
                nodes.append({**node, "log_prob": log_prob, "score": log_prob / penalty})
        before = after
    parents_of_some = {node["parent"] for node in nodes}
    for index, node in enumerate(nodes):
        if node["state"] == "live":
            ended = "open" if index in before else "dropped"
            node["state"] = "continued" if index in parents_of_some else ended
    return [Node(**node) for node in nodes]


def explain(
    engine: TorchEngine,
    tokenizers: TokenizerPair,
    architecture: str,
    text: str,
    source: Source,
    reference: str | None,
    decode: DecodeConfig,
    rules: Rules,
) -> Explanation:
    """Explain the translation of ``text``, which is ``source``; beam search, whatever ``decode`` says."""
    src = source.ids
    decode = decode.model_copy(update={"sample": False, "n_best": 1})
    pieces = tokenizers.tgt.pieces(range(tokenizers.tgt.vocab_size))
    best, beam, decode = recorded_search(engine, source, decode, rules, pieces)
    (translated,) = tokenizers.tgt.decode_batch([best.ids])
    done = run_once(engine, src, [*best.ids, EOS_ID])
    given = None
    if reference is not None:
        tgt = [*tokenizers.tgt.encode([reference])[0], EOS_ID]
        given = _scored(reference, tgt, run_once(engine, src, tgt).log_probs, decode, pieces)
    finished = [index for index, node in enumerate(beam) if node.state in ("finished", "cut")]
    length = max(_POSITIONS, len(src), len(best.ids) + 1)
    kind, vectors = engine.model.position_vectors(min(length, engine.model.max_length or length))
    return Explanation(
        architecture=architecture,
        source_text=text,
        attention=attention_of(tokenizers, src, [*best.ids, EOS_ID], done),
        translation=_scored(translated, [*best.ids, EOS_ID], done.log_probs, decode, pieces),
        reference=given,
        beam_size=decode.beam_size,
        length_penalty=decode.length_penalty,
        beam=beam,
        best=max(finished, key=lambda index: beam[index].score),
        positions=kind,
        position_vectors=None if vectors is None else vectors.float().cpu().numpy(),
    )


def attention_of(tokenizers: TokenizerPair, src: Sequence[int], tgt: Sequence[int], done: Pass) -> Attention:
    """The record of a pass over source and target ids, both with EOS."""
    target = tokenizers.tgt.pieces(tgt)
    read = tokenizers.tgt.pieces([BOS_ID, *tgt[:-1]])
    weights = (done.maps.get(kind) for kind in ("encoder", "decoder", "cross"))
    return Attention(tokenizers.src.pieces(src), target, read, *weights)


def _scored(
    text: str, tgt: Sequence[int], log_probs: NDArray[np.float32], decode: DecodeConfig, pieces: Sequence[str]
) -> Scored:
    """A target's record; ``tgt``: ids with EOS, log_probs: [T, V]."""
    chosen = log_probs[np.arange(len(tgt)), tgt]
    candidates = []
    for row in log_probs:
        likely = FIRST_ID + np.argsort(-row[FIRST_ID:], kind="stable")[:_CANDIDATES]
        candidates.append([Candidate(pieces[i], math.exp(row[i])) for i in likely])
    score = float(chosen.sum(dtype=np.float64)) / length_penalty(len(tgt), decode.length_penalty)
    return Scored(text, [pieces[i] for i in tgt], chosen.tolist(), candidates, score)
