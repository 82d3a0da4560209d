"""``seq2seq serve``: translation over HTTP, and a web page."""

import argparse
import ipaddress
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seq2seq.cli.common import Subparsers, add_decode_options, load_translator, path
from seq2seq.errors import DataError, UserError

if TYPE_CHECKING:
    from seq2seq.serve.batcher import Loaded

_EPILOG = """\
The API is that of LibreTranslate, and its clients work; /openapi.json describes
it. The page at / translates as you type. A model folder that changes is loaded
again. SIGTERM and Ctrl-C finish all accepted requests first.
exit codes: as `seq2seq -h` lists them; a server that was stopped exits with 0
"""


def add(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="translate over HTTP; a web page",
        usage="seq2seq serve MODEL [MODEL ...] [--port N] [--api-key-file FILE] [option ...]",
        description="Answer translation requests over HTTP with one model for each direction.",
        epilog=_EPILOG,
    )
    argument = parser.add_argument
    argument("models", type=path, nargs="+", metavar="MODEL", help="run folder or model folder, one a direction")
    argument("--host", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0: reachable from other machines")
    argument("--port", type=int, default=5000, metavar="N", help="default: 5000; 0: any free port")
    argument("--api-key-file", type=path, metavar="FILE", help="keys, one a line; requests need one of them")
    argument("--cors", metavar="ORIGIN", help="let pages of this origin use the server; *: all")
    limit = parser.add_argument_group("limits").add_argument
    limit("--max-characters", type=int, default=50_000, metavar="N", help="of a request; default: 50,000")
    limit("--max-lines", type=int, default=1000, metavar="N", help="of a request; default: 1,000")
    limit("--queue", type=int, default=500_000, metavar="N", help="characters that may wait; default: 500,000")
    limit("--timeout", type=float, default=60, metavar="SECONDS", help="for a request; default: 60")
    add_decode_options(parser)


def run(args: argparse.Namespace) -> None:
    _check(args)
    keys = _read_keys(args.api_key_file)
    listener = _listener(args.host, args.port)
    try:
        from seq2seq.serve import app as web
        from seq2seq.serve.metrics import Metrics
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("seq2seq"):
            raise
        raise UserError(f"{error.name} is not installed; install the extra: pip install '.[serve]'") from None
    from seq2seq.serve.api import Api, Settings
    from seq2seq.serve.batcher import Batcher
    from seq2seq.serve.models import Models

    say = partial(print, f"{args.command}:", file=sys.stderr, flush=True)
    models = Models(args.models, partial(_load, args))
    settings = Settings(args.max_characters, args.max_lines, args.timeout, keys)
    batcher = Batcher(args.queue, lambda lines, seconds: metrics.batch(lines, seconds))
    metrics = Metrics(batcher.waiting)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    directions = ", ".join(f"{one.source} to {one.target}" for one in models.directions)
    if not (keys or ipaddress.ip_address(host).is_loopback):
        say("everybody who can reach this machine may translate; --api-key-file limits that")
    models.watch(batcher, say)
    application = web.make_app(Api(models, batcher, settings), metrics, say, args.cors)
    ready = partial(say, f"{directions}: http://{shown}:{port} (Ctrl-C ends)")
    web.run(application, listener, args.timeout, ready)
    models.stop()
    batcher.stop()
    say("stopped; all accepted requests were answered")


def _check(args: argparse.Namespace) -> None:
    for name in ("max_characters", "max_lines", "queue", "timeout"):
        if not getattr(args, name) > 0:
            raise UserError(f"--{name.replace('_', '-')}: must be above 0")
    if args.queue < 2 * args.max_characters:
        raise UserError("--queue: must be at least twice --max-characters, or a request could never wait")
    if not 0 <= args.port < 1 << 16:
        raise UserError(f"--port: must be from 0 to 65535, not {args.port}")
    if args.n_best is not None:
        raise UserError("--n-best: requests say it (alternatives); remove it")
    if args.rerank is not None and len(args.models) > 1:
        raise UserError("--rerank: has one direction; give one MODEL")


def _load(args: argparse.Namespace, model: Path) -> "Loaded":
    from seq2seq.serve.batcher import Loaded

    return Loaded(*load_translator(argparse.Namespace(**{**vars(args), "models": [model]})))


def _read_keys(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        keys = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise DataError(f"--api-key-file: {file} cannot be read ({error})") from None
    if not keys:
        raise DataError(f"--api-key-file: {file} has no key; write one a line")
    return keys


def _listener(host: str, port: int) -> socket.socket:
    """A socket at an address, before models are loaded, which takes longer."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio turns Nagle's algorithm off only where the protocol is named; with it, each answer is 40 ms late.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UserError(f"cannot use {host} port {port} ({error.strerror}); choose another --port or --host") from None
    return listener
