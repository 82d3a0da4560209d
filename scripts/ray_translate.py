"""A large file translated in parts on a Ray cluster, with one command:

    python scripts/ray_translate.py --parts 32 runs/my --input big.en --output big.de --beam-size 4
    python scripts/ray_translate.py --parts 32 --address 10.0.0.1:6379 runs/my --input big.en --output big.de

All other options are those of ``seq2seq translate``. Each part is a task of Ray that runs ``translate --shard I/N
--resume``; ``seq2seq merge`` proves and joins them. A task whose worker is lost (killed, out of memory, its machine
gone) is started again and continues after the last saved line. The same command continues an interrupted one, also one
whose cluster is gone: without its head node, Ray ends the command after a minute (exit code 1).

With --address, this machine must be a node of the cluster (``ray start --address=HOST:PORT``). Since Ray 2.59,
``ray start --head`` asks for a token if ``~/.ray/auth_token`` exists, and ``ray.init()`` without an address makes that
file. Give all machines the same file, and ``export RAY_AUTH_MODE=token`` on each, or Ray does not send the token.

The model, the text and the translation must be on a disk that all machines share, this one included, under the same
paths; all need the same Python, seq2seq and Ray. Without --address, a cluster that runs on this machine is used, or a
new one is started, which ends with the command; ``--address local`` starts a new one in any case. A part takes
``--threads`` cores (default: 1) and, with ``--device cuda``, one GPU; ``--device auto`` means cuda if the cluster has
GPUs. What a part prints is in ``big.de.shard-1-of-32.log``.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seq2seq.cli.main import main as seq2seq
from seq2seq.cli.main import make_parser
from seq2seq.decode.merge import merge
from seq2seq.decode.output import saved_lines, wait_for_writer
from seq2seq.decode.shards import Shard, shard_files, shards_of
from seq2seq.decode.streams import is_stream
from seq2seq.errors import EXIT_USER_ERROR, UserError
from seq2seq.signals import Ended, ended_by_signals

_NAME = "ray_translate"
_RETRIES = 10  # a part that ends its worker every time must end the command


def make_options(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options of this script with those of translate, and the words for translate.

    Raises UserError for a mistake that every part would make.
    """
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(_NAME, description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("--parts", type=int, required=True, metavar="N", help="several for each machine or GPU")
    parser.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster; local: a new one on this machine")
    own, words = parser.parse_known_args(arguments)
    options = make_parser().parse_args(["translate", *words], own)
    if options.parts < 1:
        raise UserError(f"--parts: must be at least 1, not {options.parts}")
    if options.shard is not None:
        raise UserError("--shard: is for one part; --parts N translates all of them")
    if not Path(options.input).is_file() or options.output == "-" or is_stream(options.output):
        raise UserError("--input and --output: give files on a disk that all machines share")
    for _, count, path in shard_files(Path(options.output)):
        if count != options.parts:
            raise UserError(f"{path}: is a part of {count}; give --parts {count}, or remove the parts of {count}")
    return options, words


def translate_part(place: Path, words: list[str], part: str, log: Path) -> None:
    """One part, in a process of Ray.

    Raises:
        UserError: translate reports a mistake.
        InterruptedError: a signal ended it, and another worker may continue.
    """
    try:
        os.chdir(place)
        file = log.open("a", encoding="utf-8")
        wait_for_writer(Path(os.path.realpath(log.with_suffix(""))))  # a lost worker may not have ended yet
    except OSError as error:
        problem = f"{error.filename}: {error.strerror} on {os.uname().nodename}"
        raise UserError(f"{problem}; all machines need the same disk under the same path") from None
    with file, redirect_stderr(file):
        status = seq2seq(["translate", *words, "--shard", part, "--resume"])
    last = log.read_text(encoding="utf-8").rstrip().rpartition("\n")[2].removeprefix("seq2seq translate: error: ")
    if status:
        raise UserError(last) if status == EXIT_USER_ERROR else InterruptedError(last)


def translate_parts(ray: Any, options: argparse.Namespace, words: list[str], shards: Sequence[Shard]) -> None:
    """All parts as tasks of the cluster, with a bar in lines.

    Raises:
        UserError: no machine is large enough, translate reports a mistake, or a part has lost too many workers.
    """
    needed = {"CPU": options.threads or 1, "GPU": int(options.device == "cuda")}
    if options.device == "auto":
        needed["GPU"] = int(ray.cluster_resources().get("GPU", 0) >= 1)
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(machine.get(kind, 0) >= number for kind, number in needed.items()) for machine in machines):
        raise UserError(f"no machine of the cluster has --threads {needed['CPU']} cores and {needed['GPU']} GPUs")
    words = [*words, "--threads", str(needed["CPU"]), "--device", "cuda" if needed["GPU"] else "cpu"]
    # A process for each part, or the memory of a GPU would stay with a worker that waits.
    task = ray.remote(max_calls=1, max_retries=_RETRIES, retry_exceptions=[InterruptedError])(translate_part)
    task = task.options(num_cpus=needed["CPU"], num_gpus=needed["GPU"])
    tasks, logs = {}, {shard: Path(f"{shard.file(options.output)}.log") for shard in shards}
    for shard, log in logs.items():
        tasks[task.remote(Path.cwd(), words, f"{shard.number}/{shard.count}", log)] = shard
    pending, saved = list(tasks), {shard: _saved(shard, options.output) for shard in shards}
    whole, first = shards[0].num_lines, sum(saved.values())
    with tqdm(desc="translating", unit=" lines", total=whole, initial=first, smoothing=0, mininterval=0.5) as bar:
        while pending:
            done, pending = ray.wait(pending, timeout=1)
            for one in done:
                try:
                    ray.get(one)
                except ray.exceptions.RayError as error:
                    raise _explained(ray, error, logs[tasks[one]]) from None
            saved |= {tasks[one]: _saved(tasks[one], options.output) for one in (*done, *pending)}
            bar.set_postfix_str(f"{len(shards) - len(pending)} of {len(shards)} parts", refresh=False)
            bar.update(sum(saved.values()) - bar.n)


def _saved(shard: Shard, output: str) -> int:
    """Translated lines of a part that are on the disk."""
    return max(0, saved_lines(Path(os.path.realpath(shard.file(output)))) - shard.span.start)


def _explained(ray: Any, error: Any, log: Path) -> Exception:
    """What a failed part raises: a mistake as it is, a lost worker with its log, a bug with its traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return cause
    if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(cause, InterruptedError):
        return error  # type: ignore[no-any-return]
    what = str(cause or error).partition("\n")[0]
    return UserError(f"{log}: worker lost {_RETRIES + 1} times ({what}); the same command continues")


def _connect(ray: Any, address: str | None) -> None:
    """Join the cluster, or start one; raises UserError if it does not answer, or refuses this machine."""
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, ray.exceptions.RayError) as error:
        advice = "this machine must be a node of the cluster; if the cluster has a token, set RAY_AUTH_MODE=token"
        if address is None:  # Ray remembers one that was killed
            advice = "if that cluster is gone, give --address local, which starts a new one"
        raise UserError(f"--address: {str(error).partition(chr(10))[0]}; {advice}") from None


def run(options: argparse.Namespace, words: list[str]) -> str:
    """Translate and merge; returns a sentence about the whole."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a translation reports nothing to anybody
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed: pip install '.[ray]'") from None
    shards = shards_of(options.input, options.invalid_bytes, options.parts)
    with redirect_stdout(sys.stderr):  # where Ray reports lost workers and machines
        try:
            _connect(ray, options.address)
            with ended_by_signals(_NAME):  # after init, which has a handler of its own
                translate_parts(ray, options, words, shards)
        finally:
            ray.shutdown()
    with ended_by_signals(_NAME):  # Ray's handler of SIGTERM is still there
        return merge(Path(options.output))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code, which means the same as those of seq2seq."""
    try:
        print(run(*make_options(arguments)))
    except UserError as error:
        print(f"{_NAME}: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt as interrupt:
        print(f"\n{_NAME}: interrupted; the same command continues", file=sys.stderr)
        return 128 + (interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
