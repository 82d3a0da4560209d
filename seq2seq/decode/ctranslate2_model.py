"""A Transformer of this package as a model of CTranslate2: writing its files, and searching and scoring with them.

This is the only file that knows the package ``ctranslate2``. Weights are written in fp32, and CTranslate2 converts them
to the number format that is chosen when they are loaded. Tokens keep their ids: the name of an id is its piece.

Search as here, by these settings: no source is cut, an empty output is allowed, and a sentence ends when ``beam_size``
hypotheses have finished. Its penalty for length is another one than ours, so it is off (see :data:`NO_PENALTY`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from seq2seq.data.symbols import BOS_ID, EOS_ID, UNK_ID
from seq2seq.errors import UserError
from seq2seq.model.attention import CrossAttention, SelfAttention
from seq2seq.model.interface import Seq2SeqModel
from seq2seq.model.transformer import DecoderLayer, EncoderLayer, FeedForward, Residual, Transformer

# Zero would end the search at the first hypothesis that no other can overtake; in fp32, length ** 1e-9 is exactly 1.
NO_PENALTY = 1e-9
_LEAST_POSITIONS = 1024  # rows of a computed table: CTranslate2 cuts sources there unless it is asked not to
_LONGEST = 1 << 14  # tokens of a sentence; a wider window hides nothing
_HIDDEN = -1e4  # added to a score outside the window; fits into fp16
_EPSILONS = {"layernorm": 1e-5, "rmsnorm": 1e-6}

ComputeType = Literal["float32", "int8"]


@dataclass(frozen=True)
class Found:
    """A hypothesis that CTranslate2 has found."""

    ids: tuple[int, ...]  # without EOS
    log_prob: float  # of the ids and EOS, in nats
    cut: bool  # it reached the maximum length, where EOS was added


def library() -> Any:
    """The package ``ctranslate2``.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ctranslate2
    except ImportError:
        raise UserError("ctranslate2 is not installed; install the extra: pip install '.[ctranslate2]'") from None
    return ctranslate2


def why_not(model: Seq2SeqModel) -> str | None:
    """Why CTranslate2 cannot compute a model; None if it can."""
    if not isinstance(model, Transformer):
        kind = type(model).__name__.lower()
        return f"CTranslate2 has no {kind} translation models; train one with model.architecture: transformer"
    config = model.config
    if config.ablate:
        return (
            f"CTranslate2 has only whole Transformers, and this one lacks parts (model.ablate: "
            f"{', '.join(config.ablate)}); train one without model.ablate"
        )
    if config.attention_window is not None and config.positions != "rotary":
        return (
            f"CTranslate2 has no attention window beside {config.positions} positions; train with "
            "model.positions: rotary, or without model.attention_window"
        )
    return None


def check_pieces(src_pieces: Sequence[str], tgt_pieces: Sequence[str]) -> None:
    """Raise UserError if CTranslate2 would take one piece for another: it knows them by their names."""
    for pieces in (src_pieces, tgt_pieces):
        if len(set(pieces)) < len(pieces):
            raise UserError("the tokenizer has two pieces of the same name, which CTranslate2 cannot tell apart")
    for special in (UNK_ID, BOS_ID, EOS_ID):
        names = src_pieces[special], tgt_pieces[special]
        if names[0] != names[1]:
            raise UserError(
                f"the tokenizers have other names for the special piece {special} ({names[0]!r} and {names[1]!r}), but "
                "CTranslate2 has one name for both sides"
            )


def num_positions(model: Transformer) -> int | None:
    """The longest sentence, in tokens, for the converted model; None: no limit."""
    if model.config.positions == "rotary":
        return None
    return model.max_length or max(_LEAST_POSITIONS, model.src_positions.vectors(1).size(0))


def write_model(model: Seq2SeqModel, src_pieces: Sequence[str], tgt_pieces: Sequence[str], folder: Path) -> None:
    """Write ``model.bin``, ``config.json`` and the vocabularies into an existing folder, in fp32.

    Args:
        src_pieces, tgt_pieces: the name of each id; see :func:`check_pieces`.

    Raises:
        UserError: ``ctranslate2`` is not installed.
    """
    library()
    from ctranslate2.specs import TransformerSpec

    assert isinstance(model, Transformer), why_not(model)
    config = model.config
    spec = TransformerSpec(*_sides(model))
    for side, embedding, layers, norm in (
        (spec.encoder, model.src_embedding, model.encoder_layers, model.encoder_norm),
        (spec.decoder, model.tgt_embedding, model.decoder_layers, model.decoder_norm),
    ):
        (side.embeddings[0] if side is spec.encoder else side.embeddings).weight = _array(embedding.weight)
        if (rows := num_positions(model)) is not None:
            positions = model.src_positions if side is spec.encoder else model.tgt_positions
            side.position_encodings.encodings = _array(positions.vectors(rows)[:rows])
        for to, layer in zip(side.layer, layers, strict=True):
            _write_layer(to, layer)
        if config.norm_position == "pre":
            _write_norm(side.layer_norm, norm)
    spec.decoder.projection.weight = _array(model.output_weight)
    if model.output_bias is not None:
        spec.decoder.projection.bias = _array(model.output_bias)
    spec.register_source_vocabulary(list(src_pieces))
    spec.register_target_vocabulary(list(tgt_pieces))
    spec.config.layer_norm_epsilon = _EPSILONS[config.norm]
    spec.config.unk_token, spec.config.bos_token = tgt_pieces[UNK_ID], tgt_pieces[BOS_ID]
    spec.config.eos_token, spec.config.decoder_start_token = tgt_pieces[EOS_ID], tgt_pieces[BOS_ID]
    spec.config.add_source_bos, spec.config.add_source_eos = False, True
    spec.validate()
    spec.optimize(quantization=None)  # tied weights are written once
    spec.save(str(folder))


def _sides(model: Transformer) -> tuple[Any, Any]:
    """The specifications of encoder and decoder."""
    from ctranslate2.specs import transformer_spec
    from ctranslate2.specs.common_spec import Activation

    config = model.config
    swish = Activation.SWISH
    activations = {"relu": Activation.RELU, "gelu": Activation.GELU, "silu": swish, "swiglu": swish}
    options: dict[str, Any] = {
        "pre_norm": config.norm_position == "pre",
        "activation": activations[config.activation],
        "ffn_glu": config.activation == "swiglu",
        "rms_norm": config.norm == "rmsnorm",
        "relative_attention_bias": config.attention_window is not None,
    }
    if config.num_kv_heads < config.num_heads:
        options["num_heads_kv"] = config.num_kv_heads
    if config.positions == "rotary":
        options |= {"rotary_dim": config.d_model // config.num_heads, "rotary_interleave": False}
    encoder = transformer_spec.TransformerEncoderSpec(config.encoder_layers, config.num_heads, **options)
    decoder = transformer_spec.TransformerDecoderSpec(config.decoder_layers, config.num_heads, **options)
    return encoder, decoder


def _write_layer(to: Any, layer: nn.Module) -> None:
    """Our fused matrices are fused in the same way there, except the two of SwiGLU."""
    assert isinstance(layer, EncoderLayer | DecoderLayer)
    norms = [residual.norm for residual in layer.residuals if isinstance(residual, Residual)]
    own = layer.self_attention
    _write_attention(to.self_attention, [own.qkv, own.out], norms[0])
    if own.attend.window is not None:
        _write_window(to.self_attention, own)
    if isinstance(layer, DecoderLayer):
        cross: CrossAttention = layer.cross_attention
        _write_attention(to.attention, [cross.q, cross.kv, cross.out], norms[1])
    network: FeedForward = layer.feed_forward
    if network.activation == "swiglu":
        parts = zip(network.inner.weight.chunk(2), network.inner.bias.chunk(2), strict=True)  # gate, up
        for linear, (weight, bias) in zip((to.ffn.linear_0, to.ffn.linear_0_noact), parts, strict=True):
            linear.weight, linear.bias = _array(weight), _array(bias)
    else:
        _write_linear(to.ffn.linear_0, network.inner)
    _write_linear(to.ffn.linear_1, network.outer)
    _write_norm(to.ffn.layer_norm, norms[-1])


def _write_attention(to: Any, linears: Sequence[nn.Linear], norm: nn.Module) -> None:
    for linear, ours in zip(to.linear, linears, strict=True):
        _write_linear(linear, ours)
    _write_norm(to.layer_norm, norm)


def _write_window(to: Any, attention: SelfAttention) -> None:
    """The window as a bias for each distance between two tokens, as in T5 (Raffel et al. 2020, section 2.1).

    There, small distances have an entry of the table each, and larger ones share the rest of it. An encoder's table has
    a half for each direction.
    """
    window = attention.attend.window
    assert window is not None
    exact = min(window, _LONGEST) + 1  # distances with an entry of their own
    half = np.full((2 * exact, attention.heads[0]), _HIDDEN, np.float32)
    half[:exact] = 0.0
    to.relative_attention_bias = half if attention.attend.causal else np.concatenate([half, half])
    to.relative_attention_max_distance = np.int32(2 * exact)


def _array(weight: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = weight.detach().float().cpu().contiguous().numpy()
    return array


def _write_linear(to: Any, linear: nn.Linear) -> None:
    to.weight, to.bias = _array(linear.weight), _array(linear.bias)


def _write_norm(to: Any, norm: nn.Module) -> None:
    assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    to.gamma = _array(norm.weight)
    if isinstance(norm, nn.LayerNorm):
        to.beta = _array(norm.bias)


class _Batch(NamedTuple):
    """Sources of similar lengths."""

    lines: list[int]  # their numbers
    sources: list[Sequence[int]]
    max_length: int  # tokens of the longest output, EOS included


def _batches(
    lines: Iterable[int],
    sources: Sequence[Sequence[int]],
    max_lengths: Sequence[int],
    batch_tokens: int,
    *,
    equal_limits: bool = False,
) -> Iterator[_Batch]:
    """Cut lines into batches, longest outputs first; ``equal_limits``: a batch has one maximum length."""
    left = sorted(lines, key=lambda line: (-max_lengths[line], -len(sources[line])))
    while left:
        limit, longest, size = max_lengths[left[0]], 0, 0
        for line in left:
            longest = max(longest, len(sources[line]))
            if size and (longest * (size + 1) > batch_tokens or (equal_limits and max_lengths[line] < limit)):
                break
            size += 1
        yield _Batch(left[:size], [sources[line] for line in left[:size]], limit)
        left = left[size:]


class ConvertedModel:
    """A model that :func:`write_model` has written, loaded by CTranslate2."""

    def __init__(self, folder: Path, compute_type: ComputeType = "float32", inter: int = 1, intra: int = 0) -> None:
        """``inter``: batches translated at the same time; ``intra``: threads for each, 0: the library's default.

        Raises:
            UserError: ``ctranslate2`` is not installed, or cannot load the model.
        """
        try:
            self._translator = library().Translator(
                str(folder), compute_type=compute_type, inter_threads=inter, intra_threads=intra
            )
            self._src, self._tgt = _vocabularies(folder)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"CTranslate2 cannot load the model: {error}") from None
        self._ids = {piece: i for i, piece in enumerate(self._tgt)}

    def search(
        self,
        sources: Sequence[Sequence[int]],
        beam_size: int,
        max_lengths: Sequence[int],
        batch_tokens: int = 2048,
        never: Sequence[Sequence[int]] = (),
        no_repeat_ngram: int = 0,
    ) -> list[list[Found]]:
        """The finished hypotheses of each source, the most likely first.

        They are those of :func:`seq2seq.decode.search.search`, with one exception: if the last step of a sentence
        finishes several hypotheses, so that there are more than ``beam_size``, the least likely ones are missing.

        Args:
            sources: ids without EOS, at least one each.
            max_lengths: tokens of each output, EOS included. CTranslate2 has one limit for a batch; so lines that reach
                their own are searched again.
            batch_tokens: padded source tokens of a batch.
            never: sequences of ids that no output has; their probabilities go to the others, which changes
                log-probabilities.
            no_repeat_ngram: no output has the same sequence of this number of ids twice; 0 is off.
        """
        found: dict[int, list[Found]] = {}
        options: dict[str, Any] = {
            "beam_size": beam_size,
            "suppress_sequences": [[self._tgt[i] for i in ids] for ids in never] or None,
            "no_repeat_ngram_size": no_repeat_ngram,
        }
        everything = range(len(sources))
        for batch, hypotheses in self._search(_batches(everything, sources, max_lengths, batch_tokens), options):
            found |= zip(batch.lines, hypotheses, strict=True)
        again = [
            line for line in everything if any(one.cut or len(one.ids) + 1 >= max_lengths[line] for one in found[line])
        ]
        # The search of these lines did not end before its limit, so with twice the patience it is the same one, and
        # gives the unfinished hypotheses beside the finished ones.
        batches = _batches(again, sources, max_lengths, batch_tokens, equal_limits=True)
        for batch, hypotheses in self._search(batches, options, patience=2):
            found |= zip(batch.lines, self._ended(batch.sources, hypotheses), strict=True)
        return [found[line] for line in everything]

    def _search(
        self, batches: Iterable[_Batch], options: Mapping[str, Any], patience: int = 1
    ) -> Iterator[tuple[_Batch, list[list[Found]]]]:
        """What CTranslate2 finds. Where a hypothesis is cut, EOS does not count in its log-probability."""
        waiting = []
        for batch in batches:
            if batch.max_length == 1:
                yield batch, [[Found((), 0.0, cut=True)] for _ in batch.lines]
                continue
            results = self._translator.translate_batch(
                [[self._src[i] for i in ids] for ids in batch.sources],
                num_hypotheses=options["beam_size"] * (patience if options["beam_size"] > 1 else 1),
                patience=patience,
                length_penalty=NO_PENALTY,
                max_input_length=0,
                min_decoding_length=0,
                max_decoding_length=batch.max_length - 1,
                return_end_token=True,
                return_scores=True,
                asynchronous=True,  # as many at the same time as the model was loaded for
                **options,
            )
            waiting.append((batch, results))
        for batch, results in waiting:
            found = [result.result() for result in results]
            yield (
                batch,
                [[self._found(*one) for one in zip(each.hypotheses, each.scores, strict=True)] for each in found],
            )

    def _ended(self, sources: Sequence[Sequence[int]], found: Sequence[list[Found]]) -> list[list[Found]]:
        """The hypotheses with EOS at the end of those that were cut."""
        cut = [(source, one) for source, several in zip(sources, found, strict=True) for one in several if one.cut]
        scores = iter(self.log_probs([source for source, _ in cut], [one.ids for _, one in cut]))
        ended = [[replace(one, log_prob=next(scores)) if one.cut else one for one in several] for several in found]
        return [sorted(several, key=lambda one: -one.log_prob) for several in ended]

    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of each target with its EOS, in nats; all ids are without EOS."""
        return [float(sum(of_tokens)) for of_tokens in self.token_log_probs(sources, targets)]

    def token_log_probs(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[Sequence[float]]:
        """The log-probability of each token of each target, and of its EOS, in nats; all ids are without EOS."""
        if not sources:
            return []
        scored = self._translator.score_batch(
            [[self._src[i] for i in ids] for ids in sources],
            [[self._tgt[i] for i in ids] for ids in targets],
            max_input_length=0,
            max_batch_size=2048,
            batch_type="tokens",
        )
        return [result.log_probs for result in scored]

    def _found(self, tokens: Sequence[str], score: float) -> Found:
        ids = tuple(self._ids[token] for token in tokens)
        complete = bool(ids) and ids[-1] == EOS_ID
        return Found(ids[:-1] if complete else ids, score, cut=not complete)


def _vocabularies(folder: Path) -> tuple[list[str], list[str]]:
    """The pieces of both sides, in the order of their ids."""
    shared = folder / "shared_vocabulary.json"
    paths = (
        [shared, shared] if shared.exists() else [folder / f"{side}_vocabulary.json" for side in ("source", "target")]
    )
    src, tgt = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    return src, tgt
