"""Training the models of a comparison, each in a process of its own, with the time left for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from seq2seq.config import Config, check_files, chosen_before, diff_configs, load_config, load_saved_config
from seq2seq.data.formats.pairs import fingerprint_text
from seq2seq.errors import ConfigError, UserError
from seq2seq.model_folder import CONFIG
from seq2seq.train.metrics import METRICS, read_metrics

_ROOT = Path(__file__).resolve().parents[2]
_AROUND = 30.0  # seconds for what is not training: the start, the last validation, the test
_LOOK_EVERY = 1.0  # seconds
_BAR = "{percentage:3.0f}%|{bar:20}| {desc}"
# What decides the scores of a finished run.
_SETTINGS = ("seed", "tokenizer", "model", "optim", "train", "decode.beam_size", "decode.length_penalty")


@dataclass(frozen=True)
class Contestant:
    """One model of the comparison."""

    path: Path  # of its config file
    overrides: tuple[str, ...]  # of the command line
    config: Config  # both together
    log: Path  # gets what its training prints

    @property
    def name(self) -> str:
        """How it is called in tables and pictures."""
        return self.path.stem

    @property
    def is_finished(self) -> bool:
        """Whether it was trained, and has translated its test set."""
        return (self.config.run_dir / "test.json").is_file()


def plan(paths: Sequence[Path], out: Path, minutes: float) -> list[Contestant]:
    """Read all configs.

    Raises:
        UserError: one has mistakes or no test set, or they do not go together, or a run in ``out`` has other settings.
    """
    contestants: list[Contestant] = []
    for path in paths:
        run_dir = json.dumps(str(out / "runs" / path.stem), ensure_ascii=False)  # quoted, for YAML
        overrides = (f"run_dir={run_dir}", f"train.max_minutes={minutes:g}")
        config = load_config(path, overrides)
        if config.data.test is None:
            raise ConfigError(f"{path}: data.test is missing; the comparison translates it")
        check_files(config)
        contestants.append(Contestant(path, overrides, config, out / "logs" / f"{path.stem}.log"))
    for number, contestant in enumerate(contestants):
        for earlier in contestants[:number]:
            if contestant.name == earlier.name:
                raise ConfigError(f"{earlier.path} and {contestant.path} have the same name; rename one of them")
        if _test_set(contestant.config) != _test_set(contestants[0].config):
            both = f"{contestants[0].path} and {contestant.path}"
            raise ConfigError(f"{both} have different test sets, so their scores cannot be compared")
        if contestant.is_finished:
            _check_settings(contestant)
    return contestants


def _test_set(config: Config) -> str:
    assert config.data.test is not None
    return fingerprint_text(config.data.test)


def _check_settings(contestant: Contestant) -> None:
    """Raise UserError if a finished run is not the one that its config asks for now."""
    config, run_dir = contestant.config, contestant.config.run_dir
    saved = load_saved_config(run_dir / CONFIG).model_dump_json()
    wanted = config.with_choices(chosen_before(saved, config)).all_stated()
    if differences := diff_configs(saved, wanted, _SETTINGS):
        raise UserError(
            f"{run_dir}: a finished run with other settings ({'; '.join(differences)}); choose another --out, or move "
            "this folder away"
        )


def train_all(contestants: Sequence[Contestant], minutes: float) -> tuple[list[Contestant], list[str]]:
    """Train those that are not finished, one after the other.

    Returns:
        Those that are finished now, and a line about each of the others.
    """
    to_do = [contestant for contestant in contestants if not contestant.is_finished]
    failed, took = [], list[float]()
    for contestant in contestants:
        if contestant not in to_do:
            print(f"{contestant.name}: trained before", flush=True)
    for number, contestant in enumerate(to_do):
        title = f"{contestant.name} ({number + 1} of {len(to_do)})"
        started = time.monotonic()
        with (
            tqdm(total=60 * minutes + _AROUND, desc=title, bar_format=_BAR, leave=False) as bar,
            _started(contestant) as process,
        ):
            bar.mininterval = 0.2 if sys.stderr.isatty() else 30.0
            while process.poll() is None:
                elapsed = time.monotonic() - started
                left = in_words(seconds_left(took, elapsed, len(to_do) - number, minutes))
                bar.set_description_str(f"{title}: {_so_far(contestant)}; all models: {left} left", refresh=False)
                bar.update(min(elapsed, bar.total or 0.0) - bar.n)
                time.sleep(_LOOK_EVERY)
        took.append(time.monotonic() - started)
        if process.returncode == 0 and contestant.is_finished:
            print(f"{title}: trained and tested in {took[-1] / 60:.1f} minutes", flush=True)
        else:
            print(f"{title}: failed", flush=True)
            failed.append(f"{contestant.name}: training failed: {_last_line(_read(contestant.log))} ({contestant.log})")
    return [contestant for contestant in contestants if contestant.is_finished], failed


@contextmanager
def _started(contestant: Contestant) -> Iterator[subprocess.Popen[bytes]]:
    """The training process; if a signal or an error ends the block, it saves and ends, and can be continued."""
    contestant.log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "seq2seq", "train", str(contestant.path), *contestant.overrides]
    with contestant.log.open("ab") as log:
        # In a session of its own: Ctrl-C reaches it once, through this process. Twice would end it without saving.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def seconds_left(took: Sequence[float], elapsed: float, to_do: int, minutes: float) -> float:
    """About how many seconds all models together still need.

    Args:
        took: seconds of each model that was trained by this command.
        elapsed: seconds of the model that is in training.
        to_do: number of models that are not trained yet, with the one in training.
    """
    usual = sum(took) / len(took) if took else 60 * minutes + _AROUND
    return max(0.0, usual - elapsed) + usual * (to_do - 1)


def in_words(seconds: float) -> str:
    """``about 12 minutes``."""
    minutes = round(seconds / 60)
    return f"about {minutes} minutes" if minutes > 1 else "about a minute" if seconds > 30 else "seconds"


def draw_curves(contestants: Sequence[Contestant], path: Path) -> None:
    """Draw the training of all runs in one picture, by ``seq2seq curves``; prints why if that failed."""
    runs = [str(contestant.config.run_dir) for contestant in contestants]
    command = [sys.executable, "-m", "seq2seq", "curves", *runs, "--output", str(path)]
    done = subprocess.run(command, env=_environment(), capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        print(f"{path.name} was not drawn: {_last_line(done.stdout + done.stderr)}")


def _environment() -> dict[str, str]:
    path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def _so_far(contestant: Contestant) -> str:
    """The last step, its loss, and the last BLEU of a run."""
    records = read_metrics(contestant.config.run_dir / METRICS)
    losses = [record for record in records if "nll" in record]
    scores = [record["valid_bleu"] for record in records if "valid_bleu" in record]
    if not losses:
        return "preparing"
    bleu = f", BLEU {scores[-1]:.1f}" if scores else ""
    return f"step {losses[-1]['step']:,}, loss {losses[-1]['nll']:.2f}{bleu}"


def _read(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def _last_line(text: str) -> str:
    lines = text.replace("\r", "\n").split("\n")  # a progress bar ends its lines with a carriage return
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")
