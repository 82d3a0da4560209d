"""Export to a package of Argos Translate, which LibreTranslate loads, too: a zip archive with a model of CTranslate2.

Its format (https://github.com/argosopentech/argos-translate): ``metadata.json``, ``model/``, ``sentencepiece.model``
and ``README.md`` in a folder. Argos has one tokenizer for both sides and puts nothing before the source.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from seq2seq.data.tokenizer import Tokenizer
from seq2seq.errors import UserError
from seq2seq.export import ctranslate2
from seq2seq.languages import short_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seq2seq.export.parity import Scored
    from seq2seq.model_folder import LoadedModel

_OUTPUT_TOKENS = 256  # the longest translation of a sentence in Argos
_VERSION = "1.0"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # so that equal models make equal archives
_LANGUAGES = """
ar Arabic az Azerbaijani bg Bulgarian bn Bengali ca Catalan cs Czech da Danish de German el Greek en English
eo Esperanto es Spanish et Estonian eu Basque fa Persian fi Finnish fr French ga Irish gl Galician he Hebrew
hi Hindi hu Hungarian id Indonesian it Italian ja Japanese ko Korean ky Kyrgyz lt Lithuanian lv Latvian
ms Malay nb Norwegian no Norwegian nl Dutch pl Polish pt Portuguese ro Romanian ru Russian sk Slovak
sl Slovenian sq Albanian sr Serbian sv Swedish th Thai tl Tagalog tr Turkish uk Ukrainian ur Urdu
vi Vietnamese zh Chinese
"""  # codes, and what menus show

_USAGE = """\
`{archive}` is a package for [Argos Translate](https://github.com/argosopentech/argos-translate) and
[LibreTranslate](https://libretranslate.com):

```bash
argospm install {archive}
argos-translate --from {source} --to {target} "..."
```

LibreTranslate finds what Argos Translate has installed. `parity.txt` says how the translations of the model in it
compare with those of the program that trained it. Argos cuts text into sentences itself, with rules that it downloads,
has a beam of 4 with a penalty for length of its own, writes no empty translation, and chooses the number format
(`ARGOS_COMPUTE_TYPE=float32` is the one that was compared). It writes spaces for underscores.
"""


def check(loaded: LoadedModel) -> None:
    """Raise UserError if CTranslate2 is missing, or Argos cannot use the model."""
    ctranslate2.check(loaded)
    if not loaded.tokenizers.joint:
        raise UserError("Argos has one tokenizer for both sides; train with tokenizer.joint: true")
    if all(text.tag is not None for text in loaded.config.data.train):
        raise UserError(
            "the model needs a tag before every sentence, and Argos puts nothing there; export to ctranslate2"
        )
    _languages(loaded)
    if (longest := loaded.model.max_length) is not None and longest < _OUTPUT_TOKENS:
        raise UserError(
            f"Argos writes sentences of {_OUTPUT_TOKENS} tokens, but the model has learned positions for {longest}; "
            "train with model.positions: sinusoidal or rotary"
        )


def convert(loaded: LoadedModel, folder: Path) -> None:
    """Write the archive into an existing folder."""
    source, target = _languages(loaded)
    words = _LANGUAGES.split()
    names = dict(zip(words[::2], words[1::2], strict=True))
    metadata = {
        "package_version": _VERSION,
        "argos_version": "1.9",
        "from_code": source,
        "from_name": names.get(source, source),
        "to_code": target,
        "to_name": names.get(target, target),
        "type": "translate",
    }
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary)
        ctranslate2.convert(loaded, model)
        kept = [path for path in sorted(model.iterdir()) if not path.name.startswith("tokenizer")]
        files = {
            "metadata.json": json.dumps(metadata, indent=2, ensure_ascii=False).encode(),
            "README.md": f"# {metadata['from_name']} to {metadata['to_name']}\n".encode(),
            "sentencepiece.model": loaded.tokenizers.src.model,
        }
        with zipfile.ZipFile(folder / _archive(source, target), "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(_entry(source, target, name), content, zipfile.ZIP_DEFLATED)
            for path in kept:
                with archive.open(_entry(source, target, f"model/{path.name}"), "w") as to, path.open("rb") as file:
                    while block := file.read(1 << 20):
                        to.write(block)


def translate(folder: Path, source_ids: Sequence[Sequence[int]], beam_size: int, max_length: int) -> list[Scored]:
    """The best translation of each source by the model in the archive, with its tokenizer's pieces."""
    with _unpacked(folder) as package:
        return ctranslate2.translate(package / "model", source_ids, beam_size, max_length)


def translate_int8(folder: Path, source_ids: Sequence[Sequence[int]], beam_size: int, max_length: int) -> list[Scored]:
    """:func:`translate` with 8-bit integers, which Argos uses where the CPU has them."""
    with _unpacked(folder) as package:
        return ctranslate2.translate_int8(package / "model", source_ids, beam_size, max_length)


def usage(loaded: LoadedModel) -> str:
    """How to use the export, in Markdown."""
    source, target = _languages(loaded)
    return _USAGE.format(archive=_archive(source, target), source=source, target=target)


@contextmanager
def _unpacked(folder: Path) -> Iterator[Path]:
    """The folder in the archive; raises UserError if its tokenizer and its vocabulary do not have the same pieces."""
    (archive,) = folder.glob("*.argosmodel")
    with tempfile.TemporaryDirectory() as temporary:
        with zipfile.ZipFile(archive) as file:
            file.extractall(temporary)
        (package,) = Path(temporary).iterdir()
        tokenizer = Tokenizer.load(package / "sentencepiece.model")
        vocabulary = json.loads((package / "model" / "shared_vocabulary.json").read_text(encoding="utf-8"))
        if vocabulary != tokenizer.pieces(range(tokenizer.vocab_size)):
            raise UserError("the tokenizer and the vocabulary of the package differ")
        yield package


def _languages(loaded: LoadedModel) -> tuple[str, str]:
    """The codes of both languages, as short as they are known."""
    data = loaded.config.data
    if data.source_language is None or data.target_language is None:
        raise UserError("Argos needs the languages; set data.src_lang and data.tgt_lang in config.yaml of the model")
    return short_code(data.source_language), short_code(data.target_language)


def _archive(source: str, target: str) -> str:
    return f"translate-{source}_{target}-{_VERSION.replace('.', '_')}.argosmodel"


def _entry(source: str, target: str, name: str) -> zipfile.ZipInfo:
    folder = _archive(source, target).removesuffix(".argosmodel")
    entry = zipfile.ZipInfo(f"{folder}/{name}", _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
