"""The benchmark measures the same work for everyone, and says what it measured."""

import importlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seq2seq.config import Config
from seq2seq.data.batching import pack_pairs
from seq2seq.data.symbols import EOS_ID, PAD_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.model_folder import LoadedModel, build_model, save_model_folder
from tests.toy import write_text_files

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import benchmark as command
from bench import decode, options, train
from bench.padded import collate
from bench.process import run_job
from bench.report import Bar, Spread, draw_bars, table
from bench.workload import BOS_ID, StepPairs, load_steps, save_steps

PAIRS = [([5, 6, EOS_ID], [7, EOS_ID]), ([8, EOS_ID], [9, 10, 11, EOS_ID])]


def _steps(pairs: list[tuple[list[int], list[int]]]) -> StepPairs:
    return StepPairs(*([np.array(sentence) for sentence in side] for side in zip(*pairs, strict=True)))


def test_steps_travel_to_the_peers_as_they_are(tmp_path: Path) -> None:
    """A peer that got other sentences would be measured on other work."""
    save_steps(tmp_path / "steps.npz", [_steps(PAIRS), _steps(PAIRS[::-1]), _steps(PAIRS[:1])], 12)
    steps, vocab_size = load_steps(tmp_path / "steps.npz")
    assert vocab_size == 12
    found = [[(s.tolist(), t.tolist()) for s, t in zip(step.src, step.tgt, strict=True)] for step in steps]
    assert found == [PAIRS, PAIRS[::-1], PAIRS[:1]]
    assert (steps[0].num_src, steps[0].num_tgt) == (5, 6)


def test_padded_batches_predict_the_same_tokens() -> None:
    """The decoder reads BOS and all but the last token; padding is predicted nowhere."""
    batch = collate(_steps(PAIRS))
    assert batch.src.tolist() == [[5, 6, EOS_ID], [8, EOS_ID, PAD_ID]]
    assert batch.labels.tolist() == [[7, EOS_ID, PAD_ID, PAD_ID], [9, 10, 11, EOS_ID]]
    assert batch.tgt_in[0, :2].tolist() == [BOS_ID, 7]
    assert batch.tgt_in[1].tolist() == [BOS_ID, 9, 10, 11]
    assert (batch.labels != PAD_ID).sum() == batch.num_labels == 6


def _in_this_process(module: str, spec: Mapping[str, Any], *_: object) -> dict[str, Any]:
    """What a worker does, without the seconds that a new process takes to import PyTorch."""
    if module == "bench.machine":
        return {"matmul_flops": 1e12, "copy_bytes": 1e10}
    copied = json.loads(json.dumps({**spec, "started": time.time()}))
    result: dict[str, Any] = importlib.import_module(module).run(copied)
    return result


def _parsed(tmp_path: Path, *arguments: str) -> options.Options:
    text = write_text_files(tmp_path / "text")
    files = ["--src", str(text / "train.xx"), "--tgt", str(text / "train.yy"), "--out", str(tmp_path / "out")]
    small = ["--size", "tiny", "--vocab", "330", "--batch-tokens", "150", "--threads", "1"]
    args = command._parser().parse_args(["train", *files, *small, *arguments])
    return command._options(args, "train")


def test_a_small_benchmark_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours through the real Trainer and a peer over the same steps; a table, the numbers behind it, and a picture."""
    monkeypatch.setattr(train, "run_job", _in_this_process)
    peers = ("--peers", "nn_transformer", "--warmup", "1", "--steps", "2", "--rounds", "2")
    report = train.benchmark(_parsed(tmp_path, *peers))
    json.dumps(report)  # can be written
    runs = [one["runs"] for one in report["rounds"]]
    assert [set(run) for run in runs] == [{"seq2seq", "nn_transformer"}] * 2
    for run in (run for both in runs for run in both.values()):
        assert len(run["step_seconds"]) == 2
        assert sum(run["step_seconds"]) == pytest.approx(run["seconds"], rel=0.1)
        assert 0 <= run["wait_seconds"] < run["seconds"]
        assert run["startup_seconds"] > 0
        assert run["peak_bytes"] > 2**20
        assert math.isfinite(run["last_loss"])
    ours, theirs = runs[0]["seq2seq"], runs[0]["nn_transformer"]
    assert ours["fill"] == 1
    assert theirs["fill"] < 1
    assert ours["parameters"] == theirs["parameters"]  # the same model
    assert ours["last_loss"] == pytest.approx(theirs["last_loss"], abs=1)  # and both of them untrained still
    out = capsys.readouterr().out
    assert "| seq2seq (this package) |" in out
    assert "| nn.Transformer " in out
    assert (tmp_path / "out" / "train-tiny.png").stat().st_size > 0


def test_text_that_is_too_small_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a crash in the middle of the measurement."""
    monkeypatch.setattr(train, "run_job", _in_this_process)
    with pytest.raises(SystemExit, match=r"the text fills \d+ steps only; lower --steps"):
        train.benchmark(_parsed(tmp_path, "--peers", "none", "--steps", "1000"))


def test_a_job_that_fails_gives_its_reason(tmp_path: Path) -> None:
    """One peer that cannot run must not end the benchmark."""
    assert "No module named 'bench.nothing'" in run_job("bench.nothing", {}, tmp_path, 1)["error"]
    assert "Traceback" in (tmp_path / "000-nothing.log").read_text()


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    from bench.peers import nn_transformer

    chosen, missing = options.choose(["nn_transformer"], ["nn_transformer"], "bench.peers")
    assert [program.title for program in chosen] == ["nn.Transformer"]
    monkeypatch.setattr(nn_transformer, "MODULE", "not_there")
    assert options.choose(["nn_transformer"], ["nn_transformer"], "bench.peers") == (
        [],
        [*missing, "nn.Transformer: not installed: pip install torch"],
    )


def test_unknown_peers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name would silently measure nothing."""
    with pytest.raises(SystemExit):
        command._parser().parse_args(["train", "--peers", "marain"])
    assert "unknown: marain; there are nn_transformer, marian" in capsys.readouterr().err


def test_tables_and_spreads() -> None:
    """Median and range in the table's units; one round has no range."""
    assert Spread.of([3000, 1000, 2000]).show() == "2,000 (1,000–3,000)"
    assert Spread.of([2048]).show(1024, digits=1) == "2.0"
    assert table(["a", "number"], [["long name", "1"]]).splitlines() == [
        "| a         | number |",
        "| --------- | -----: |",
        "| long name |      1 |",
    ]


def test_the_picture_is_left_out_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are worth having without it."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw_bars(tmp_path / "x.png", "title", "label", [Bar("a", Spread.of([1]), ours=True)])


@pytest.fixture
def loaded(
    request: pytest.FixtureRequest, tiny_config: Callable[..., Config], tiny_tokenizers: TokenizerPair
) -> LoadedModel:
    """A random model with norms before or after its sublayers."""
    torch.manual_seed(3)
    config = tiny_config(norm_position=request.param, encoder_layers=2, decoder_layers=2, dropout=0.0)
    model = build_model(config, tiny_tokenizers).eval()
    with torch.no_grad():  # what starts as 0 or 1 would hide a mix-up
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return LoadedModel(model, config, tiny_tokenizers, {})


def _log_probs(loaded: LoadedModel, src: list[int], tgt: list[int]) -> torch.Tensor:
    """[T, V] of our model, for a target that follows BOS."""
    batch = pack_pairs(np.array(src), np.array([len(src)]), np.array(tgt), np.array([len(tgt)]))
    with torch.inference_mode():
        return (loaded.model(batch) @ loaded.model.output_weight.t()).log_softmax(dim=-1)


@pytest.mark.parametrize("loaded", ["pre", "post"], indirect=True)
def test_ctranslate2_computes_our_model(loaded: LoadedModel, tmp_path: Path) -> None:
    """Beside a model that is not quite the same, a speed says nothing."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    from bench.translators.convert import convert

    convert(loaded, tmp_path)
    translator = ctranslate2.Translator(str(tmp_path), intra_threads=1)
    src, tgt = [9, 40, 77, 123, EOS_ID], [200, 13, 50, EOS_ID]
    (scored,) = translator.score_batch([[*map(str, src[:-1]), "</s>"]], [[*map(str, tgt[:-1])]])
    ours = _log_probs(loaded, src, tgt).gather(1, torch.tensor(tgt)[:, None]).flatten()
    assert scored.log_probs == pytest.approx(ours.tolist(), abs=1e-4)


@pytest.mark.parametrize("loaded", ["pre", "post"], indirect=True)
def test_transformers_computes_our_model(loaded: LoadedModel) -> None:
    """Both architectures that stand for ours, with padding on the source."""
    pytest.importorskip("transformers")
    from bench.translators.transformers import build

    src, tgt = [9, 40, 77, 123, EOS_ID], [200, 13, 50, EOS_ID]
    padded = torch.tensor([[*src, PAD_ID, PAD_ID]])
    with torch.inference_mode():
        logits = build(loaded.model)(
            input_ids=padded,
            attention_mask=(padded != PAD_ID).long(),
            decoder_input_ids=torch.tensor([[BOS_ID, *tgt[:-1]]]),
        ).logits[0]
    torch.testing.assert_close(logits.log_softmax(dim=-1), _log_probs(loaded, src, tgt), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("loaded", ["pre"], indirect=True)
def test_a_small_decoding_benchmark_from_end_to_end(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everybody's translations are counted and scored alike, beside ours."""
    save_model_folder(tmp_path / "best", loaded.model.state_dict(), loaded.config, loaded.tokenizers, {"step": "1"})
    monkeypatch.setattr(decode, "run_job", _in_this_process)
    (tmp_path / "text").write_text("ka to\n\nmi ren sol ka\n")
    files = ["--model", str(tmp_path), "--src", str(tmp_path / "text"), "--tgt", str(tmp_path / "text")]
    few = ["--rounds", "1", "--latency-lines", "2", "--threads", "1", "--peers", "ctranslate2"]
    args = command._parser().parse_args(["decode", *files, *few, "--out", str(tmp_path / "out")])
    report = decode.benchmark(command._options(args, "decode"))
    json.dumps(report)
    (runs,) = report["rounds"]
    assert list(runs)[:1] == ["seq2seq float32, beam 5"]
    for run in runs.values():
        assert run["texts"][1] == ""
        assert run["tokens"] > 3  # an EOS for each line at least
        assert run["same_alone"] == run["alone"] == len(run["latency_seconds"]) == 2
    greedy = [run["texts"] for name, run in runs.items() if "float32" in name and name.endswith("beam 1")]
    if len(greedy) == 2:  # CTranslate2 is there; it may run on where ours stops at the line's own longest length
        assert all(b.startswith(a[:8]) for a, b in zip(*greedy, strict=True))
    assert "BLEU: nrefs:1" in capsys.readouterr().out
