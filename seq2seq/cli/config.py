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


def run(args: argparse.Namespace) -> None:
    from seq2seq.config import dump_config, load_config, schema

    if args.schema == (args.config is not None):
        raise UserError("give either a config file or --schema")
    print(json.dumps(schema(), indent=2) if args.schema else dump_config(load_config(args.config, args.overrides)))
