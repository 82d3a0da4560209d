"""Who may import whom, and what the command line does not load before it must."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import seq2seq
from tests.toy import environment

PACKAGE = Path(seq2seq.__file__).parent
MODULES = {
    ".".join(("seq2seq", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports_of(module: str) -> Iterator[str]:
    """All modules of the package that a module imports, anywhere in it, also inside functions and for types only."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in names]
        yield from (name for name in names if name.split(".")[0] == "seq2seq")


def inside(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


# What a module (or all in a package) must not import. The first rule says: nothing of the package at all.
FORBIDDEN = {
    "seq2seq.errors": ("seq2seq",),
    "seq2seq.data.symbols": ("seq2seq",),
    "seq2seq.languages": ("seq2seq",),
    "seq2seq.traces": ("seq2seq",),
    "seq2seq.data": ("seq2seq.model", "seq2seq.train", "seq2seq.decode", "seq2seq.model_folder", "seq2seq.evaluate"),
    "seq2seq.model": ("seq2seq.train", "seq2seq.decode", "seq2seq.evaluate", "seq2seq.model_folder"),
    "seq2seq.train": ("seq2seq.report", "seq2seq.doctor"),
    "seq2seq.report": ("seq2seq.data", "seq2seq.model", "seq2seq.decode", "seq2seq.evaluate", "seq2seq.doctor"),
    "seq2seq.decode.search": ("seq2seq",),
    "seq2seq.decode": ("seq2seq.train", "seq2seq.evaluate"),
    "seq2seq.evaluate": ("seq2seq.data", "seq2seq.model", "seq2seq.train", "seq2seq.decode"),
    "seq2seq.config": ("seq2seq.data", "seq2seq.model", "seq2seq.train", "seq2seq.decode"),
    "seq2seq.device": ("seq2seq.data", "seq2seq.model", "seq2seq.train", "seq2seq.decode", "seq2seq.config"),
    "seq2seq.files": tuple(module for module in MODULES if module not in ("seq2seq", "seq2seq.errors")),
    "seq2seq.tensors": ("seq2seq.data", "seq2seq.model", "seq2seq.train", "seq2seq.decode", "seq2seq.config"),
}


@pytest.mark.parametrize("importer", FORBIDDEN)
def test_imports_go_downwards(importer: str) -> None:
    """data knows no model, search knows neither, and errors and symbols nothing; train and decode look down."""
    modules = [module for module in MODULES if inside(module, importer)]
    assert modules
    for module in modules:
        for imported in imports_of(module):
            assert not inside(imported, *FORBIDDEN[importer]), f"{module} imports {imported}"


def test_the_model_meets_data_in_the_packed_layout_alone() -> None:
    """A model that opened files or knew a tokenizer could not be used without them."""
    for module in MODULES:
        if inside(module, "seq2seq.model"):
            seen = {imported for imported in imports_of(module) if inside(imported, "seq2seq.data")}
            assert seen <= {"seq2seq.data.packed", "seq2seq.data.symbols"}, module


def test_the_batch_layout_imports_only_symbols() -> None:
    """The layout is what everything else is built on."""
    assert set(imports_of("seq2seq.data.packed")) == {"seq2seq.data.symbols"}


def test_nothing_imports_the_command_line() -> None:
    """Only ``python -m seq2seq`` does."""
    outside = [module for module in MODULES if not inside(module, "seq2seq.cli")]
    importers = [module for module in outside if any(inside(name, "seq2seq.cli") for name in imports_of(module))]
    assert importers == ["seq2seq.__main__"]


def loaded_after(code: str) -> set[str]:
    """The top-level packages that a new process has loaded after running ``code``."""
    script = f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment(), check=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_and_mistakes_answer_at_once() -> None:
    """Importing the command line loads nothing slow: help would take seconds."""
    heavy = {"torch", "numpy", "pydantic", "yaml", "sacrebleu", "sentencepiece", "matplotlib"}
    assert not loaded_after("import seq2seq.cli.main") & heavy
    assert not loaded_after("import seq2seq") & heavy
    assert not loaded_after("import seq2seq.files") & heavy


def test_a_wrong_config_answers_without_torch() -> None:
    """A mistake in a config is told before PyTorch is loaded."""
    loaded = loaded_after("from seq2seq.cli.main import main; assert main(['train', 'nowhere.yaml']) == 2")
    assert "torch" not in loaded
