"""``seq2seq config``: check a config and print it with all defaults, or print the schema."""

import argparse
import json

from seq2seq.cli.common import Subparsers, add_config
from seq2seq.errors import UserError


def add(subparsers: Subparsers) -> None:
    help_ = "check a config and print it with all defaults"
    description = "Check a config and print it with all defaults, or print the JSON schema."
    parser = subparsers.add_parser("config", help=help_, description=description)
    add_config(parser, nargs="?")
    help_ = "print the JSON schema: every key, for people and editors"
    parser.add_argument("--schema", action="store_true", help=help_)
    help_ = "print what train would choose for keys that are auto, and why (prepares the data, as train does)"
    parser.add_argument("--explain", action="store_true", help=help_)


def run(args: argparse.Namespace) -> None:
    from seq2seq.config import dump_config, load_config, schema

    if args.schema == (args.config is not None) or (args.schema and args.explain):
        raise UserError("give either a config file or --schema")
    if args.schema:
        print(json.dumps(schema(), indent=2))
        return
    config = load_config(args.config, args.overrides)
    if not args.explain:
        print(dump_config(config))
        return
    from seq2seq.train.decide import decide
    from seq2seq.train.distributed import joined_processes
    from seq2seq.train.resume import earlier_starts

    with joined_processes(config.train.device) as processes:
        print(decide(config, processes, earlier_starts(config.run_dir, processes.say)))
