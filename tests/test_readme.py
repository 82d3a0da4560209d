"""The README is true: its config loads, its commands parse, the files that it names exist, its messages are ours.

The Chinese README has its own words, but the same keys, programs, output and figures.
"""

import re
import shlex
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from seq2seq.cli.main import make_parser
from seq2seq.config import load_config
from seq2seq.errors import ConfigError
from seq2seq.train import setup
from tests.toy import TOY, write_lines, write_text_files

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")
BOTH = pytest.mark.parametrize("readme", [README, CHINESE], ids=["English", "Chinese"])


def blocks(language: str, readme: str = README) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


@BOTH
def test_the_first_config_is_complete(tmp_path: Path, readme: str) -> None:
    """Guards against an example config that the program would refuse; later examples add to it."""
    first, *parts = blocks("yaml", readme)
    path = tmp_path / "my.yaml"
    for part in ("", *parts):
        kept = first[: first.index("data:")] if part.startswith("data:") else first
        path.write_text(kept + part, encoding="utf-8")
        assert load_config(path).run_dir == Path("runs/my")


@BOTH
def test_every_command_parses(readme: str) -> None:
    """Guards against options in the README that the command line does not have."""
    lines = [line for block in blocks("bash", readme) for line in block.splitlines() if line.startswith("seq2seq ")]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line.split(" < ")[0].split(" > ")[0], comments=True)
        make_parser().parse_args(words[1:])


def test_the_python_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a program in the README that names functions or options of yesterday."""
    first, *more = blocks("python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "matmul_peak", mock.Mock(return_value=1e12))
    config = TOY.format(text=write_text_files(tmp_path / "text"), run="runs/my")
    (tmp_path / "my.yaml").write_text(config.replace("beam_size: 2", "beam_size: 3"), encoding="utf-8")
    write_lines(tmp_path / "new.en", ["kato", "", "solvu miren"])
    names: dict[str, Any] = {"source_lines": ["kato", "miren"], "reference_lines": ["dorfe", "guhex"]}
    exec(first, names)
    for program in more:
        exec(program, names)
    assert names["run"] == Path("runs/my")
    assert len(names["best"]) > 1


def test_the_scripts_and_modules_exist() -> None:
    """Guards against a layout that has moved on without its picture."""
    for script in re.findall(r"bash (scripts/\S+\.sh)", README + CHINESE):
        assert (ROOT / script).is_file(), script
    layout = next(block for block in blocks("") if block.startswith("seq2seq/"))
    shown = set(re.findall(r"\w+\.py", layout))
    there = {path.name for path in (ROOT / "seq2seq").rglob("*.py")}
    assert shown <= there
    assert there - shown <= {"__init__.py", "__main__.py", "errors.py", "device.py", "symbols.py"}


def test_the_messages_shown_are_real(tmp_path: Path) -> None:
    """Guards against examples of messages that no longer look like that."""
    shown = [line for line in README.splitlines() if line.startswith("my.yaml:")]
    assert shown
    path = tmp_path / "my.yaml"
    path.write_text(
        "run_dir: r\ndata:\n  train: {src: a, tgt: b}\n  valid: {src: a, tgt: b}\n\n\nbatch_size: 64\n"
        "model:\n  dropuot: 0.3\n\ntrain:\n  max_steps: many\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == shown


def test_the_cpu_install_is_the_version_of_the_constraints() -> None:
    """Guards against a CPU build that the next command replaces by one with 5 GB of CUDA libraries."""
    (version,) = set(re.findall(r"pip install torch==(\S+) --index-url", README + CHINESE))
    assert f"torch=={version}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_nothing_installs_another_project() -> None:
    """Guards against ``pip install seq2seq``: on PyPI that name belongs to somebody else."""
    paths = [*ROOT.glob("README*.md"), *(p for d in ("seq2seq", "scripts", "configs") for p in (ROOT / d).rglob("*"))]
    for path in paths:
        if path.suffix in (".md", ".py", ".sh", ".yaml"):
            assert not re.search(r"install [^`\n]*?['\" ]seq2seq(\[|['\"`\s]|$)", path.read_text(encoding="utf-8")), (
                path
            )


@BOTH
def test_links_lead_somewhere(readme: str) -> None:
    """Guards against links to headings and files that were renamed."""
    for target in re.findall(r"\]\((?!https:)(.*?)\)", readme):
        file, _, heading = target.partition("#")
        assert not file or (ROOT / file).exists(), target
        text = (ROOT / file).read_text(encoding="utf-8") if file else readme
        headings = [re.sub(r"[^\w -]", "", line).lower() for line in re.findall(r"^#+ (.*)", text, re.MULTILINE)]
        assert not heading or heading in [words.replace(" ", "-") for words in headings], target


def keys(readme: str) -> set[str]:
    table = readme[readme.index("| `model.preset`") :].split("\n\n")[0]
    return {key for row in table.splitlines() for key in re.findall(r"`([\w.]+)`", row.split("|")[1])}


def test_the_chinese_readme_follows_the_english_one() -> None:
    """Guards against a change of keys, programs, output or figures that only one of the two languages has."""

    def without_words(block: str) -> str:
        return re.sub(r" *#.*|\"[^\"]*\"", "", block)

    assert keys(CHINESE) == keys(README)
    assert [*map(without_words, blocks("python", CHINESE))] == [*map(without_words, blocks("python"))]
    for block in blocks("", CHINESE):
        assert block in README
    figures = r"(?<![\w.,])\d+(?:[.,]\d+)+"
    assert set(re.findall(figures, CHINESE)) <= set(re.findall(figures, README))


def test_chinese_paragraphs_are_one_line() -> None:
    """Guards against line breaks that a browser shows as spaces between Chinese characters."""
    prose = re.sub(r"^```.*?^```", "", CHINESE, flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"^(?![#|]).+\n +\S.*|^(?![#|]).+\n(?![-#|]).+", prose, re.MULTILINE)
