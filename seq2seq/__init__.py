"""seq2seq: train encoder-decoder Transformers to translate, measure them, and use them.

The Python API is :class:`seq2seq.decode.translator.Translator`; it is imported on first use, so that
``import seq2seq`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seq2seq.decode.translator import Translator as Translator

__version__ = "0.1.0"
__all__ = ["Translator", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Translator":
        return import_module("seq2seq.decode.translator").Translator
    raise AttributeError(f"module 'seq2seq' has no attribute {name!r}")
