"""Who may import whom, and what the command line does not load before it must."""

import ast
import re
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


# The floors: what each module of the package may import, from the bottom up. The longest name that fits a module
# counts; a name stands for the module or for all that is in it. What is not listed is not allowed.
_BASE = ("errors", "files", "languages", "signals", "traces")
_CORE = (*_BASE, "config", "tensors", "device", "memory", "data", "model", "model_folder", "decode")
FLOORS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "languages": (),
    "traces": (),
    "faults": ("data.inspection",),
    "signals": (),
    "files": ("errors",),
    "memory": ("errors",),
    "device": ("errors",),
    "tensors": ("errors", "files"),
    "config": ("errors", "languages", "config"),
    "data.symbols": (),
    "data.packed": ("data.symbols",),
    "data.plan": ("data.packed",),
    "data": (*_BASE, "config", "data"),
    # A model that opened files or knew a tokenizer could not be used without them.
    "model": ("config", "data.packed", "data.symbols", "model"),
    "model.state": (),
    "model.interface": ("data.packed", "model.attention", "model.state"),
    "model.kernels": ("data.packed", "model.kernels"),
    "model_folder": ("config", "data.tokenizer", "errors", "files", "model", "tensors"),
    "decode.search": ("config", "data.symbols"),
    "decode.constraints": ("data.symbols", "model.state"),
    "decode.terms": ("data.symbols", "decode.constraints", "decode.search", "model.state"),
    "decode.stepper": (
        *("config", "data.packed", "data.symbols", "decode.constraints", "decode.search", "decode.terms"),
        *("model.interface", "model.kernels.cuda_graphs", "model.state"),
    ),
    "decode.scoring": ("data.packed", "data.symbols", "model.interface", "model.loss"),
    # An engine knows no text, and a translator no model.
    "decode.engine": (
        *("config", "data.packed", "device", "errors", "memory"),
        *("decode.constraints", "decode.scoring", "decode.search", "decode.stepper", "decode.terms", "model"),
    ),
    "decode.ctranslate2_model": ("data.symbols", "errors", "model"),
    "decode.ctranslate2_engine": (
        *("config", "data.symbols", "errors", "files", "model"),
        *("decode.constraints", "decode.ctranslate2_model", "decode.engine", "decode.search"),
    ),
    "decode.explanation": (),
    "decode.explain": ("config", "data.packed", "data.symbols", "data.tokenizer", "decode", "errors", "model"),
    "decode.translator": (
        *(*_BASE, "config", "data.symbols", "data.tokenizer"),
        *("device", "model_folder", "decode"),
    ),
    "decode.mbr": (),
    "decode.translation": ("config", "decode.mbr", "languages"),
    "decode.windows": ("data.parallel",),
    "decode.rerank": ("config", "decode.translation", "decode.translator", "errors", "languages"),
    "decode.flags": ("data.clean_rules", "faults", "languages"),
    "decode.calibration": ("config", "decode.translation", "decode.translator", "errors", "files", "model_folder"),
    "decode.pair_scorer": ("decode.translator", "files", "model_folder"),
    "decode": (*_BASE, "config", "data", "decode"),
    # Satellites look down on the core and not at each other; the core imports no satellite, but train scores.
    "evaluate.meaning": (),
    "evaluate.scores": _BASE,
    "evaluate.significance": (*_BASE, "evaluate.learned", "evaluate.scores"),
    "evaluate.learned": ("errors", "files"),
    "evaluate.card": (),
    "evaluate.words": (),
    "evaluate.by_line": ("evaluate.card", "evaluate.scores"),
    "evaluate.overlap": ("data.inspection", "evaluate.words", "languages"),
    "evaluate.training_text": ("data.formats.pairs", "data.parallel", "evaluate.overlap", "evaluate.words"),
    "evaluate.slices": ("decode.flags", "evaluate.by_line", "evaluate.card", "evaluate.words", "languages"),
    "evaluate.make_card": (*_BASE, "config", "data", "decode", "evaluate", "model_folder"),
    "evaluate.run_card": (*_BASE, "config", "data", "decode", "evaluate", "memory", "model_folder"),
    "evaluate": (*_BASE, "evaluate"),
    "train": (*_CORE, "evaluate", "faults", "train"),
    "doctor": (*_CORE, "train", "doctor"),
    "report.blocks": (),
    "report.page": ("report.blocks", "report.differences"),
    "report.markdown": ("report.blocks", "report.differences"),
    "report.differences": ("languages",),
    "report.card_content": ("evaluate.card", "evaluate.meaning", "report"),
    "report.card_page": ("evaluate.card", "files", "report"),
    "report.run_files": (
        *("config", "errors", "evaluate.card", "model_folder", "tensors", "train.metrics", "train.starts"),
    ),
    "report.run_page": ("config", "evaluate.meaning", "files", "report"),
    "report": ("decode.explanation", "errors", "files", "report", "train.metrics"),
    "export.marian": ("config",),
    "export.parity": (),
    "export": (*_CORE, "evaluate", "export", "train.metrics"),
    "serve.sides": ("errors", "languages"),
    "serve.documents": ("data.formats", "decode.files", "errors", "languages", "serve.sides"),
    "serve": (*_CORE, "serve"),
    # A whole run is training, its picture and model cards, for the command line and for Python programs.
    "whole_run": (
        *(
            "config",
            "data",
            "decode.translation",
            "decode.translator",
            "errors",
            "evaluate.card",
            "evaluate.make_card",
            "evaluate.run_card",
            "export.card",
            "files",
            "memory",
        ),
        *("report.card_page", "report.curves", "train"),
    ),
    "cli": (*_CORE, "evaluate", "train", "doctor", "export", "report", "serve", "whole_run", "cli"),
    "__main__": ("cli.main",),
    "": ("config", "decode.translation", "decode.translator", "errors", "evaluate", "whole_run"),  # seq2seq/__init__.py
}


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__init__")])
def test_a_module_imports_what_its_floor_allows(module: str) -> None:
    """Guards against imports that run back up, which make a module useless without all that is above it."""
    name = module.removeprefix("seq2seq").removeprefix(".")
    floor = max((floor for floor in FLOORS if inside(name, floor) or floor == name), key=len)
    for imported in imports_of(module):
        target = imported.removeprefix("seq2seq").removeprefix(".")
        assert target == "" or inside(target, *FLOORS[floor]), f"{module} imports {imported}; floor {floor!r}"


def test_every_floor_is_somebodys() -> None:
    """Guards against rules for modules that are gone."""
    names = [module.removeprefix("seq2seq").removeprefix(".") for module in MODULES]
    assert all(any(inside(name, floor) or floor == name for name in names) for floor in FLOORS)


@pytest.mark.parametrize(
    "package",
    [
        "matplotlib",
        "tensorboard",
        "safetensors",
        "openpyxl",
        "pyarrow",
        "eldc",
        "ctranslate2",
        "transformers",
        "starlette",
        "uvicorn",
        "prometheus_client",
    ],
)
def test_a_package_is_imported_by_one_file(package: str) -> None:
    """What can be exchanged, or need not be installed, is known to one file."""
    pattern = re.compile(rf"^\s*(from|import) {package}\b", re.MULTILINE)
    assert len([path for path in MODULES.values() if pattern.search(path.read_text(encoding="utf-8"))]) == 1


def test_one_package_imports_sacrebleu() -> None:
    """The numbers of other metrics and tests come from the same place as BLEU's."""
    pattern = re.compile(r"^\s*(from|import) sacrebleu\b", re.MULTILINE)
    importers = [name for name, path in MODULES.items() if pattern.search(path.read_text(encoding="utf-8"))]
    assert {name.rpartition(".")[0] for name in importers} == {"seq2seq.evaluate"}


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
