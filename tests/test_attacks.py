"""The attacks find in the package what they wrap from outside."""

import subprocess
import sys
from pathlib import Path

from tests.toy import ROOT, environment, write_config, write_text_files


def test_every_phase_of_a_training_is_marked(tmp_path: Path) -> None:
    """Guards against a renamed function, after which the kills of `attack.py train` could not be aimed at its phase."""
    config = write_config(write_text_files(tmp_path / "text"), tmp_path / "run")
    test = ("src", "xx"), ("tgt", "yy")
    settings = [f"data.test.{side}={tmp_path}/text/test.{suffix}" for side, suffix in test]
    settings += ["tokenizer.sampling=0.1", "tokenizer.joint=false", "train.max_steps=20", "train.metric=loss"]
    words = [sys.executable, str(ROOT / "scripts/faults/marked.py"), str(config), *settings]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    marks = [line.split() for line in done.stdout.splitlines() if line.startswith("mark ")]
    begun, ended = ({phase for _, _, _, what, phase, _ in marks if what == kind} for kind in ("begin", "end"))
    phases = {"tokenizer", "corpus", "sampling", "step", "validation", "model", "checkpoint"}
    phases |= {"test", "calibration", "curves"}  # at the end
    assert begun == ended == phases
