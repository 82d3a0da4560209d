"""Promise: what is left out is decided once, the same on every machine, counted, shown, and nothing else changes."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq.config import Cause, DataConfig
from seq2seq.data import cleaning, parallel
from seq2seq.data.checksums import ChecksumMemory
from seq2seq.data.cleaning import Cleaned, clean_text
from seq2seq.data.held_out import TrainAndValid
from seq2seq.errors import DataError

Pairs = list[tuple[str, str]]
OFF = {"overlap": False}


def write(path: Path, pairs: Iterable[tuple[str, ...]]) -> dict[str, object]:
    """A table of pairs, and the dataset that names it."""
    path.write_text("".join("\t".join(cells) + "\n" for cells in pairs), encoding="utf-8")
    return {"tsv": str(path), "src": 0, "tgt": 1}


def data_of(folder: Path, clean: dict[str, Any], *train: Pairs, valid: Pairs | int = 0, **more: Any) -> DataConfig:
    """``valid``: pairs, or how many are held out."""
    folder.mkdir(exist_ok=True)
    texts = [write(folder / f"{number}.tsv", pairs) for number, pairs in enumerate(train)]
    held_out = valid if valid and isinstance(valid, int) else write(folder / "v.tsv", valid or [("v", "w")])
    return DataConfig.model_validate({"train": texts, "valid": held_out, "clean": clean, **more})


def clean(data: DataConfig, folder: Path) -> Cleaned | None:
    return clean_text(data, folder / "cache", ChecksumMemory(folder / "known.json"), show_progress=False)


def causes(data: DataConfig, folder: Path) -> list[Cause | None]:
    """Why each pair is left out."""
    cleaned = clean(data, folder)
    assert cleaned is not None
    return [cleaned.cause(pair) for pair in range(len(cleaned.codes))]


@pytest.mark.parametrize("part", ["test", "guard"])
def test_pairs_of_valid_and_test_go(part: str, tmp_path: Path) -> None:
    """Guards against scores that measure memory, also where case or punctuation differ; a source alone may stay."""
    train = [("A b.", "C d."), ("a b", "other"), ("e", "f"), ("", ""), ("g", "h")]
    more = {part: write(tmp_path / "t.tsv", [("E!", "f"), ("", "")])}
    data = data_of(tmp_path, {}, train, valid=[("a  b", "c d!"), ("x", "")], **more)
    assert causes(data, tmp_path) == ["overlap", None, "overlap", None, None]
    held_out = data_of(tmp_path, {}, train, valid=1, **more)
    assert causes(held_out, tmp_path) == [None, None, "overlap", None, None]


def test_repeats_of_pairs_and_sources(tmp_path: Path) -> None:
    """Guards against repeats of a pair that is itself left out, which would lose both; and repeats between datasets."""
    first = [("a", "b"), ("5 c", "6 d"), ("A", "b!"), ("", ""), ("", "")]
    second = [("a", "b"), ("a", "x"), ("5 c", "5 d"), ("5 c", "6 d")]
    rules = {"numbers": True, "repeats": "pairs"}
    found = causes(data_of(tmp_path / "p", rules, first, second), tmp_path)
    assert found == [None, "numbers", "repeats", None, None, "repeats", None, None, "numbers"]
    found = causes(data_of(tmp_path / "s", {**rules, "repeats": "sources"}, first, second), tmp_path)
    assert found == [None, "numbers", "repeats", None, None, "repeats", "repeats", None, "repeats"]


def test_a_dataset_has_rules_of_its_own(tmp_path: Path) -> None:
    """Guards against rules of one dataset that clean another, and repeats that are not seen across datasets."""
    pairs = [("a 1", "b 2"), ("c", "c"), ("d", "e")]
    data = data_of(tmp_path, {"identical": True, **OFF}, pairs, pairs)
    own = [{**write(tmp_path / "0.tsv", pairs), "clean": {"identical": False, "numbers": True}}]
    own += [{**write(tmp_path / "1.tsv", pairs), "clean": {"repeats": "pairs"}}]
    data = DataConfig.model_validate({**data.model_dump(), "train": own})
    assert causes(data, tmp_path) == ["numbers", None, None, None, "identical", "repeats"]


def test_languages_say_the_script_of_each_dataset(tmp_path: Path) -> None:
    """Guards against a script that is guessed though the language is known, and a guess from too few lines."""
    mostly_wrong = [("Hello", "Hello"), ("Hello", "Hello"), ("Hello", "你好世界")]
    rules = {"script": True, **OFF}
    stated = data_of(tmp_path / "a", rules, mostly_wrong, src_lang="en", tgt_lang="zh")
    assert causes(stated, tmp_path) == ["script", "script", None]
    guessed = data_of(tmp_path / "b", rules, mostly_wrong)
    assert causes(guessed, tmp_path) == [None, None, "script"]


def test_scores_of_every_format_with_columns(tmp_path: Path) -> None:
    """Guards against scores that are not read, or belong to the pair before."""
    pairs = [("a", "b", "0.4"), ("c", "d", "0.5"), ("e", "f", "1e3")]
    column = {"src": 0, "tgt": 1, "score": 2, "min_score": 0.5}
    named = {"src": "x", "tgt": "y", "score": "z", "min_score": 0.5}
    table = [("x", "y", "z"), *pairs]
    (tmp_path / "t.csv").write_text("\n".join(map(",".join, table)), encoding="utf-8")
    objects = [json.dumps({"x": src, "y": tgt, "z": float(score)}) for src, tgt, score in pairs]
    (tmp_path / "t.jsonl").write_text("\n".join(objects), encoding="utf-8")
    datasets: list[dict[str, object]] = [
        {**write(tmp_path / "t.tsv", pairs), **column},
        {"csv": str(tmp_path / "t.csv"), **named},
        {"jsonl": str(tmp_path / "t.jsonl"), **named},
    ]
    for module, kind in (("pyarrow", "parquet"), ("openpyxl", "xlsx")):
        pytest.importorskip(module)
        datasets.append({kind: str(tmp_path / f"t.{kind}"), **named})
    import openpyxl
    import pyarrow
    from pyarrow import parquet

    values = {"x": [p[0] for p in pairs], "y": [p[1] for p in pairs], "z": [float(p[2]) for p in pairs]}
    parquet.write_table(pyarrow.table(values), tmp_path / "t.parquet")
    book = openpyxl.Workbook()
    for row in [("x", "y", "z"), *((src, tgt, float(score)) for src, tgt, score in pairs)]:
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    data = data_of(tmp_path, OFF, [("v", "w")]).model_dump()
    for dataset in datasets:
        found = causes(DataConfig.model_validate({**data, "train": dataset}), tmp_path)
        assert found == ["score", None, None], dataset


@pytest.mark.parametrize("cell", ["", "good", "nan", "inf"])
def test_a_score_that_is_no_number_has_its_place(tmp_path: Path, cell: str) -> None:
    """Guards against a pair that is kept or lost because its score cannot be read."""
    dataset = {**write(tmp_path / "t.tsv", [("a", "b", "1"), ("c", "d", cell)]), "score": 2, "min_score": 0.5}
    data = DataConfig.model_validate({**data_of(tmp_path, OFF, [("v", "w")]).model_dump(), "train": dataset})
    with pytest.raises(DataError, match=r"t\.tsv:2: the score is (blank|'\w+'), not a number; correct it"):
        clean(data, tmp_path)
    assert not list((tmp_path / "cache").glob("clean-*"))


def test_the_result_is_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Guards against cleaning at every start, a damaged result that is believed, and one for other text or rules."""
    rules = {"identical": True, **OFF}
    pairs = [("a", "a"), ("b", "c"), ("5 d", "6 d")]
    expected = causes(data_of(tmp_path, rules, pairs), tmp_path)
    decide = cleaning._decide
    times: list[int] = []

    def counted(*arguments: Any) -> Any:
        times.append(1)
        return decide(*arguments)

    monkeypatch.setattr(cleaning, "_decide", counted)
    assert causes(data_of(tmp_path, rules, pairs), tmp_path) == expected
    assert not times
    for name in ("causes", "examples.tsv", "meta.json"):
        (folder,) = (tmp_path / "cache").iterdir()
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        assert causes(data_of(tmp_path, rules, pairs), tmp_path) == expected
        assert "damaged" in capsys.readouterr().err
    (folder / "causes").unlink()
    assert causes(data_of(tmp_path, rules, pairs), tmp_path) == expected
    assert len(times) == 4
    capsys.readouterr()
    assert causes(data_of(tmp_path, {**rules, "numbers": True}, pairs), tmp_path) == ["identical", None, "numbers"]
    assert causes(data_of(tmp_path, {}, pairs, valid=[("b", "c")]), tmp_path) == [None, "overlap", None]
    assert causes(data_of(tmp_path, {}, pairs, valid=[("a", "a")]), tmp_path) == ["overlap", None, None]
    assert causes(data_of(tmp_path, rules, pairs[1:]), tmp_path) == [None, None]


def test_counts_and_examples_are_told(tmp_path: Path) -> None:
    """Guards against pairs that vanish in silence, and examples that nobody finds again."""
    pairs = [("b", "c")] + [(f"a\u2028{number}", f"a\u2028{number}") for number in range(5)] + [("5", "6")]
    cleaned = clean(data_of(tmp_path, {"identical": True, "numbers": True, **OFF}, pairs), tmp_path)
    assert str(cleaned) == "train: 1 of 7 pairs are clean; left out: 5 identical, 1 with other numbers"
    assert cleaned is not None
    rows = cleaned.examples.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    table = tmp_path / "0.tsv"
    assert rows == [f"identical\t{table}:{n + 2}\ta\u2028{n}\ta\u2028{n}" for n in range(3)] + [
        f"numbers\t{table}:7\t5\t6"
    ]


def test_nothing_is_left(tmp_path: Path) -> None:
    """Guards against a run that ends with a message about an empty tokenizer."""
    data = data_of(tmp_path, {"identical": True, **OFF}, [("a", "a"), ("b", "b")])
    with pytest.raises(
        DataError, match=r"^data\.clean: none of the 2 pairs is left: 2 identical; relax data\.clean\.iden"
    ):
        clean(data, tmp_path)


def test_without_rules_nothing_is_read(tmp_path: Path) -> None:
    """Guards against minutes that a run without rules takes longer, and a cache folder with nothing to say."""
    data = data_of(tmp_path, OFF, [("a", "b")])
    assert clean(data, tmp_path) is None
    assert clean(DataConfig.model_validate({**data.model_dump(), "valid": 1, "clean": {}}), tmp_path) is None
    assert not (tmp_path / "cache").exists()


def test_held_out_pairs_come_from_the_clean_text(tmp_path: Path) -> None:
    """Guards against validation with pairs that training leaves out, and pairs with other numbers than in the text."""
    pairs = [(f"a {n}", f"a {n}") if n % 2 else (f"a {n}", f"b {n}") for n in range(20)]
    data = data_of(tmp_path, {"identical": True}, pairs, valid=3)
    text = TrainAndValid(data, clean(data, tmp_path))
    train, valid = list(text.train()), list(text.valid())
    assert (len(train), len(valid)) == (7, 3)
    assert all(pair.src != pair.tgt for pair in (*train, *valid))
    assert all((pair.src, pair.tgt) == pairs[pair.line] for pair in train)


def test_a_text_that_changes_is_noticed(tmp_path: Path) -> None:
    """Guards against pairs judged by the cause of others."""
    data = data_of(tmp_path, {"identical": True, **OFF}, [("a", "a"), ("b", "c")])
    text = TrainAndValid(data, clean(data, tmp_path))
    write(tmp_path / "0.tsv", [("a", "a"), ("b", "c"), ("d", "e")])
    with pytest.raises(DataError, match="has changed while it was read"):
        list(text.train())


WORDS = st.sampled_from(
    ["a", "A.", "b", "5", "6", "1,000", "1000", "<b>", "www.x.org", "Ж", "你好", "+++", "abcdefghijkl"]
)
SIDES = st.lists(WORDS, max_size=4).map(" ".join)
ALL = {"identical": True, "repeats": "pairs", "min_characters": 2, "max_characters": 20, "longest_word": 10}
ALL |= {"min_letters": 0.4, "script": True, "markup": True, "numbers": True, "urls": True}
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(pairs=st.lists(st.tuples(SIDES, SIDES), max_size=30), repeats=st.sampled_from(["pairs", "sources", None]))
def test_cleaning_twice_changes_nothing(tmp_path: Path, pairs: Pairs, repeats: str | None) -> None:
    """Guards against rules that depend on what was left out: the clean text would not be clean."""
    rules = {**ALL, "repeats": repeats}
    kept = [*pairs, ("word one", "word two")]  # one that stays
    for _ in range(2):
        data = data_of(tmp_path, rules, kept, src_lang="en", tgt_lang="de")
        found = causes(data, tmp_path)
        before, kept = kept, [pair for pair, why in zip(kept, found, strict=True) if why is None]
    assert kept == before


@QUICK
@given(pairs=st.lists(st.tuples(SIDES, SIDES), max_size=30), size=st.integers(1, 40))
def test_chunks_change_nothing(tmp_path: Path, pairs: Pairs, size: int) -> None:
    """Guards against causes that depend on how the text is cut for the processes."""
    data = data_of(tmp_path, ALL, [*pairs, ("word one", "word two")], pairs)
    with pytest.MonkeyPatch.context() as patch:
        whole = cleaning._decide(data, False).tolist()
        patch.setattr(cleaning, "_CHUNK_PAIRS", size)
        patch.setattr(parallel.Workers, "map", lambda self, function, items: map(function, items))
        assert cleaning._decide(data, False).tolist() == whole


def test_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against results in the order in which processes end, and rules that cannot be sent to them."""
    pairs = [(f"<b> {n}" if n % 3 else "x", f"y {n % 7}") for n in range(60)]
    data = data_of(tmp_path, ALL, pairs)
    whole = cleaning._decide(data, False).tolist()
    monkeypatch.setattr(cleaning, "_CHUNK_PAIRS", 7)
    monkeypatch.setattr(parallel, "num_cores", lambda: 2)
    assert cleaning._decide(data, False).tolist() == whole
