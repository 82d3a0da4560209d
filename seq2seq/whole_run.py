"""A whole training run, from a config to its models and picture: what ``seq2seq train`` and ``seq2seq.train`` share.

Nothing slow is imported before a function is called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from seq2seq.errors import ReportedElsewhereError, UserError

if TYPE_CHECKING:
    from seq2seq.config import Config
    from seq2seq.data.cleaning import Cleaned
    from seq2seq.data.prepare import MeasuredText
    from seq2seq.decode.translation import Translation
    from seq2seq.train.distributed import Processes
    from seq2seq.train.trainer import Summary


def train(config: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train a model as ``seq2seq train`` does. The same call continues an interrupted run.

    >>> run = seq2seq.train("my.yaml", ["train.max_minutes=5", "model.preset=tiny"])
    >>> translator = seq2seq.Translator.load(run)

    Ctrl-C, or the stop button of a notebook, finishes the step, saves, and raises KeyboardInterrupt; a second one does
    not wait for that. Outside the main thread Python receives no signals, so a run there cannot be stopped in this way.
    A script calls this under ``if __name__ == "__main__":``, because large texts are prepared by several processes.

    Args:
        config: path of the YAML file.
        overrides: a list of ``"section.key=value"``, as on the command line.

    Returns:
        The run folder: models, metrics, curves, scores.

    Raises:
        UserError: the config or the text has mistakes, or the run cannot continue; the message says what to do.
        TypeError: ``overrides`` is not a list of strings.
        KeyboardInterrupt: the run was stopped by a signal. It was saved, unless it had not begun its first step.
    """
    if isinstance(overrides, str) or not all(isinstance(override, str) for override in overrides):
        raise TypeError('overrides must be a list of strings, such as ["train.max_minutes=5"]')
    checked = checked_config(Path(config).expanduser(), overrides)
    import torch

    from seq2seq.files import disk_explained

    num_threads = torch.get_num_threads()
    try:
        with disk_explained():
            summary = train_whole(checked, ends_process=False)
    finally:
        torch.set_num_threads(num_threads)  # train.threads is for the run, not for what the caller does next
    if summary.stopped:
        raise KeyboardInterrupt(stopped_line(summary, "call"))
    return checked.run_dir


def checked_config(path: Path, overrides: Sequence[str]) -> Config:
    """The config of a run, whose text files are there.

    Raises:
        ConfigError: it has mistakes. Under torchrun the first process of each machine raises it, the others
            ReportedElsewhereError.
    """
    from seq2seq.config import check_files, load_config

    try:
        config = load_config(path, overrides)
        check_files(config)
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise ReportedElsewhereError from error
        raise
    return config


@contextmanager
def opened_run(config: Config) -> Iterator[Processes]:
    """Join the processes of a run, with its folder locked, and errors of memory in one line.

    Raises:
        UserError: another process works on the folder, or memory ran out in the block.
    """
    from seq2seq.files import locked_run
    from seq2seq.memory import memory_explained
    from seq2seq.train.distributed import joined_processes

    explained = memory_explained(lambda: "the start or the saving of a run: free memory, or choose a smaller model")
    with (
        joined_processes(config.train.device) as processes,
        locked_run(config.run_dir) if processes.is_main else nullcontext(),
        explained,
    ):
        yield processes


def train_whole(config: Config, *, ends_process: bool) -> Summary:
    """Train to the end or to a signal; unless a signal came, write model cards, draw the curves, print what came out.

    Args:
        ends_process: a second signal ends the process; otherwise it raises KeyboardInterrupt.
    """
    from seq2seq.export.card import write_cards
    from seq2seq.report.curves import draw_curves
    from seq2seq.train.setup import set_up
    from seq2seq.train.trainer import train

    with opened_run(config) as processes:
        run = set_up(config, processes)
        num_parameters, sizes = sum(weight.numel() for weight in run.model.parameters()), run.data.mixture.sizes
        test_text, cleaned = run.data.test_text, run.data.cleaned
        summary = train(run, ends_process=ends_process)
        finished = processes.is_main and not summary.stopped
        if finished:
            write_cards(config.run_dir, num_parameters, sizes)
            if summary.test is not None and test_text is not None:
                _write_test_card(run.config, test_text, cleaned, num_parameters, summary.translations)
            try:
                draw_curves(config.run_dir)
            except UserError as error:
                with suppress(OSError):  # the terminal is gone, but the run is complete
                    print(f"curves.png was not drawn: {error}", file=sys.stderr)
    if finished:
        _print(summary, run.config, run.data.train.num_pairs)
    return summary


def _write_test_card(
    config: Config,
    text: MeasuredText,
    cleaned: Cleaned | None,
    num_parameters: int,
    translations: Sequence[Translation],
) -> None:
    """Write the card of the test set. The run is complete without it, so a mistake is only reported."""
    from tqdm import tqdm

    from seq2seq.evaluate.card import Card
    from seq2seq.evaluate.make_card import CARD, write_card
    from seq2seq.evaluate.run_card import run_card
    from seq2seq.report.card_page import write_card_pages

    try:
        with tqdm(desc="card: reading the training text", unit=" pairs", leave=False, disable=None) as bar:
            card = run_card(config, text, cleaned, num_parameters, translations, bar.update)
        folder = config.run_dir / "card"
        with suppress(OSError, ValueError):  # a finished run that is started again keeps the date of its card
            earlier = Card.model_validate_json((folder / CARD).read_bytes())
            if card.model_copy(update={"date": earlier.date}) == earlier:
                card = earlier
        write_card(card, folder)
        write_card_pages(card, folder)
    except UserError as error:
        with suppress(OSError):  # the terminal is gone, but the run is complete
            print(f"the card of the test set was not written: {error}", file=sys.stderr)


def stopped_line(summary: Summary, again: str) -> str:
    """What to say of a run that was stopped; ``again``: command or call."""
    return f"{summary.reason}; saved after step {summary.progress.step:,}; the same {again} continues from there"


def _print(summary: Summary, config: Config, num_pairs: int) -> None:
    from seq2seq.train.outcome import outcome, why_no_best

    progress, run_dir = summary.progress, config.run_dir
    best = "" if progress.best_score is None else f", best {config.train.metric} {abs(progress.best_score):.2f}"
    print(f"done: {summary.reason}; {progress.step:,} steps in {progress.seconds / 60:.1f} minutes{best}")
    if progress.best_step:
        print(f"best model: {run_dir / 'best'} (step {progress.best_step:,})")
    else:
        print(f"no best model; the last model is {run_dir / 'last'}: {why_no_best(config, progress)}")
    for sentence in outcome(config, progress, num_pairs):
        print(sentence)
    if summary.test is not None:
        print(f"test set, {run_dir / 'test.hyp.txt'}:\n{summary.test}")
        if (card := run_dir / "card" / "card.html").is_file():
            print(f"card of the test set, for a browser: {card}")
