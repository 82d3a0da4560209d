"""The benchmark measures the same work for everyone, and says what it measured."""

import argparse
import dataclasses
import importlib
import importlib.util
import itertools
import json
import math
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from seq2seq.config import Config
from seq2seq.data.loader import load_steps
from seq2seq.data.packed import PackedBatch, pack_pairs
from seq2seq.data.symbols import EOS_ID, PAD_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.model.loss import LossOf
from seq2seq.model.quantize import Int8Linear
from seq2seq.model_folder import LoadedModel, build_model, save_model_folder
from seq2seq.train import setup, trainer
from tests.toy import ROOT, run_command, write_text_files

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import benchmark as command
from bench import curves, decode, marian, ours, peers, process, profile, programs, quality, train
from bench.padded import collate
from bench.peers import PeerShape
from bench.process import run_job, usage
from bench.report import Spread, draw_bars, draw_lines, table
from bench.workload import BOS_ID, StepPairs, training_spec

_ELEMENTWISE = "norms, elementwise, dropout"
NOTHING = argparse.Namespace(device="cpu", threads=1)
PAIRS = [([5, 6, EOS_ID], [7, EOS_ID]), ([8, EOS_ID], [9, 10, 11, EOS_ID])]


def _steps(pairs: list[tuple[list[int], list[int]]]) -> StepPairs:
    return StepPairs(*([np.array(sentence) for sentence in side] for side in zip(*pairs, strict=True)))


def test_padded_batches_predict_the_same_tokens() -> None:
    """The decoder reads BOS and all but the last token; padding is predicted nowhere."""
    batch = collate(_steps(PAIRS), "cpu")
    assert batch.src.tolist() == [[5, 6, EOS_ID], [8, EOS_ID, PAD_ID]]
    assert batch.labels.tolist() == [[7, EOS_ID, PAD_ID, PAD_ID], [9, 10, 11, EOS_ID]]
    assert batch.tgt_in[0, :2].tolist() == [BOS_ID, 7]
    assert batch.tgt_in[1].tolist() == [BOS_ID, 9, 10, 11]
    assert (batch.labels != PAD_ID).sum() == batch.num_labels == 6


def _in_this_process(job: str, spec: argparse.Namespace, *_: object) -> dict[str, Any]:
    """What a job's process does, without the seconds that a new one takes to import PyTorch."""
    if job == "bench.machine":
        return {"matmul_flops": 1e12, "copy_bytes": 1e10}
    module, *arguments = job.split(":")
    copied = json.loads(json.dumps({**vars(spec), "started": time.time()}, default=str))
    result: dict[str, Any] = importlib.import_module(module).run(argparse.Namespace(**copied), *arguments)
    return result


def _forked(words: list[str], **_: object) -> None:
    """A command in a process that does not import PyTorch again."""
    assert words[:3] == [sys.executable, "-m", "seq2seq"]
    assert run_command(*words[3:]).returncode == 0


def _parsed(tmp_path: Path, *arguments: str, name: str = "train") -> argparse.Namespace:
    text = write_text_files(tmp_path / "text")
    files = ["--src", str(text / "train.xx"), "--tgt", str(text / "train.yy"), "--out", str(tmp_path / "out")]
    small = ["--size", "tiny", "--vocab", "330", "--batch-tokens", "150", "--threads", "1"]
    args = command.make_parser().parse_args([name, *files, *small, *arguments])
    return command.make_options(args, name)


@pytest.mark.parametrize(
    ("architecture", "peer", "title", "report_name"),
    [
        ("transformer", "nn_transformer", "nn.Transformer", "train-tiny"),
        ("recurrent", "nn_lstm", "nn.LSTM", "train-recurrent-tiny"),
    ],
)
def test_a_small_benchmark_from_end_to_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    architecture: str,
    peer: str,
    title: str,
    report_name: str,
) -> None:
    """Ours through the real training and a peer over the same steps; a table, the numbers behind it, and a picture."""
    monkeypatch.setattr(process, "run_job", _in_this_process)
    peers = ("--peers", peer, "--architecture", architecture, "--warmup", "1", "--steps", "2", "--rounds", "2")
    report = train.benchmark(_parsed(tmp_path, *peers))
    json.dumps(report)  # can be written
    runs = [one["runs"] for one in report["rounds"]]
    assert [set(run) for run in runs] == [{"seq2seq", peer}] * 2
    for run in (run for both in runs for run in both.values()):
        assert len(run["step_seconds"]) == 2
        assert sum(run["step_seconds"]) == pytest.approx(run["seconds"], rel=0.1)
        assert 0 <= run["wait_seconds"] < run["seconds"]
        assert run["startup_seconds"] > 0
        assert run["peak_bytes"] > 2**20
        assert math.isfinite(run["last_loss"])
    ours, theirs = runs[0]["seq2seq"], runs[0][peer]
    assert ours["fill"] == 1
    assert theirs["fill"] < 1
    assert ours["parameters"] == theirs["parameters"]  # the same model
    steps = pickle.loads((tmp_path / "out" / "work" / report_name / "steps.pickle").read_bytes())[1:]  # after warm-up
    assert theirs["tgt_tokens"] == sum(len(sentence) for step in steps for sentence in step.tgt)
    assert ours["last_loss"] == pytest.approx(theirs["last_loss"], abs=1)  # and both of them untrained still
    out = capsys.readouterr().out
    assert "| seq2seq (this package) |" in out
    assert f"| {title} " in out
    assert (tmp_path / "out" / f"{report_name}.png").stat().st_size > 0


def test_a_small_profile_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step as users have it: products, optimizer and average, in whatever thread they run, and nothing of others."""
    monkeypatch.setattr(process, "run_job", _in_this_process)
    report = profile.benchmark(_parsed(tmp_path, "--warmup", "1", "--steps", "2", name="profile"))
    json.dumps(report)
    kernels = {kernel["name"]: kernel for kernel in report["kernels"]}
    assert kernels["aten::addmm"]["group"] == "matrix products"
    assert kernels["aten::_foreach_lerp_"]["calls"] == 1  # per step: the average
    assert kernels["aten::_fused_adamw_"]["calls"] == 3  # embeddings, other matrices, and the rest
    assert not any(name.startswith("Optimizer.step") for name in kernels)  # an annotation around them
    assert 0 < report["busy_seconds"] <= report["profiled_seconds"]
    assert report["seconds"] > 0
    longest = [kernel["seconds"] for kernel in report["kernels"]]
    assert longest == sorted(longest, reverse=True)
    out = capsys.readouterr().out
    assert f"| all                         |{1000 * sum(longest):12.3f} | 100.0 % |" in out
    assert "the text ended 1 times" in out
    assert "host's own time" not in out  # where the host is the device


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<pytorch_flash::Flash_bwd>", "attention"),
        ("fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", "attention"),
        ("ShortAttentionBackward", "attention"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTN", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_nt_n_tilesize128x128x64", "matrix products"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_128x2_tn>", "matrix products"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4, ADAM_MODE>>", "optimizer"),
        ("void at::native::multi_tensor_apply_kernel<at::native::LpNormFunctor<float>>", "optimizer"),
        ("triton_red_fused__to_copy_amax_prepare_softmax_online_2", "loss, softmax"),
        ("triton_poi_fused__to_copy_3", "copies"),
        ("triton_poi_fused__to_copy_t_12", "copies"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("triton_per_fused__to_copy_add_native_dropout_native_layer_norm_7", _ELEMENTWISE),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::MulFunctor<float>>", _ELEMENTWISE),
        ("void at::native::radixSortKVInPlace<-2, -1, 32, 4, long, long, unsigned int>", "everything else"),
    ],
)
def test_kernels_have_their_groups(name: str, group: str) -> None:
    """A product counted as attention would send the work to the wrong place."""
    assert profile.group_of(name) == group


def test_the_device_is_busy_once_at_a_time() -> None:
    """Kernels that overlap, inside each other or not, must not hide that nothing ran afterwards."""
    times = [(5, 6), (0, 3), (1, 2), (2, 4), (6, 7)]
    assert profile.busy_time(times) == 6


def test_waits_for_the_device_are_counted_and_placed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Per step, with the lines that wait; other warnings are none of them."""
    monkeypatch.setattr(profile, "synchronise", lambda _: None)
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    result: dict[str, Any] = {}
    options = _parsed(tmp_path, "--steps", "4", name="profile")
    for number, _ in enumerate(profile.measure_host(options, result)):
        assert modes.pop() == "warn"
        warnings.warn("Synchronization debug mode is a prototype", stacklevel=1)
        for _ in range(2 if number else 0):
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)
    assert modes[-1] == "default"
    (times,) = result["syncs"].values()
    assert times == 6 / 4
    assert next(iter(result["syncs"])).startswith(__file__)
    run = {"seconds": 0.1, "profiled_seconds": 0.12, "busy_seconds": 0.09, **result, "host_seconds": 0.02}
    assert profile.step_rows(run)[2:] == [
        ["idle, ms", "10.000", "30.000"],
        ["idle, share", "10.0%", "25.0%"],
        ["host's own time, ms", "20.000", ""],
        ["host waits for the device, times", "1.5", ""],
    ]


def test_small_curves_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same run again differs by nothing, in another number format by little; without dropout, all steps counted."""
    monkeypatch.setattr(process, "run_job", _in_this_process)
    monkeypatch.setattr("seq2seq.train.setup.matmul_peak", lambda *_: 1e12)  # slow in bf16
    arguments = ("--warmup", "1", "--steps", "6", "--variants", "fp32,fp32,bf16")
    report = curves.benchmark(_parsed(tmp_path, *arguments, name="curves"))
    json.dumps(report)
    (_, first), (_, again), (_, half) = report["runs"]
    assert len(first["losses"]) == 6
    assert first["losses"] == again["losses"]
    apart = [abs(a - b) for a, b in zip(half["losses"], first["losses"], strict=True)]
    assert 0 < max(apart) < 0.05
    assert 2**20 < first["early_peak_bytes"] <= first["peak_bytes"]
    rows = {name: cells for name, *cells in report["table"]}
    assert rows["losses"] == ["fp32", "fp32", "bf16"]
    assert rows["largest difference to fp32, all steps"] == ["", "0", f"{max(apart):.2g}"]
    assert report["problems"] == []
    saved = next((tmp_path / "out" / "work" / "train-tiny").glob("run-*/config.yaml")).read_text()
    assert "dropout: 0.0" in saved
    assert "| peak memory after a tenth of the steps, MiB |" in capsys.readouterr().out
    assert (tmp_path / "out" / "curves-tiny.png").stat().st_size > 0


def test_curves_that_are_not_finite_end_with_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever runs it in a script sees the status alone; the other variants are told all the same."""
    good = {"losses": [2.0, 1.0], "seconds": 1, "last_loss": 1, "early_peak_bytes": 0, "peak_bytes": 0, "left_out": 0}
    runs = [{"pairs": 1}, good, {**good, "losses": [2.0, None]}, {"error": "no memory"}]
    monkeypatch.setattr(process, "run_job", lambda *_: runs.pop(0))
    arguments = ["--steps", "2", "--warmup", "1", "--out", str(tmp_path), "--variants", "fp32,bf16,bf16"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "curves", *arguments])
    assert command.main() == 1
    out = capsys.readouterr().out
    assert "| mean loss, last 2 steps " in out
    assert out.endswith("bf16: the loss of step 2 is not finite\nbf16: failed: no memory\n")
    assert json.loads((tmp_path / "curves-small.json").read_text())["problems"]


def test_a_loss_that_is_not_finite_is_found_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer leaves such a step out and goes on, so that it ended well says nothing."""
    monkeypatch.setattr(process, "run_job", _in_this_process)
    forward, calls = LossOf.forward, itertools.count()

    def broken(self: LossOf, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        loss, nll = forward(self, batch)
        return (loss * math.nan if next(calls) == 1 else loss), nll

    monkeypatch.setattr(LossOf, "forward", broken)
    report = curves.benchmark(_parsed(tmp_path, "--warmup", "1", "--steps", "4", "--variants", "fp32", name="curves"))
    assert report["problems"] == ["fp32: the loss of step 2 is not finite"]
    assert report["runs"][0][1]["left_out"] == 1


def test_curves_that_cannot_be_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, before anything runs."""
    with pytest.raises(SystemExit, match="on the CPU nothing is compiled, so eager is bf16: leave it out"):
        curves.benchmark(_parsed(tmp_path, "--variants", "bf16,eager", name="curves"))
    with pytest.raises(SystemExit, match=r"--steps \(2\) must be more than --warmup \(2\)"):
        curves.benchmark(_parsed(tmp_path, "--steps", "2", name="curves"))
    with pytest.raises(SystemExit):
        command.make_parser().parse_args(["curves", "--variants", "fp8"])
    assert "unknown: fp8; there are fp32, bf16, eager" in capsys.readouterr().err


@pytest.mark.parametrize("compiled", [True, False])
def test_eager_runs_compile_nothing(compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparison with what is compiled would compare it with itself."""
    graphs = []

    def compiling(_: object) -> None:
        def keep(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
            graphs.append(graph)
            return graph

        torch.compile(torch.neg, backend=keep, fullgraph=True)(torch.ones(1))

    monkeypatch.setattr(setup, "set_up", lambda *_: None)
    monkeypatch.setattr(trainer, "train", compiling)
    spec = training_spec(_parsed(tmp_path, name="curves"), "eager", compiled=compiled)
    ours.train(spec, tmp_path, load_steps)
    assert len(graphs) == compiled


def _quality_options(tmp_path: Path, *arguments: str) -> argparse.Namespace:
    text = write_text_files(tmp_path / "text")
    files = [
        f"--{part}{side}={text}/{part.rstrip('-') or 'train'}.{language}"
        for part in ("", "valid-", "test-")
        for side, language in (("src", "xx"), ("tgt", "yy"))
    ]
    args = command.make_parser().parse_args(
        ["quality", *files, "--threads", "1", "--out", str(tmp_path / "out"), *arguments]
    )
    return command.make_options(args, "quality")


_TOY_RECIPE = marian.Recipe(PeerShape(1, 16, 32, 2, 330), "bpe", 1e-2, (0.9, 0.98), "cosine", tokens=60, averaged=0.05)
_TOY_RECIPES = {
    "usual": dataclasses.replace(_TOY_RECIPE, schedule="linear", sentences=8, averaged=0),
    "best": _TOY_RECIPE,
}


def test_a_small_time_to_quality_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours by its command, the peer by both recipes: real trainings and tests of a second, scored alike."""
    monkeypatch.setattr(process, "run_job", lambda *given: {**_in_this_process(*given), "wall_seconds": 60.0})
    monkeypatch.setattr(marian, "RECIPES", _TOY_RECIPES)
    monkeypatch.setattr(quality, "MARIAN_RECIPES", _TOY_RECIPES)
    monkeypatch.setattr(quality, "subprocess", SimpleNamespace(run=_forked))
    if importlib.util.find_spec("transformers") is None:  # another model in its place, which copies its source
        monkeypatch.setattr(quality, "choose", lambda known, wanted: ([p for p in known if p.name in wanted], []))
        monkeypatch.setattr(peers, "marian", peers.nn_transformer)
        monkeypatch.setattr(marian, "translator_of", lambda *_: list)
    report = quality.benchmark(_quality_options(tmp_path, "--minutes", "0.01", "--peers", "marian"))
    json.dumps(report)
    own, *theirs = report["runs"]
    assert [run["what"]["program"] for run in theirs] == ["marian_usual", "marian_best"]
    saved = json.loads((tmp_path / "out" / "work" / "quality" / "seq2seq-0.01" / "test.json").read_text())
    assert own["bleu"] == saved["bleu"]
    assert own["steps"] > 0
    assert 0 < own["validation_seconds"] < own["seconds"]
    for run in theirs:
        assert run["steps"] == max(2, round(0.6 / run["planned_step_seconds"]))
        assert run["seconds"] > 0
        assert math.isfinite(run["last_loss"])
        assert run["epochs"] >= 1
        assert run["bleu_signature"] == own["bleu_signature"]
    hypotheses = (tmp_path / "out" / "work" / "quality" / "best-0.01.hyp.txt").read_text().splitlines()
    assert len(hypotheses) == 5
    assert report["problems"] == []
    out = capsys.readouterr().out
    assert "| HF Marian, best recipe " in out
    assert f"BLEU: {own['bleu_signature']}" in out
    assert (tmp_path / "out" / "quality.png").stat().st_size > 0


def test_time_to_quality_continues_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against hours made twice. Runs that failed, or whose recipe has changed, are made again."""
    asked: list[tuple[str, float]] = []
    failing = {"bench.marian:best"}

    def job(name: str, spec: argparse.Namespace, *_: object) -> dict[str, Any]:
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append((name, spec.minutes))
        if name in failing:
            return {"error": "no memory"}
        seconds = {"seconds": 60 * spec.minutes, "wall_seconds": 90 * spec.minutes}
        return {"bleu": spec.minutes, "bleu_signature": "13a", "chrf": 2.0, "steps": 1_000, "epochs": 3, **seconds}

    monkeypatch.setattr(process, "run_job", job)
    monkeypatch.setattr(quality, "choose", lambda known, _: (list(known), []))
    options = _quality_options(tmp_path, "--minutes", "10,20")
    with pytest.raises(KeyboardInterrupt):
        quality.benchmark(options)
    programs_in_turn = ["bench.quality", "bench.marian:usual", "bench.marian:best"]
    assert asked == [*((name, 10.0) for name in programs_in_turn), ("bench.quality", 20.0)]
    asked.clear()
    report = quality.benchmark(options)
    assert asked == [("bench.marian:best", 10.0), *((name, 20.0) for name in programs_in_turn[1:])]
    assert report["problems"] == [f"{number} minutes: HF Marian, best recipe: failed: no memory" for number in (10, 20)]
    assert report["table"][3] == ["seq2seq (this package)", "20", "20.00", "2.00", "20.0", "1,000", "3", "30.0"]
    assert "10 minutes: seq2seq (this package): BLEU 10.00 after 1,000 steps in 10.0 minutes, made before" in (
        capsys.readouterr().out
    )
    asked.clear()
    failing.clear()
    changed = {**marian.RECIPES, "usual": dataclasses.replace(marian.RECIPES["usual"], lr=1e-3)}
    monkeypatch.setattr(quality, "MARIAN_RECIPES", changed)
    report = quality.benchmark(_quality_options(tmp_path, "--minutes", "10"))
    assert asked == [("bench.marian:usual", 10.0), ("bench.marian:best", 10.0)]
    assert len(report["runs"]) == 6  # with those of the other recipe and of 20 minutes
    assert report["problems"] == []


@pytest.mark.parametrize("recipe", _TOY_RECIPES.values(), ids=_TOY_RECIPES)
def test_batches_of_the_peer_have_all_pairs_in_each_epoch(recipe: marian.Recipe) -> None:
    """In another order each time; batches by tokens have sentences of like lengths, so that they pad little."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 40, size=100)
    sentences = [np.full(length, number) for number, length in enumerate(lengths)]
    batches = marian.make_batches(StepPairs(sentences, sentences), recipe)
    epochs = []
    for _ in range(2):
        epoch: list[list[int]] = []
        while sum(map(len, epoch)) < 100:
            batch = next(batches)
            assert all(src is tgt for src, tgt in zip(*batch, strict=True))
            epoch.append([int(sentence[0]) for sentence in batch.src])
        assert sorted(itertools.chain.from_iterable(epoch)) == list(range(100))
        epochs.append(epoch)
    assert epochs[0] != epochs[1]
    if recipe.sentences:
        assert sorted(map(len, epochs[0])) == [4, *[8] * 12]
    else:
        longest = [lengths[batch].max() for batch in epochs[0]]
        padding = sum(most * len(batch) for most, batch in zip(longest, epochs[0], strict=True)) / lengths.sum()
        assert 1 <= padding < 1.1
        assert longest != sorted(longest)


def test_a_measured_speed_leaves_the_weights_as_they_are() -> None:
    """Else the training would begin with a model that has been trained, at no learning rate of its schedule."""
    model, loss_of = peers.nn_transformer(_TOY_RECIPE.shape)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pair = StepPairs([np.array([5, EOS_ID])], [np.array([6, 7, EOS_ID])])
    training = marian._Training(model, loss_of, itertools.repeat(pair), _TOY_RECIPE, 1)
    assert marian._step_seconds(training, 0.0) > 0
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_text_for_time_to_quality_is_given_whole_or_not_at_all(tmp_path: Path) -> None:
    """Guards against a model of the given text that is tested on the embedded corpus."""
    args = command.make_parser().parse_args(["quality", "--src", "x", "--tgt", "y", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="give all of --src, --valid-src and --test-src"):
        command.make_options(args, "quality")
    embedded = command.make_options(command.make_parser().parse_args(["quality"]), "quality")
    assert embedded.data["test"] == {"src": [str(ROOT / "data" / "test.en")], "tgt": [str(ROOT / "data" / "test.zh")]}
    with pytest.raises(SystemExit):
        command.make_parser().parse_args(["quality", "--minutes", "10,0"])


def test_text_that_is_too_small_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a crash in the middle of the measurement."""
    monkeypatch.setattr(process, "run_job", _in_this_process)
    with pytest.raises(SystemExit, match=r"the text fills \d+ steps only; lower --steps"):
        train.benchmark(_parsed(tmp_path, "--peers", "none", "--steps", "1000"))


def test_a_job_that_fails_gives_its_reason(tmp_path: Path) -> None:
    """One peer that cannot run must not end the benchmark."""
    assert "No module named 'bench.nothing'" in run_job("bench.nothing", NOTHING, tmp_path)["error"]
    assert "Traceback" in (tmp_path / "000-nothing.log").read_text()


def test_ctrl_c_ends_a_job_and_its_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a benchmark that was stopped and never ended, because the timer of its job still waited."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_job("bench.nothing", NOTHING, tmp_path)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(10)
            assert not thread.is_alive()


def test_what_disturbs_a_run_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a wall time that other programs made, shown as if it were the program's."""
    read, stat = Path.read_text, ["cpu 0 0 0 0 0 0 0 0 0 0", f"cpu {10**6} 0 0 0 0 0 0 {10**5} 0 0"]
    monkeypatch.setattr(Path, "read_text", lambda p, **o: stat.pop(0) if p == Path("/proc/stat") else read(p, **o))
    run = run_job("bench.nothing", NOTHING, tmp_path)
    assert run["cpu_seconds"] > 0
    assert run["steal"] > 0.02
    assert run["others"] > 1
    assert usage(run).startswith(f", {run['cpu_seconds']:.1f} CPU s in all; DISTURBED: other programs took ")
    assert "(steal)" in usage(run)


def test_decoding_can_leave_int8_out(tmp_path: Path) -> None:
    """Guards against an hour of int8 where it is slow."""
    for arguments, formats in ((), ["float32", "int8"]), (("--without-int8",), ["float32"]):
        assert decode.formats(decode.OURS, _parsed(tmp_path, "--model", "x", *arguments, name="decode")) == formats


def test_a_peer_that_is_not_installed_is_named() -> None:
    """With the command that installs it."""
    wanted = ["nn_transformer", "transformers"]
    chosen, missing = programs.choose(programs.PEERS, wanted)
    assert ([program.title for program in chosen], missing) == (["nn.Transformer"], [])
    gone = [program._replace(module="not_there") for program in programs.PEERS]
    assert programs.choose(gone, wanted) == ([], ["nn.Transformer: not installed: pip install torch"])


def test_unknown_peers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name would silently measure nothing."""
    with pytest.raises(SystemExit):
        command.make_parser().parse_args(["train", "--peers", "marain"])
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


def test_the_picture_is_left_out_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The numbers are worth having without it."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    draw_bars(tmp_path / "x.png", "title", "label", [("a", Spread.of([1]), True)])
    assert capsys.readouterr().out == "no picture: pip install matplotlib\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("points", [[(40.0, 39.77)], [(10.0, 38.45), (40.0, 39.77)], [(10.0, 0.0)]])
def test_no_point_of_a_picture_is_cut_by_its_frame(
    points: list[tuple[float, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a best score that only half a mark shows, which happened with a single point for each program."""
    figures: list[Any] = []
    monkeypatch.setattr("bench.report._save", lambda figure, _: figures.append(figure))
    lines = [("a", points, True), ("b", [(40.0, 37.94)], False), ("without a run", [], False)]
    draw_lines(tmp_path / "x.png", "title", ("minutes", "BLEU"), lines)
    bottom, top = figures[0].axes[0].get_ylim()
    assert bottom == 0
    assert top > 1.05 * max(37.94, points[-1][1])


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
    (scored,) = translator.score_batch([[*map(str, src[:-1])]], [[*map(str, tgt[:-1])]])
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
    save_model_folder(
        tmp_path / "best", dict(loaded.model.named_parameters()), loaded.config, loaded.tokenizers, {"step": "1"}
    )
    monkeypatch.setattr(process, "run_job", _in_this_process)
    monkeypatch.setattr("seq2seq.decode.engine.int8_layer", lambda shapes: Int8Linear)
    (tmp_path / "text").write_text("ka to\n\nmi ren sol ka\n")
    files = ["--model", str(tmp_path), "--src", str(tmp_path / "text"), "--tgt", str(tmp_path / "text")]
    few = ["--rounds", "1", "--latency-lines", "2", "--threads", "1", "--peers", "ctranslate2"]
    args = command.make_parser().parse_args(["decode", *files, *few, "--out", str(tmp_path / "out")])
    report = decode.benchmark(command.make_options(args, "decode"))
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


@pytest.mark.parametrize("loaded", ["pre"], indirect=True)
def test_on_cuda_texts_are_compared_with_those_of_the_cpu(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32, translated once; the rows say how many sentences are the same."""
    save_model_folder(
        tmp_path / "best", dict(loaded.model.named_parameters()), loaded.config, loaded.tokenizers, {"step": "1"}
    )
    (tmp_path / "text").write_text("ka\nto\n")
    asked: list[tuple[str, str, int]] = []

    def translated(_: str, spec: argparse.Namespace, *__: object) -> dict[str, Any]:
        asked.append((spec.device, spec.number_format, spec.beam_size))
        texts = ["ka", "to"] if spec.device == "cpu" else ["ka", "mi"]
        numbers = {"tokens": 4, "seconds": 1, "lines": 2, "same_alone": 1, "alone": 1, "peak_bytes": 0}
        return {**numbers, "latency_seconds": [0.1], "texts": texts}

    monkeypatch.setattr(process, "run_job", translated)
    files = ["--model", str(tmp_path), "--src", str(tmp_path / "text"), "--tgt", str(tmp_path / "text")]
    more = ["--device", "cuda", "--rounds", "2", "--peers", "none", "--out", str(tmp_path / "out")]
    report = decode.benchmark(
        command.make_options(command.make_parser().parse_args(["decode", *files, *more]), "decode")
    )
    cpu, cuda = (
        [(device, kind, beam) for beam in (5, 1)] for device, kind in (("cpu", "float32"), ("cuda", "bfloat16"))
    )
    assert asked == [*cpu, *cuda, *cuda]
    assert [(row[0], row[1], row[5]) for row in report["table"]] == [
        ("seq2seq float32, CPU", "5", "100.0 %"),
        ("seq2seq float32, CPU", "1", "100.0 %"),
        ("seq2seq bfloat16", "5", "50.0 %"),
        ("seq2seq bfloat16", "1", "50.0 %"),
    ]
