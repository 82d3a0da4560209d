"""This package's ``Translator``."""

from __future__ import annotations

from typing import Any

import torch

from bench.decoding import DecodeSpec, Loaded, measure
from seq2seq.config import DecodeConfig
from seq2seq.decode.translator import Translator


def _refuse(reason: str) -> None:
    """A row that says int8 must not be one of fp32."""
    raise RuntimeError(reason)


def _load(spec: DecodeSpec) -> Loaded:
    torch.set_num_threads(spec.threads)
    precision = "bf16" if spec.number_format == "bfloat16" else "fp32"
    translator = Translator.load(spec.model, spec.device, precision)
    limits = translator.config.decode.model_dump(include={"max_length_ratio", "max_length_offset", "batch_tokens"})
    options = {**limits, "beam_size": spec.beam_size, "length_penalty": spec.length_penalty}
    if "quantize" in DecodeConfig.model_fields:
        options["quantize"] = "int8" if spec.number_format == "int8" else None
    decode = translator.settle(DecodeConfig.model_validate(options), _refuse)

    def translate(lines: list[str]) -> list[str]:
        return translator.translate(lines, decode)

    return Loaded(translate, translate)


def run(values: dict[str, Any]) -> dict[str, Any]:
    """The job."""
    return measure(values, _load, "seq2seq")
