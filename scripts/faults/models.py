"""kill -9 at random moments of exports, an import, and the start of a fine-tuning: nothing is half-written.

A small model is trained, exported to every program, imported back, and fine-tuned, each first undisturbed. Then each
command is killed again and again; after each kill the output of an export or import must be complete or missing, and
what a training has written must load. At the end the same command once more: what it writes must equal the undisturbed
output in every byte (clocks of a run apart), and nothing may be left beside it.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from faults.small_run import broken_parts, differences, small_config, write_text
from faults.watched import killed_after, measure
from tests.toy import command, train

_EXPORTABLE = (  # by every export
    *("tokenizer.joint=true", "model.num_heads=2", "model.norm_position=post", "model.norm=layernorm"),
    *("model.activation=relu", "model.positions=sinusoidal", "model.tie_embeddings=all"),
)
_TARGETS = ("ctranslate2", "huggingface", "argos")
_FINE_TUNING = """\
init: {{from: {model}}}
data:
  train: {{src: {text}/train.en, tgt: {text}/train.zh}}
  valid: {{src: {text}/valid.en, tgt: {text}/valid.zh}}
optim: {{lr: 0.005, warmup_steps: 4}}
train: {{batch_tokens: 300, max_steps: 40, validate_every: 10, save_every: 5, device: cpu, threads: 1}}
"""


class _Job(NamedTuple):
    """A command that is killed; it writes the folder "output" where it is started."""

    name: str
    command: list[str]
    folder: Path

    def place(self, kind: str) -> Path:
        """The folder to start it in: paths are relative, so that two outputs can be equal to the byte."""
        place = self.folder / self.name / kind
        place.mkdir(parents=True, exist_ok=True)
        return place


def add_options(parser: argparse.ArgumentParser) -> None:
    """The size of the attack."""
    parser.add_argument("--kills", type=int, default=8, help="of each command; default: 8")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments; default: 1")


def run(args: argparse.Namespace) -> list[str]:
    """Attack; returns what did not hold."""
    shutil.rmtree(args.out, ignore_errors=True)
    text, model, config = write_text(args.out / "text", pairs=600), args.out / "model", args.out / "fine-tuning.yaml"
    train(small_config(text, model, *_EXPORTABLE))
    config.write_text(_FINE_TUNING.format(model=model, text=text), encoding="utf-8")
    exported = args.out / "huggingface" / "undisturbed" / "output"
    jobs = [_Job(name, command("export", model, "--to", name, "--output", "output"), args.out) for name in _TARGETS]
    jobs += [
        _Job("import", command("import", exported, "--output", "output"), args.out),
        _Job("fine-tuning", command("train", config, "run_dir=output"), args.out),
    ]
    rng = random.Random(args.seed)
    return [problem for job in jobs for problem in _attack(job, args.kills, rng)]


def _attack(job: _Job, kills: int, rng: random.Random) -> list[str]:
    """Let one command finish, kill it often, and let it finish again."""
    log, undisturbed, place = job.folder / "log", job.place("undisturbed"), job.place("killed")
    seconds = measure(job.command, log, undisturbed).seconds
    output, killed = place / "output", 0
    for _ in tqdm(range(kills), desc=job.name, unit=" kills"):
        done = not killed_after(rng.uniform(0, seconds), job.command, log, place)
        killed += not done
        if done or (output.exists() and job.name != "fine-tuning"):  # complete, so the next one begins anew
            found = differences(output, undisturbed / "output")
            shutil.rmtree(output)
        else:
            found = broken_parts(output)
        if found:
            return [f"{job.name}, after {killed} kills: {text}" for text in found]
    measure(job.command, log, place)
    print(f"{job.name}: {seconds:.1f} s undisturbed, {killed} kills", flush=True)
    left = sorted(path.name for path in place.iterdir() if path != output)
    different = differences(output, undisturbed / "output")
    return [
        *(f"{job.name}: left beside the output: {name}" for name in left),
        *(f"{job.name}: different: {name}" for name in different),
    ]
