"""The script that marks the phases of a run, which the attacks on training aim their kills at."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy import ROOT, environment, write_config, write_text_files


def test_every_phase_is_marked(tmp_path: Path) -> None:
    """Guards against an attack that fails, or kills nothing in a phase, since a function has another name."""
    pytest.importorskip("matplotlib")
    text = write_text_files(tmp_path / "text")
    overrides = [f"data.test.{side}={text}/test.{end}" for side, end in (("src", "xx"), ("tgt", "yy"))]
    overrides += ["train.max_steps=2", "tokenizer.sampling=0.1"]
    script = ROOT / "scripts/faults/marked.py"
    done = subprocess.run(
        [sys.executable, script, write_config(text, tmp_path / "run"), *overrides],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    marked = {what: set(re.findall(rf"^mark 0 \d+ {what} (\w+) \d+$", done.stdout, re.M)) for what in ("begin", "end")}
    phases = "tokenizer corpus sampling step validation test model checkpoint curves"
    assert marked["begin"] == marked["end"] == set(phases.split())
