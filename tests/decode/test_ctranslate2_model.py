"""A model converted to CTranslate2 finds what this package finds: the same tokens with the same scores."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seq2seq.config import DecodeConfig, ModelConfig
from seq2seq.data.symbols import EOS_ID
from seq2seq.decode.ctranslate2_model import ConvertedModel, check_pieces, num_positions, why_not, write_model
from seq2seq.decode.engine import Source, TorchEngine
from seq2seq.decode.explain import run_once
from seq2seq.decode.search import Hypothesis
from seq2seq.errors import UserError
from seq2seq.model.transformer import Transformer
from tests.conftest import VOCABULARY

pytest.importorskip("ctranslate2")
PIECES = [f"piece{i}" for i in range(VOCABULARY)]
PAPER: dict[str, object] = {
    **{"norm_position": "post", "norm": "layernorm", "activation": "relu", "positions": "sinusoidal"},
    **{"tie_embeddings": "all"},
}
VARIANTS: dict[str, dict[str, object]] = {
    "paper": {},
    "pre": {"norm_position": "pre"},
    "pre-gelu": {"norm_position": "pre", "activation": "gelu", "tie_embeddings": "target"},
    "silu-bias": {"activation": "silu", "output_bias": True},
    "swiglu": {"activation": "swiglu", "tie_embeddings": "none"},
    "rmsnorm": {"norm": "rmsnorm"},
    "pre-rmsnorm-swiglu": {"norm_position": "pre", "norm": "rmsnorm", "activation": "swiglu"},
    "learned": {"positions": "learned", "tie_embeddings": "target"},
    "rotary": {"positions": "rotary", "tie_embeddings": "none"},
    "grouped": {"num_kv_heads": 2, "encoder_layers": 3, "tie_embeddings": "target"},
    "one-kv-head": {"num_kv_heads": 1, "norm_position": "pre", "positions": "learned"},
    "window": {"positions": "rotary", "attention_window": 1},
    "modern": {
        **{"norm_position": "pre", "norm": "rmsnorm", "activation": "swiglu", "positions": "rotary"},
        **{"num_kv_heads": 2, "attention_window": 3},
    },
}
DECODE = DecodeConfig(beam_size=3, n_best=3, length_penalty=0.0, max_length_ratio=1.0, max_length_offset=4)


@pytest.fixture
def talkative(make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Transformer]:
    """``talkative(**model options)``: a model whose outputs depend on its sources.

    It is untrained, so it also likes padding, unknown and BOS, which our search never chooses: here it may.
    """
    monkeypatch.setattr("seq2seq.decode.search.FIRST_ID", 0)
    return lambda **options: _loud(make_model(**{**PAPER, **options}))


def _loud(model: Transformer) -> Transformer:
    """The same model with larger weights, above all where it looks at the source, and with more ends."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0 if "cross_attention" in name else 1.5)
        model.output_weight[EOS_ID] *= 1.5
        if model.output_bias is not None:
            model.output_bias.copy_(torch.linspace(-1, 1, len(model.output_bias)))
    return model.eval()


def _random_sources(count: int, vocabulary: int = VOCABULARY) -> list[list[int]]:
    """Ids without EOS."""
    rng = np.random.default_rng(1)
    return [rng.integers(EOS_ID + 1, vocabulary, rng.integers(1, 16)).tolist() for _ in range(count)]


def _ours(model: Transformer, sources: Sequence[Sequence[int]]) -> tuple[list[list[Hypothesis]], list[int]]:
    """The hypotheses of each source, and the longest output of each."""
    engine = TorchEngine(model, torch.float32)
    found = engine.search([Source([*ids, EOS_ID], (0, 0)) for ids in sources], DECODE)
    return found, [engine.longest_output(len(ids) + 1, DECODE) for ids in sources]


def _is_a_tie(hypotheses: Sequence[Hypothesis]) -> bool:
    """Whether no program can promise which hypothesis is the best."""
    return len(hypotheses) > 1 and hypotheses[0].log_prob - hypotheses[1].log_prob < 1e-4


def _check_the_same(model: Transformer, converted: ConvertedModel, sources: Sequence[Sequence[int]]) -> None:
    ours, limits = _ours(model, sources)
    theirs = converted.search(sources, 3, limits)
    compared = [(mine[0], other[0]) for mine, other in zip(ours, theirs, strict=True) if not _is_a_tie(mine)]
    assert len(compared) > 0.9 * len(sources)
    assert len({mine.ids for mine, _ in compared}) > 0.25 * len(sources)  # not always the same words
    assert any(mine.cut for mine, _ in compared)
    for mine, other in compared:
        assert other.ids == mine.ids
        assert other.log_prob == pytest.approx(mine.log_prob, abs=1e-4 * (len(mine.ids) + 1))
        assert other.cut or not mine.cut


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_both_programs_find_the_same(
    talkative: Callable[..., Transformer], tmp_path: Path, options: dict[str, object]
) -> None:
    """Guards against heads, gates, norms, positions or ties that are mixed up on the way, and against another search:
    another end of a sentence, another limit of its length, a log-probability without its EOS."""
    model = talkative(**options)
    assert why_not(model) is None
    write_model(model, PIECES, PIECES, tmp_path)
    _check_the_same(model, ConvertedModel(tmp_path, intra=1), _random_sources(100))


def test_two_vocabularies(talkative: Callable[..., Transformer], tmp_path: Path) -> None:
    """Guards against ids of one side that are read as those of the other."""
    torch.manual_seed(1)
    shape = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "num_heads": 4, "d_ff": 24, "dropout": 0.0}
    config = ModelConfig(**{**PAPER, **shape, "tie_embeddings": "target"})
    model = _loud(Transformer(config, VOCABULARY, VOCABULARY + 8, max_length=24))
    write_model(model, PIECES, [*PIECES[:4], *PIECES[:3:-1], *"abcdefgh"], tmp_path)
    _check_the_same(model, ConvertedModel(tmp_path, intra=1), _random_sources(60))


def test_given_targets_are_scored(talkative: Callable[..., Transformer], tmp_path: Path) -> None:
    """Guards against a score without EOS, or with BOS."""
    model = talkative()
    write_model(model, PIECES, PIECES, tmp_path)
    sources, targets = _random_sources(5), [*_random_sources(5)[::-1][:4], []]
    found = ConvertedModel(tmp_path, intra=1).log_probs(sources, targets)
    for source, target, log_prob in zip(sources, targets, found, strict=True):
        whole = [*target, EOS_ID]
        expected = run_once(TorchEngine(model), [*source, EOS_ID], whole).log_probs[range(len(whole)), whole].sum()
        assert log_prob == pytest.approx(expected, abs=1e-3)
    assert ConvertedModel(tmp_path, intra=1).log_probs([], []) == []


def test_long_sources_are_read_to_their_end(talkative: Callable[..., Transformer], tmp_path: Path) -> None:
    """Guards against the 1,024 tokens at which CTranslate2 cuts sources unless it is asked not to, and against a window
    that has an end."""
    model = talkative(positions="rotary", attention_window=1060)
    write_model(model, PIECES, PIECES, tmp_path)
    sources = [[5] * 1030 + [end] * 40 for end in (7, 12)]
    decode = DECODE.model_copy(update={"max_length_ratio": 0.0, "max_length_offset": 4})
    ours = TorchEngine(model, torch.float32).search([Source([*ids, EOS_ID], (0, 0)) for ids in sources], decode)
    theirs = ConvertedModel(tmp_path, intra=1).search(sources, 3, [4, 4])
    assert abs(ours[0][0].log_prob - ours[1][0].log_prob) > 0.01  # the end of the source matters
    for mine, other in zip(ours, theirs, strict=True):
        assert (other[0].ids, other[0].log_prob) == (mine[0].ids, pytest.approx(mine[0].log_prob, abs=1e-3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "recurrent"}, "no recurrent translation models; train one with model.architecture: transf"),
        ({"architecture": "convolutional"}, "no convolutional translation models"),
        ({"ablate": ["norm", "scale"]}, "lacks parts (model.ablate: norm, scale)"),
        ({"positions": "sinusoidal", "attention_window": 2}, "no attention window beside sinusoidal positions"),
        ({"positions": "learned", "attention_window": 2}, "model.positions: rotary, or without model.attention_window"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    make_model: Callable[..., Any], options: dict[str, object], message: str
) -> None:
    """Guards against a conversion that leaves out what CTranslate2 does not have."""
    reason = why_not(make_model(**options))
    assert reason is not None
    assert message in reason
    assert "\n" not in reason


def test_the_longest_sentence(make_model: Callable[..., Any]) -> None:
    """Guards against a table of positions that ends before the sentences do."""
    assert num_positions(make_model(**PAPER)) == 1024
    assert num_positions(make_model(2000, **PAPER)) == 4010
    assert num_positions(make_model(**{**PAPER, "positions": "learned"})) == 24
    assert num_positions(make_model(**{**PAPER, "positions": "rotary"})) is None


def test_pieces_that_are_not_told_apart_are_refused() -> None:
    """Guards against ids that become others because their names are the same, and against another end of a source."""
    check_pieces(PIECES, [*PIECES[:4], "other"])
    with pytest.raises(UserError, match="two pieces of the same name"):
        check_pieces(PIECES, [*PIECES, PIECES[7]])
    with pytest.raises(UserError, match="'piece3' and '</s>'"):
        check_pieces(PIECES, [*PIECES[:3], "</s>"])


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    """Guards against a traceback of the library."""
    with pytest.raises(UserError, match=r"^CTranslate2 cannot load the model: .*$"):
        ConvertedModel(tmp_path)
