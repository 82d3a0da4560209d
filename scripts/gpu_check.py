"""Does everything work on this machine's GPU, and how fast is it? One command, 20 minutes at most.

    bash scripts/gpu_check.sh                                             # text: the embedded corpus in longer lines
    bash scripts/gpu_check.sh --src train.en --tgt train.de runs/check    # text of your own; where the results go

Each step prints a figure and a verdict: ok, slow, WRONG or skipped. OUT/gpu-check.md has all of them with the card and
the versions, to be attached to a report; OUT/jobs has the output of each step. The exit code is 1 if a step is WRONG.
Speeds are only true if nothing else uses the GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import process
from bench.report import table
from bench.workload import training_spec

from seq2seq.data.parallel import num_cores
from seq2seq.device import choose_device
from seq2seq.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
OK, SLOW, WRONG, SKIPPED = "ok", "slow", "WRONG", "skipped"
_SECONDS = 20 * 60
_LINES = 60_000
_OVER = "the 20 minutes are over"
_ERRORS = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}  # of attention, relative
_LOSSES = {"auto": 1e-2, "fp32": 1e-3}  # the largest relative difference to the CPU
_LEAST_SHARES = {("base", 25_000): 0.3, ("big", 25_000): 0.4}  # of the card's matrix products
_LOSS_RUN = {"size": "small", "batch_tokens": 4_096, "vocab_size": 8_000, "warmup": 20, "steps": 20}
_MOST_OTHER_TEXTS = 0.02  # near ties, which another batch size decides differently
_LEAST_BLEU = 90.0  # of the quickstart, which has 98 on a CPU
_CONFIG = """\
run_dir: run
data:
  train: {{src: "{src}", tgt: "{tgt}"}}
  valid: {{src: "{data}/valid.en", tgt: "{data}/valid.zh"}}
  cache_dir: data
tokenizer: {{joint: true, vocab_size: 32000, sampling: 0}}
model: {{preset: tiny}}
optim: {{lr: 1e-3, schedule: inverse_sqrt, warmup_steps: 6}}
train:
  {{device: cuda, batch_tokens: 4096, max_steps: 12, validate_every: 12, save_every: 12, ema_decay: 0.998, patience: 10,
    spike_sigmas: null}}
"""

Row = tuple[str, str, str]  # step, figure, verdict


class StepError(Exception):
    """A step that gave no figure."""


class Check:
    """The steps, and what they found."""

    def __init__(self, args: Namespace) -> None:
        """Write the config that the steps share."""
        self._out: Path = args.out.resolve()
        self._out.mkdir(parents=True, exist_ok=True)
        self._end = time.monotonic() + _SECONDS
        self._rows: list[Row] = []
        self._words: dict[str, str] = {}
        self._has_bfloat16 = True
        src, tgt = (path.resolve() for path in (args.src, args.tgt)) if args.src else write_text(self._out)
        self._config = self._out / "check.yaml"
        self._config.write_text(_CONFIG.format(src=src, tgt=tgt, data=ROOT / "data"), encoding="utf-8")
        self._model: Path | None = args.model
        self._only: list[str] = args.only.split(",") if args.only else []
        names = {"config": str(self._config), "folder": str(self._out), "src": [str(src)], "tgt": [str(tgt)]}
        names["architecture"] = "transformer"
        self._spec = Namespace(device="cuda", threads=num_cores(), out=self._out, steps=40, **names)

    def run(self) -> int:
        """Take all steps. Returns the exit code."""
        known = (
            *(self.attention, self.attention_times, self.quickstart, self.search, self.losses, self.steps),
            *(self.memory, self.resume, self.without_compiler, self.tests),
        )
        names = {step.__name__.replace("_", "-"): step for step in known}
        if unknown := set(self._only) - set(names):
            raise UserError(f"--only: unknown: {', '.join(sorted(unknown))}; the steps are {', '.join(names)}")
        for name, step in {"environment": self.environment, **names}.items():
            if self._only and name not in ("environment", *self._only):
                continue
            try:
                for row in step():
                    self._add(*row)
            except StepError as failed:
                self._add(name, str(failed), self._verdict(failed))
        print(f"table: {self._out / 'gpu-check.md'}")
        return int(any(verdict == WRONG for *_, verdict in self._rows))

    def environment(self) -> Iterator[Row]:
        """The machine, and whether training can be compiled."""
        found = self._job("bench.gpu:environment")
        self._words, self._spec.peak, self._has_bfloat16 = found["words"], found["peak"], found["has_bfloat16"]
        for name, value in self._words.items():
            print(f"         {name}: {value}")
        reason = found["why_not_compiled"]
        yield "compiler", reason or "all that torch.compile needs is here", SLOW if reason else OK

    def attention(self) -> Iterator[Row]:
        """Outputs and gradients of attention, in batches with empty sentences."""
        for name, error in self._job("bench.gpu:attention_errors")["errors"].items():
            verdict = OK if error < _ERRORS[name.split(",")[0]] else WRONG
            yield f"attention, {name}", f"largest relative error {error:.1e}", verdict

    def attention_times(self) -> Iterator[Row]:
        """Both kernels, by mean length: is the switch between them where they are equally fast?"""
        found = self._job("bench.gpu:attention_times")
        times: dict[str, dict[str, float]] = found["times"]
        for mean, row in times.items():
            named = " and ".join(f"{ms:.3f} ms ({kernel})" for kernel, ms in row.items())
            best = min(row, key=lambda kernel: row[kernel])
            taken = next(iter(row)) if int(mean) >= found["flash_length"] else "memory-efficient"
            verdict = OK if row[taken] <= 1.1 * row[best] else SLOW
            yield f"attention, sentences of {mean} tokens", f"{named}; taken: {taken}", verdict
        faster = [int(mean) for mean, row in times.items() if row.get("FlashAttention", math.inf) == min(row.values())]
        even = f"faster from {min(faster)} tokens on" if faster else "faster at none of these lengths"
        yield "attention, break-even", f"FlashAttention is {even}; FLASH_LENGTH is {found['flash_length']}", OK

    def tests(self) -> Iterator[Row]:
        """The tests that need a GPU."""
        missing = [package for package in ("pytest", "hypothesis") if importlib.util.find_spec(package) is None]
        if missing or not self._has_bfloat16:
            figure = (
                f"not installed: {', '.join(missing)}" if missing else "they need bf16, which this GPU does not have"
            )
            yield "tests marked gpu", figure, SKIPPED
            return
        words = ("pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", str(ROOT / "tests"), "--rootdir", str(ROOT))
        status, output = self._command("tests", *words)
        yield "tests marked gpu", _last_line(output).strip("= "), WRONG if status else OK

    def quickstart(self) -> Iterator[Row]:
        """A whole run on the embedded corpus."""
        run, started = self._out / "quickstart", time.monotonic()
        shutil.rmtree(run, ignore_errors=True)
        config = str(ROOT / "configs/quickstart.yaml")
        self._train("quickstart", config, f"run_dir={run}", "train.device=cuda", "train.max_minutes=5")
        scores = json.loads((run / "test.json").read_text(encoding="utf-8"))
        verdict = OK if scores["bleu"] >= _LEAST_BLEU else WRONG
        yield "quickstart", f"BLEU {scores['bleu']:.2f} after {time.monotonic() - started:.0f} s", verdict
        self._model = self._model or run

    def search(self) -> Iterator[Row]:
        """Beam search and greedy search, in batches of several sizes."""
        if self._model is None:
            yield "search", "the quickstart made no model; name one with --model", SKIPPED
            return
        text = {"model": str(self._model.resolve()), "test": str(ROOT / "data/test.en"), "lines": 1_000}
        for row in self._job("bench.gpu:search", **text)["rows"]:
            ms = 1000 * row["seconds"] / max(1, row["steps"])
            figure = (
                f"{row['tokens'] / row['seconds']:,.0f} tokens/s, {ms:.2f} ms per step; first use: "
                f"{row['first_captures']} graphs captured, {row['first_seconds']:.1f} s; second: {row['captures']} "
                f"captured; {row['other_texts']} of {row['lines']} texts differ from the smallest batches'"
            )
            verdict = OK if row["other_texts"] <= _MOST_OTHER_TEXTS * row["lines"] else WRONG
            yield f"search, beam {row['beam']}, batch_tokens {row['batch_tokens']:,}", figure, verdict

    def losses(self) -> Iterator[Row]:
        """The losses of the first steps, against fp32 on the CPU."""
        runs = {}
        for device, precision in (("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "auto")):
            own = {**_LOSS_RUN, "device": device, "precision": precision}
            spec = training_spec(Namespace(**{**vars(self._spec), **own}), "losses", dropout=0.0, **own)
            runs[device, precision] = self._job("bench.ours", **vars(spec))["losses"]
        wanted = runs.pop(("cpu", "fp32"))
        for (_, precision), losses in runs.items():
            pairs = zip(losses, wanted, strict=True)
            apart = max(math.inf if one is None else abs(one / other - 1) for one, other in pairs)
            figure = f"largest relative difference to the CPU's fp32 {apart:.1e} in {len(wanted)} steps"
            yield f"losses, precision {precision}", figure, OK if apart < _LOSSES[precision] else WRONG

    def steps(self) -> Iterator[Row]:
        """A training step of each preset, with its CUDA graph and without."""
        for tokens in (25_000, 4_096):
            for size in ("base", "big", "tiny"):
                try:
                    found = self._job(f"bench.gpu:step:{size}:{tokens}")
                except StepError as failed:
                    fits = "out of memory" not in str(failed)  # not every card has room for the larger steps
                    yield f"step, {size}, {tokens:,} tokens", str(failed), self._verdict(failed) if fits else SKIPPED
                    continue
                graph, direct = found["graph"], found["direct"]
                for kind, run in (("its CUDA graph", graph), ("no graph", direct)):
                    figure = (
                        f"{1000 * run['seconds']:.2f} ms, {run['tgt_tokens_per_second']:,.0f} target tokens/s, "
                        f"{run['share']:.0%} of matrix products, host {1000 * run['host_seconds']:.2f} ms, "
                        f"{run['peak_bytes'] / 1e9:.2f} GB"
                    )
                    slow = (
                        run["share"] < _LEAST_SHARES.get((size, tokens), 0) or run["seconds"] > 1.05 * direct["seconds"]
                    )
                    yield f"step, {size}, {tokens:,} tokens, {kind}", figure, SLOW if slow else OK
                figure = (
                    f"first step {found['first_seconds']:.0f} s, {found['launches']:g} graph launches per step, waits "
                    f"for the device {sum(graph['syncs'].values()):g} times, vocabulary {found['pieces']:,}"
                )
                yield f"step, {size}, {tokens:,} tokens", figure, OK

    def memory(self) -> Iterator[Row]:
        """``train.batch_tokens: auto``, and a step that does not fit."""
        _, output = self._train("auto", *self._run("auto"), "model.preset=base", "train.batch_tokens=auto")
        number = re.search(r"train.batch_tokens +(\d+)", output)
        yield "train.batch_tokens: auto", number[1] if number else _last_line(output), OK if number else WRONG
        sizes = ("model.preset=big", "train.batch_tokens=400000")
        status, output = self._train("too-large", *self._run("too-large"), *sizes, may_fail=True)
        line = _last_line(output)
        good = status and "out of memory" in line and "Traceback" not in output
        yield "out of memory", line, OK if good else WRONG

    def resume(self) -> Iterator[Row]:
        """A run that is stopped and continued."""
        _, output = self._train("resume", *self._run("resume"), "--verify-resume")
        yield "--verify-resume", _last_line(output), OK

    def without_compiler(self) -> Iterator[Row]:
        """Training where no C compiler is found."""
        hidden = {"PATH": str(self._out / "nothing"), "CC": ""}
        _, output = self._train("without-compiler", *self._run("without-compiler"), variables=hidden)
        line = next((line for line in output.splitlines() if "without compiled kernels" in line), None)
        yield "no C compiler", line or "nothing says that training is not compiled", OK if line else WRONG

    def _add(self, step: str, figure: str, verdict: str) -> None:
        """Print a row and write the table anew, so that it is there whatever happens next."""
        self._rows.append((step, figure.replace("|", "/"), verdict))
        print(f"{verdict:7}  {step}: {figure}", flush=True)
        machine = table(("machine", ""), list(self._words.items()))
        found = table(("step", "figure", "verdict"), self._rows)
        (self._out / "gpu-check.md").write_text(f"{machine}\n\n{found}\n", encoding="utf-8")

    def _verdict(self, failed: StepError) -> str:
        return SKIPPED if self._seconds_left() <= 0 else WRONG

    def _seconds_left(self) -> float:
        return self._end - time.monotonic()

    def _job(self, job: str, **more: object) -> dict[str, Any]:
        """The result of a job in a process of its own."""
        if (left := self._seconds_left()) <= 0:
            raise StepError(_OVER)
        spec = Namespace(**{**vars(self._spec), **more})
        found = process.run_job(job, spec, self._out / "jobs", most_seconds=left)
        if "error" in found:
            raise StepError(_OVER if self._seconds_left() <= 0 else found["error"])
        return found

    def _run(self, name: str) -> tuple[str, str]:
        """The shared config, for a new run."""
        shutil.rmtree(self._out / name, ignore_errors=True)
        return str(self._config), f"run_dir={self._out / name}"

    def _train(
        self, name: str, *words: str, may_fail: bool = False, variables: dict[str, str] | None = None
    ) -> tuple[int, str]:
        status, output = self._command(name, "seq2seq", "train", *words, variables=variables)
        if status and not may_fail:
            raise StepError(f"ended with status {status}: {_last_line(output)}")
        return status, output

    def _command(self, name: str, module: str, *words: str, variables: dict[str, str] | None = None) -> tuple[int, str]:
        """Status and output of ``python -m module``; the output is also in the file ``jobs/NAME.log``."""
        if (left := self._seconds_left()) <= 0:
            raise StepError(_OVER)
        log = self._out / "jobs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(variables or {})}
        with log.open("w", encoding="utf-8") as file:
            command = [sys.executable, "-m", module, *words]
            try:
                done = subprocess.run(command, stdout=file, stderr=file, env=environment, timeout=left)
            except subprocess.TimeoutExpired:
                raise StepError(_OVER) from None
        return done.returncode, log.read_text(encoding="utf-8", errors="replace")


def _last_line(output: str) -> str:
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")


def write_text(folder: Path) -> tuple[Path, Path]:
    """Write lines of news-like lengths: pairs of the embedded corpus, one to a dozen of them joined."""
    rng = random.Random(1)
    src, tgt = ((ROOT / "data" / f"train.{side}").read_text(encoding="utf-8").splitlines() for side in ("en", "zh"))
    paths = folder / "text.src", folder / "text.tgt"
    with paths[0].open("w", encoding="utf-8") as src_file, paths[1].open("w", encoding="utf-8") as tgt_file:
        for _ in range(_LINES):
            number = max(1, min(12, round(rng.lognormvariate(0.8, 0.55))))
            pairs = [rng.randrange(len(src)) for _ in range(number)]
            src_file.write(" ".join(src[i] for i in pairs) + "\n")
            tgt_file.write("".join(tgt[i] for i in pairs) + "\n")
    return paths


def main() -> int:
    """Check the GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--src", type=Path, help="source text, plain or gzip, some 100,000 lines; default: the embedded corpus"
    )
    parser.add_argument("--tgt", type=Path, help="target text")
    parser.add_argument("--model", type=Path, help="the model to search with; default: the quickstart's")
    parser.add_argument("--only", help="some of the steps, such as attention,search")
    parser.add_argument("out", type=Path, nargs="?", default=Path("runs/gpu-check"), metavar="OUT")
    args = parser.parse_args()
    if (args.src is None) != (args.tgt is None):
        parser.error("source and target text belong together; give both")
    try:
        choose_device("cuda")
        return Check(args).run()
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
