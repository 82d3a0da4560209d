"""Datasets: the kinds of files that hold parallel text, and what must be said of each.

Every dataset has one key that names its files, which decides its kind.
"""

import difflib
import glob
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

from seq2seq.config.cleaning import CleanConfig
from seq2seq.config.keys import Paths, Section, option, show
from seq2seq.languages import language_of

Column: TypeAlias = str | Annotated[int, Field(ge=0)]


_TABLE = re.compile(r"\.(csv|tsv)(?:\.(?:gz|bz2|xz|zst))?$")


class Dataset(Section):
    """What all datasets share."""

    @property
    def languages(self) -> tuple[str | None, str | None]:
        """The codes of source and target language, as far as the dataset says them."""
        return None, None


class ParallelText(Dataset):
    """What all datasets in files share."""

    name: str | None = option(None, "What reports call the dataset. Default: the name of its first file.")
    tag: str | None = option(
        None,
        "A word that the model sees before every source sentence, such as the kind of text (bt for back-translation) "
        "or the target language. It is one piece, which no text has. To translate with it: decode.tag.",
    )
    weight: float = option(
        1.0, "data.train: how often an epoch has each pair; 4 is four times, 0.5 every second time.", gt=0, le=1000
    )
    from_epoch: int = option(1, "data.train: the first epoch that has the dataset.", ge=1)
    until_epoch: int | None = option(None, "data.train: the last epoch that has it. null: until training ends.", ge=1)
    clean: CleanConfig | None = option(
        None, "data.train: rules for the pairs of this dataset; its keys override those of data.clean."
    )

    @model_serializer(mode="wrap")
    def _files_first(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """In a printed config, the files come before the keys that few datasets need."""
        values: dict[str, Any] = serialize(self)
        return dict(sorted(values.items(), key=lambda item: not type(self).model_fields[item[0]].is_required()))

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        if self.tag is not None and not re.fullmatch(r"[\w-]{1,40}", self.tag, re.ASCII):
            yield "tag", f"must be a word of letters, digits, _ and -, at most 40, not {show(self.tag)}"
        if self.until_epoch is not None and self.until_epoch < self.from_epoch:
            yield "until_epoch", f"must be at least from_epoch ({self.from_epoch}), not {self.until_epoch}"


# Keys that have no meaning for text to measure with.
_OF_TRAIN = ("weight", "from_epoch", "until_epoch", "clean", "score")


class TextFiles(ParallelText):
    """Parallel text in plain files: line n of the target translates line n of the source."""

    src: Paths = Field(
        description="Source text: a file, or a list of files that are read one after the other. part-*.en names all "
        "files that match."
    )
    tgt: Paths = Field(
        description="Target text: the same number of files as src. Line n of each translates line n of its source file."
    )

    @property
    def languages(self) -> tuple[str | None, str | None]:
        """From the names of the first files: train.en.gz is en."""
        return language_of(self.src[0]), language_of(self.tgt[0])

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        yield from super()._broken_rules()
        if len(self.src) != len(self.tgt):
            yield "tgt", f"must have the same number of files as src ({len(self.src)}), not {len(self.tgt)}"
        for side in ("src", "tgt"):
            for path in getattr(self, side):
                if table := _TABLE.search(path.name):  # they cannot be told from plain lines by what is in them
                    remedy = f"write {{{table[1]}: FILE, src: COLUMN, tgt: COLUMN}}, or rename a file of plain lines"
                    yield side, f"{path.name} is a table by its name; {remedy}"


_SCORE = "How good each pair is: a column of numbers, as for src. With min_score. For data.train only."


class _Columns(ParallelText):
    """A dataset whose source and target have names."""

    score: Column | None = option(None, _SCORE)
    min_score: float | None = option(None, "Leave out pairs whose score is lower.")

    @property
    def languages(self) -> tuple[str | None, str | None]:
        """From names such as en or translation.en."""
        src, tgt = (language_of(Path(f"x.{getattr(self, side)}")) for side in ("src", "tgt"))
        return src, tgt

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        yield from super()._broken_rules()
        src, tgt = (getattr(self, side) for side in ("src", "tgt"))
        if src == tgt:
            yield "tgt", f"must be another column than src, {src!r}"
        if (self.score is None) != (self.min_score is None):
            missing, other = ("score", "min_score") if self.score is None else ("min_score", "score")
            yield missing, f"missing; state it with {other}, or remove {other}"


_COLUMN = "A column: its name in the first row, or its number from 0. With two numbers, the first row is text, too."


class TsvFiles(_Columns):
    """Tables with tabs between the cells, one row a line, without quotes."""

    tsv: Paths = Field(description="Tables with tabs between the cells: a file, or a list of files.")
    src: Column = Field(description=f"Source text. {_COLUMN}")
    tgt: Column = Field(description="Target text. As for src.")


class CsvFiles(_Columns):
    """Tables as spreadsheets save them: cells may be in quotes, and then hold commas and line breaks."""

    csv: Paths = Field(description="Tables with commas between the cells, some in quotes: a file, or a list of files.")
    src: Column = Field(description=f"Source text. {_COLUMN}")
    tgt: Column = Field(description="Target text. As for src.")
    delimiter: str = option(",", 'What stands between two cells: one character, often ";" in files of Excel.')

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        yield from super()._broken_rules()
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            yield "delimiter", f"must be one character that is no quote or line break, not {self.delimiter!r}"


class XlsxFiles(_Columns):
    """Spreadsheets of Excel and LibreOffice."""

    xlsx: Paths = Field(description="Spreadsheets (.xlsx): a file, or a list of files.")
    src: Column = Field(description=f"Source text. {_COLUMN}")
    tgt: Column = Field(description="Target text. As for src.")
    sheet: str | None = option(None, "Name of the sheet. Default: the first one.")


class JsonlFiles(_Columns):
    """One JSON object in every line."""

    jsonl: Paths = Field(description="Files with a JSON object in every line: a file, or a list of files.")
    src: str = Field(description="Source text: a key, with dots for what is in an inner object (translation.en).")
    tgt: str = Field(description="Target text. As for src.")
    score: str | None = option(None, _SCORE)


class ParquetFiles(_Columns):
    """Tables in Parquet, as datasets of Hugging Face have them."""

    parquet: Paths = Field(description="Tables in Parquet: a file, or a list of files.")
    src: str = Field(description="Source text: a column, with dots for what is in an inner record (translation.en).")
    tgt: str = Field(description="Target text. As for src.")
    score: str | None = option(None, _SCORE)


class _Languages(ParallelText):
    """A dataset that holds several languages."""

    src_lang: str = Field(description="Source language, as the files name it. en also takes en-US if there is no en.")
    tgt_lang: str = Field(description="Target language. As for src_lang.")

    @property
    def languages(self) -> tuple[str | None, str | None]:
        """As stated."""
        return self.src_lang, self.tgt_lang

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        yield from super()._broken_rules()
        if self.src_lang == self.tgt_lang:
            yield "tgt_lang", f"must be another language than src_lang, {self.src_lang!r}"


class TmxFiles(_Languages):
    """Translation memories. Of several variants of a language, the exact code counts, else the first in a unit."""

    tmx: Paths = Field(description="Translation memories (TMX): a file, or a list of files.")
    mend: bool = option(
        False,
        "true: repair what XML forbids but some programs write: control characters are removed, a bare & counts as &.",
    )


class MosesFiles(_Languages):
    """Zip archives as OPUS has them: a text file for each language."""

    moses: Paths = Field(description="Zip archives with a text file for each language (OPUS): a file, or a list.")


class HeldOut(Dataset):
    """Pairs that are taken out of the training text."""

    from_train: int | str = Field(description="How many pairs: a number, or a share such as 2%.")

    @property
    def share(self) -> float | None:
        """The share of the pairs, if it is stated so."""
        return float(self.from_train[:-1]) / 100 if isinstance(self.from_train, str) else None

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        stated = self.from_train
        if not (stated > 0 if isinstance(stated, int) else re.fullmatch(r"\d{1,2}(\.\d+)?%", stated) and self.share):
            yield "from_train", f"must be a number of pairs > 0 or a share such as 2%, not {show(stated)}"


_KINDS = ("tsv", "csv", "xlsx", "jsonl", "parquet", "tmx", "moses")


def keys_of_train(dataset: Dataset) -> list[str]:
    """The keys of a dataset that have no meaning for text to measure with, but are stated."""
    fields = type(dataset).model_fields
    return [key for key in _OF_TRAIN if key in fields and getattr(dataset, key) != fields[key].default]


def _kind(value: Any) -> str:
    """The key that decides which dataset a value is, also if it is misspelt; plain files have none but src."""
    keys = list(value) if isinstance(value, dict) else type(value).model_fields if isinstance(value, Section) else ()
    names = [str(key) for key in keys if key not in TextFiles.model_fields]
    near = [kind for name in names for kind in difflib.get_close_matches(name, _KINDS, 1)]
    return next((name for name in names if name in (*_KINDS, "from_train")), near[0] if near else "src")


def _one_kind(value: object) -> object:
    kinds = [kind for kind in _KINDS if isinstance(value, dict) and kind in value]
    if len(kinds) > 1:
        raise ValueError(f"has the keys {' and '.join(kinds)}, but a dataset is of one kind; write a list of datasets")
    return value


def _as_held_out(value: object) -> object:
    """A number or a share of pairs is short for a dataset."""
    return {"from_train": value} if isinstance(value, (int, str)) and not isinstance(value, bool) else value


_Files: TypeAlias = (
    Annotated[TextFiles, Tag("src")]
    | Annotated[TsvFiles, Tag("tsv")]
    | Annotated[CsvFiles, Tag("csv")]
    | Annotated[XlsxFiles, Tag("xlsx")]
    | Annotated[JsonlFiles, Tag("jsonl")]
    | Annotated[ParquetFiles, Tag("parquet")]
    | Annotated[TmxFiles, Tag("tmx")]
    | Annotated[MosesFiles, Tag("moses")]
)
AnyText: TypeAlias = Annotated[_Files, Discriminator(_kind), BeforeValidator(_one_kind)]
ValidText: TypeAlias = Annotated[
    _Files | Annotated[HeldOut, Tag("from_train")],
    Discriminator(_kind),
    BeforeValidator(_one_kind),
    BeforeValidator(_as_held_out),
]


def _as_items(value: object) -> object:
    """One dataset is a list of one."""
    if isinstance(value, list) and not value:
        raise ValueError("must be a dataset or a list of datasets, not []")
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, (dict, Section)) else value


def also(kind: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """A change of the JSON schema of a field, which also allows what is short for its value."""

    def change(schema: dict[str, Any]) -> None:
        words = {name: schema.pop(name) for name in ("description", "title") if name in schema}
        long = dict(schema)
        schema.clear()
        schema.update(anyOf=[long, kind or long["items"]], **words)

    return change


Texts: TypeAlias = Annotated[tuple[AnyText, ...], BeforeValidator(_as_items)]


def paths_of(dataset: Dataset) -> dict[str, list[Path]]:
    """The files of a dataset by the key that names them, in order; of a pattern (part-*.tsv) the sorted matches.

    A pattern that matches nothing stays as it is.
    """
    names = ("src", "tgt") if isinstance(dataset, TextFiles) else [name for name in _KINDS if hasattr(dataset, name)]
    return {name: [file for path in getattr(dataset, name) for file in _matches(path)] for name in names}


def _matches(path: Path) -> list[Path]:
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    return sorted(map(Path, glob.glob(str(path), recursive=True))) or [path]
