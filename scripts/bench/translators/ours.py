"""This package's ``Translator``."""

from __future__ import annotations

from argparse import Namespace

import torch

from bench.decoding import Translate
from seq2seq.config import DecodeConfig
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError


def _refuse(reason: str) -> None:
    """A row that says int8 must not be one of fp32."""
    raise UserError(f"{reason}; leave it out with --without-int8")


def load(spec: Namespace) -> tuple[Translate, Translate]:
    """The model in the number format and on the device that the spec names."""
    torch.set_num_threads(spec.threads)
    precision = "bf16" if spec.number_format == "bfloat16" else "fp32"
    translator = Translator.load(spec.model, spec.device, precision)
    limits = translator.config.decode.model_dump(include={"max_length_ratio", "max_length_offset", "batch_tokens"})
    options = {**limits, "beam_size": spec.beam_size, "length_penalty": spec.length_penalty}
    options["quantize"] = "int8" if spec.number_format == "int8" else None
    decode = translator.engine.settle(DecodeConfig.model_validate(options), _refuse)

    def translate(lines: list[str]) -> list[str]:
        return translator.translate(lines, decode)

    return translate, translate
