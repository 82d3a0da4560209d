"""The parser, the standard streams, signals, and errors as exit codes."""

import argparse
import atexit
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from seq2seq import __version__
from seq2seq.cli import (
    average,
    calibrate,
    clean,
    config,
    curves,
    doctor,
    evaluate,
    explain,
    export,
    import_,
    merge,
    report,
    score,
    serve,
    train,
    translate,
)
from seq2seq.errors import EXIT_USER_ERROR, ReportedElsewhereError, UserError
from seq2seq.files import disk_explained
from seq2seq.signals import Ended, ended_by_signals

_COMMANDS = {
    module.__name__.rpartition(".")[2].rstrip("_"): module  # import_, because import is a word of Python
    for module in (
        *(
            train,
            doctor,
            clean,
            evaluate,
            score,
            translate,
            merge,
            serve,
            calibrate,
            explain,
            average,
            import_,
            export,
            curves,
            report,
            config,
        ),
    )
}

_EPILOG = """\
A first run, from parallel text to translations:
  seq2seq train my.yaml
  seq2seq evaluate runs/my --src test.en --ref test.de
  seq2seq translate runs/my --input new.en --output new.de
with this my.yaml:
  run_dir: runs/my
  data:
    train: {src: train.en, tgt: train.de}
    valid: {src: valid.en, tgt: valid.de}

exit codes: 0 done; 1 a bug, please report it; 2 a mistake in the arguments or
the files; 75 training was stopped by a signal, and saved; 141 the reader of the
output ended (| head); 128 + n ended by signal n (130 Ctrl-C, 143 SIGTERM)
"""


class _Parser(argparse.ArgumentParser):
    """Texts keep their lines, and an option has its explanation beside it."""

    def __init__(self, **options: Any) -> None:
        formatter = partial(argparse.RawDescriptionHelpFormatter, max_help_position=27)
        super().__init__(**options, formatter_class=formatter)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    usage = "seq2seq [-h] [--version] COMMAND ..."
    description = "Train encoder-decoder Transformers to translate, measure them, and use them."
    parser = _Parser(prog="seq2seq", usage=usage, description=description, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"seq2seq {__version__}")
    # The dots of the metavar widen a column; the longest name would get a line of its own.
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND ...", prog="seq2seq"
    )
    for command in _COMMANDS.values():
        command.add(commands)
    return parser


def _complete_streams() -> None:
    """Let every message be printed, and replace closed streams, or a file opened later would get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - it stays open
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; overrides may also stand after an option, where argparse does not look for them."""
    parser = make_parser()
    args, left = parser.parse_known_args(arguments)
    if left and (not hasattr(args, "overrides") or any("=" not in word or word.startswith("-") for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        args.overrides = [*args.overrides, *left]
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _complete_streams()
    # OpenMP's threads spin while they wait, which on busy cores takes the time of those that compute: sentences
    # translated one by one took up to a hundred times as long. OpenMP reads this when PyTorch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = _parse(arguments)
    name = f"seq2seq {args.command}"
    atexit.register(gc.freeze)  # or Python's last collection takes a quarter of a second over PyTorch's modules
    try:
        with disk_explained(), ended_by_signals(name):
            status = _COMMANDS[args.command].run(args)
            sys.stdout.flush()
    except UserError as error:
        return _report(name, error)
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt.__context__, UserError):  # a signal came while the command ended with this error
            return _report(name, interrupt.__context__)
        number = interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT
        names: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
        again = "; the same command continues from the last checkpoint, if there is one"
        hint = again if args.command == "train" else ""
        # torchrun sends SIGTERM to all processes when one of them has failed, and that one says why.
        by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and number == signal.SIGTERM
        if not by_torchrun and os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"\n{name}: {names.get(number, f'ended by {signal.Signals(number).name}')}{hint}", file=sys.stderr)
        return 128 + number
    except BrokenPipeError:  # the reader of the output has ended; the exit code is that of SIGPIPE
        _discard_stdout()
        return 141
    return status or 0


def _report(name: str, error: UserError) -> int:
    if not isinstance(error, ReportedElsewhereError):
        print(f"{name}: error: {error}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()
    return EXIT_USER_ERROR


def _discard_stdout() -> None:
    """Nothing can be written to standard output any more, but Python flushes it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
