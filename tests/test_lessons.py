"""The pages of the lessons are true: commands parse, files and names exist, both languages have the same parts."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest

from seq2seq.cli.main import make_parser
from seq2seq.config import load_config
from tests import toy

sys.path.insert(0, str(toy.ROOT / "scripts"))

from compare import make_options

ROOT = toy.ROOT
FOLDER = ROOT / "configs" / "lessons"
ENGLISH, CHINESE = ((FOLDER / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
BOTH = pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["English", "Chinese"])


def sections(page: str) -> list[str]:
    """The top of the page, then what is below each heading."""
    return re.split(r"^## .*\n", page, flags=re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The words of every command line in the shell blocks; a pipe gives its last program."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line.split(" | ")[-1], comments=True) for line in lines]


def recipes(text: str) -> set[str]:
    return set(re.findall(r"[\w-]+\.yaml", text))


def named_code(text: str) -> list[tuple[str, str]]:
    """The file and the name of each function or class: ``[file.py](path/file.py): `name`, `Class.method```."""
    found = re.findall(r"\]\(([^)\s]+\.py)\)[:：]([^\[\n]*)", text)
    return [(file, name) for file, names in found for name in re.findall(r"`([\w.]+)`", names)]


def names_in(path: Path) -> set[str]:
    """The functions, classes and methods that a module defines."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names


@BOTH
def test_every_command_parses(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against options and config keys that do not exist, and recipes with another name."""
    monkeypatch.chdir(ROOT)
    ours = [words for words in commands(page) if words[0] == "seq2seq"]
    assert len(ours) >= 20
    for words in ours:
        args = make_parser().parse_args(words[1:])
        if words[1] == "train":
            load_config(args.config, args.overrides)
    compared = [words for words in commands(page) if words[:2] == ["python", "scripts/compare.py"]]
    assert compared
    for words in compared:
        assert all([*path.parent.glob(path.name)] for path in make_options(words[2:]).configs)


@BOTH
def test_linked_files_and_named_code_exist(page: str) -> None:
    """Guards against files, functions and classes that were renamed."""
    links = re.findall(r"\]\((?!https:)([^)#]+)", page)
    assert {link for link in links if not (FOLDER / link).exists()} == set()
    names = named_code(page)
    assert len(names) >= 30
    assert [(file, name) for file, name in names if name not in names_in(FOLDER / file)] == []


@BOTH
def test_every_recipe_is_in_the_table(page: str) -> None:
    """Guards against a recipe that no page explains, and the other way round."""
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert [recipes(row) for row in rows] == [{path.name} for path in sorted(FOLDER.glob("*.yaml"))]


def test_both_languages_have_the_same_parts() -> None:
    """Guards against a change that only one of the two languages has."""
    pairs = list(zip(sections(ENGLISH), sections(CHINESE), strict=True))
    assert len(pairs) >= 20
    equations = r"^```math\n.*?^```"
    for english, chinese in pairs:
        assert commands(chinese) == commands(english)
        assert recipes(chinese) == recipes(english)
        assert named_code(chinese) == named_code(english)
        for pattern in (equations, r"FIGURE\([^)]*\)"):
            flags = re.DOTALL | re.MULTILINE
            assert re.findall(pattern, chinese, flags) == re.findall(pattern, english, flags)


def test_the_other_language_is_linked_at_the_top() -> None:
    """Guards against a page that hides its other language."""
    assert "(README.zh.md)" in sections(ENGLISH)[0]
    assert "(README.md)" in sections(CHINESE)[0]


def test_the_cpu_install_is_the_version_of_the_constraints() -> None:
    """Guards against a CPU build that the next command replaces by one with 5 GB of CUDA libraries."""
    (version,) = set(re.findall(r"pip install torch==(\S+) --index-url", ENGLISH + CHINESE))
    assert f"torch=={version}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
