"""What several commands share: arguments, and a translator with its decoding options."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from seq2seq.errors import UserError

if TYPE_CHECKING:
    from seq2seq.config import DecodeConfig
    from seq2seq.decode.translator import Translator

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

MODEL_HELP = "run folder (uses its best model) or model folder"


def path(text: str) -> Path:
    """A path from the command line; in ``--output=~/x`` the shell does not expand the ``~``."""
    return Path(os.path.expanduser(text))


def add_config(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Add the arguments of a command that reads a config."""
    help_ = "YAML file; `seq2seq config --schema` describes every key"
    parser.add_argument("config", type=path, nargs=nargs, metavar="CONFIG", help=help_)
    help_ = "overrides the file, for example optim.lr=0.002"
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help=help_)


def add_decode_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that translates: one for each key of the decode section, and the machine."""
    option = parser.add_argument_group("decoding (default: the values in the model's config)").add_argument
    option("--beam-size", type=int, metavar="K", help="hypotheses that beam search keeps; 1: greedy search")
    option("--length-penalty", type=float, metavar="A", help="0: none; a larger value: longer translations")
    option("--n-best", type=int, metavar="N", help="translations per line, at most")
    option("--max-length-ratio", type=float, metavar="R", help="output length limit: R x source tokens + T")
    option("--max-length-offset", type=int, metavar="T", help="see --max-length-ratio")
    option("--split-sentences", choices=["true", "false"], metavar="BOOL", help="true: translate sentence by sentence")
    option("--tag", metavar="TAG", help="the tag before every sentence (data.train.tag)")
    option("--batch-tokens", type=int, metavar="T", help="batch size: source tokens x beam size")
    option("--quantize", choices=["int8", "none"], metavar="KIND", help="int8 (on the CPU) or none")
    help_ = "torch, or ctranslate2 (one model, on the CPU)"
    option("--engine", choices=["torch", "ctranslate2"], metavar="NAME", help=help_)
    option("--suppress", action="append", metavar="TEXT", help="never write its pieces; may be repeated")
    option("--no-repeat-ngram", type=int, metavar="N", help="never write the same N pieces twice; 0: off")
    help_ = "copy exactly: tags,placeholders,urls,emails,numbers"
    option("--protect", type=_kinds, metavar="KINDS", help=help_)
    option("--choose", choices=["score", "mbr"], metavar="NAME", help="mbr: the candidate most like the others")
    option("--rerank", type=path, metavar="MODEL", help="choose with a model from target to source language")
    option("--rerank-weight", type=float, metavar="W", help="of that model's score per token; default: 0.25")
    option("--sample", action="store_true", default=None, help="draw tokens at random; no beam search")
    option("--num-samples", type=int, metavar="N", help="sampling: candidates per line; default: --n-best")
    option("--temperature", type=float, metavar="X", help="sampling: below 1 prefers likely tokens")
    option("--top-k", type=int, metavar="K", help="sampling: only the K most likely tokens")
    option("--top-p", type=float, metavar="P", help="sampling: most likely tokens, up to probability P")
    option("--seed", type=int, metavar="N", help="sampling: same seed, same translations")
    add_machine_options(parser)


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for where and how a model is computed."""
    option = parser.add_argument_group("machine").add_argument
    help_ = "cpu or cuda; default: cuda if available"
    option("--device", choices=["auto", "cpu", "cuda"], default="auto", metavar="NAME", help=help_)
    help_ = "fp32; on CUDA bf16 or fp16 is the default"
    option("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto", metavar="KIND", help=help_)
    option("--threads", type=int, metavar="N", help="CPU threads; default: all")


def _kinds(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split(","))


def given_decode_options(args: argparse.Namespace) -> list[str]:
    """The options of :func:`add_decode_options` whose value is not the default."""
    parser = argparse.ArgumentParser(add_help=False)
    add_decode_options(parser)
    defaults = vars(parser.parse_args([]))
    return [f"--{name.replace('_', '-')}" for name, value in defaults.items() if getattr(args, name) != value]


def load_translator(args: argparse.Namespace) -> tuple[Translator, DecodeConfig]:
    """Load the model on its device, with its decoding options as changed on the command line.

    Options that the command does not have keep their defaults.

    Raises:
        UserError: there is no model, it is damaged, or an option has a wrong value.
    """
    from seq2seq.config import DecodeConfig, override_decode
    from seq2seq.decode.translator import Translator
    from seq2seq.device import keep_freed_memory
    from seq2seq.model_folder import find_model_folder

    keep_freed_memory()
    if getattr(args, "threads", None) is not None:
        import torch

        if args.threads < 1:
            raise UserError("--threads: must be at least 1")
        torch.set_num_threads(args.threads)
    translator = Translator.load(
        args.models, args.device, getattr(args, "precision", "auto"), getattr(args, "engine", None)
    )
    for number, model in enumerate(args.models, start=1):
        if find_model_folder(model) == model / "last":
            step = translator.metadata.get("step" if len(args.models) == 1 else f"{number}.step")
            print(f"{model}: no best model yet; using last (step {step}), which was not validated", file=sys.stderr)
    if translator.edited:
        whose = f"{args.models[0]}: its" if len(args.models) == 1 else "a"
        edited = "; ".join(translator.edited)
        print(f"{whose} config.yaml was edited after training: {edited}", file=sys.stderr)
    words = {"true": True, "false": False, "none": None}
    given = {name: value for name in DecodeConfig.model_fields if (value := getattr(args, name, None)) is not None}
    given = {name: words.get(value, value) if isinstance(value, str) else value for name, value in given.items()}
    decode = override_decode(translator.config.decode, given, as_flags=True)
    decode = translator.engine.settle(decode, partial(print, f"seq2seq {args.command}:", file=sys.stderr))
    return _with_reverse(args, translator), decode


def _with_reverse(args: argparse.Namespace, translator: Translator) -> Translator:
    """The translator with the model of --rerank, if there is one."""
    if getattr(args, "rerank", None) is None:
        if getattr(args, "rerank_weight", None) is not None:
            raise UserError("--rerank-weight: has no effect without --rerank MODEL")
        return translator
    from seq2seq.decode.rerank import DEFAULT_WEIGHT, with_reverse

    reverse = type(translator).load(args.rerank, args.device, args.precision, args.engine)
    return with_reverse(translator, reverse, DEFAULT_WEIGHT if args.rerank_weight is None else args.rerank_weight)
