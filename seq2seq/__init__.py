"""seq2seq: train encoder-decoder models to translate, measure them, and use them.

>>> import seq2seq
>>> run = seq2seq.train("my.yaml")
>>> translator = seq2seq.Translator.load(run)
>>> translator.translate("A man rides a horse.")
'Ein Mann reitet auf einem Pferd.'
>>> seq2seq.score(translator.translate(source_lines), reference_lines, target_language="de")

What is slow to import is imported on first use, so ``import seq2seq`` costs nothing.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from seq2seq import whole_run

if TYPE_CHECKING:
    from seq2seq.config import DecodeConfig as DecodeConfig
    from seq2seq.decode.translation import Translation as Translation
    from seq2seq.decode.translator import Translator as Translator
    from seq2seq.errors import UserError as UserError
    from seq2seq.evaluate import Scores as Scores
    from seq2seq.evaluate import score as score
    from seq2seq.whole_run import train as train

__version__ = "0.1.0"
__all__ = ["DecodeConfig", "Scores", "Translation", "Translator", "UserError", "__version__", "score", "train"]

_HOMES = {
    "DecodeConfig": "seq2seq.config",
    "Scores": "seq2seq.evaluate",
    "Translation": "seq2seq.decode.translator",
    "Translator": "seq2seq.decode.translator",
    "UserError": "seq2seq.errors",
    "score": "seq2seq.evaluate",
}


class _Training(ModuleType):
    """The subpackage ``train``, which can be called: its name is also that of the function."""

    def __call__(self, config: str | Path, overrides: Sequence[str] = ()) -> Path:
        return whole_run.train(config, overrides)

    __call__.__doc__ = whole_run.train.__doc__


import_module("seq2seq.train").__class__ = _Training  # the subpackage itself is only a line of text

if not TYPE_CHECKING:  # type checkers would take any name for one of the package

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'seq2seq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
