"""The programs to measure: which there are, and which are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple


class Program(NamedTuple):
    """Something to measure."""

    name: str
    title: str  # in the report
    job: str
    module: str = "seq2seq"  # to be imported
    install: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is this package."""
        return self.module == "seq2seq"


_OPENNMT = (
    "pip install --no-deps OpenNMT-py==3.5.1; pip install pyonmttok configargparse spacy rapidfuzz pyahocorasick six"
)
_EOLE = "pip install --no-deps eole==0.6.4; pip install pyonmttok configargparse rapidfuzz pyahocorasick six"
_JOEYNMT = "pip install --no-deps joeynmt==2.3.0; pip install importlib_metadata subword-nmt sacremoses packaging"
# The jobs name a function of bench.peers or a module of bench.translators, and the distribution that it comes from.
PEERS = (
    Program("nn_transformer", "nn.Transformer", "bench.padded:nn_transformer:torch", "torch", "pip install torch"),
    Program("marian", "HF Marian", "bench.padded:marian:transformers", "transformers", "pip install transformers"),
    Program("opennmt", "OpenNMT-py", "bench.padded:opennmt:OpenNMT-py", "onmt", f"{_OPENNMT} fasttext-wheel"),
    Program("eole", "eole", "bench.padded:eole:eole", "eole", _EOLE),
    Program("joeynmt", "JoeyNMT", "bench.padded:joeynmt:joeynmt", "joeynmt", _JOEYNMT),
)
# The same for --architecture recurrent.
RECURRENT_PEERS = (Program("nn_lstm", "nn.LSTM", "bench.padded:nn_lstm:torch", "torch", "pip install torch"),)
# Ways to train the peer of time to quality, which bench.marian has.
RECIPES = tuple(
    Program(f"marian_{name}", f"HF Marian, {name} recipe", f"bench.marian:{name}", "transformers", PEERS[1].install)
    for name in ("usual", "best")
)
TRANSLATORS = tuple(
    Program(name, title, f"bench.decoding:{name}:{name}", name, f"pip install {name}")
    for name, title in (("ctranslate2", "CTranslate2"), ("transformers", "HF transformers"))
)


def choose(programs: Sequence[Program], wanted: Sequence[str]) -> tuple[list[Program], list[str]]:
    """The programs to run of those wanted, and a line for each one that is not installed."""
    asked = [program for program in programs if program.name in wanted]
    there = [program for program in asked if importlib.util.find_spec(program.module)]
    return there, [f"{program.title}: not installed: {program.install}" for program in asked if program not in there]
