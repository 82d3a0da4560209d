"""Promise: the table that the recipe was fitted to has the runs of its plan, and the script makes them as it says."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "scripts/recipe"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe_runs", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("plan_file", "table_file"), [("plan.txt", "runs.jsonl"), ("confirm.txt", "confirm.jsonl")])
def test_every_run_of_the_table_is_in_the_plan(plan_file: str, table_file: str) -> None:
    """A number that nobody can make again is none; a run twice in the table would count twice."""
    lines = (FOLDER / plan_file).read_text(encoding="utf-8").splitlines()
    plan = [line for line in lines if line and not line.startswith("#")]
    table = [json.loads(line)["run"] for line in (FOLDER / table_file).read_text(encoding="utf-8").splitlines()]
    assert table
    assert len(set(table)) == len(table)
    assert set(table) <= set(plan)


def test_the_table_can_be_shown(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without text at hand, the table is there to look at."""
    monkeypatch.setattr("sys.argv", ["run.py", "--show"])
    script.main()
    assert len(capsys.readouterr().out.splitlines()) == len((FOLDER / "runs.jsonl").read_text().splitlines())


def test_text_and_data_are_needed_to_train(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a traceback for somebody who starts it without text."""
    monkeypatch.setattr("sys.argv", ["run.py"])
    with pytest.raises(SystemExit):
        script.main()
    assert "give --data, or --show" in capsys.readouterr().err


def test_a_line_says_all_that_differs_from_the_table(script: ModuleType) -> None:
    """Guards against lines that mean something else once a default has changed, as that of weight decay has."""
    settings = script._settings(1_000, ["warmup=0.1", "average=0.05"], "cuda")
    assert (settings["optim.weight_decay"], settings["train.device"]) == ("0", "cuda")
    assert (settings["optim.warmup_steps"], settings["train.ema_decay"]) == ("100", "0.98")
    assert script._settings(1_000, ["optim.weight_decay=0.1"], "cpu")["optim.weight_decay"] == "0.1"


def test_a_run_that_fails_leaves_the_others(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that failed after 50 minutes of a night's plan took the remaining ones with it."""

    def make(line: str, *_: object) -> dict[str, object]:
        if line.startswith("bad"):
            raise RuntimeError(f"{line}: out of memory")
        return {"run": line, "bleu": 1.0}

    plan, table = tmp_path / "plan.txt", tmp_path / "table.jsonl"
    plan.write_text("bad/a-b 1 1\ngood/a-b 1 1\n")
    folders = ["--data", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", ["run.py", "--plan", str(plan), "--table", str(table), "--jobs", "1", *folders])
    monkeypatch.setattr(script, "make", make)
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == "1 of 2 runs failed; the same command makes them again"
    assert json.loads(table.read_text()) == {"run": "good/a-b 1 1", "bleu": 1.0}
    assert capsys.readouterr().err == "bad/a-b 1 1: out of memory\n"
