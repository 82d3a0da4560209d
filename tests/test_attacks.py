"""The attacks find in the package what they wrap from outside."""

import subprocess
import sys
from pathlib import Path
from unittest import mock

from seq2seq.train import setup
from tests.forked import Process
from tests.toy import ROOT, environment, write_config, write_text_files


def marked(arguments: list[str]) -> int:
    """The program, without what takes longer than a toy run."""
    sys.path.insert(0, str(ROOT / "scripts"))
    sys.argv = ["marked.py", *arguments]
    from faults.marked import main

    peak = mock.patch.object(setup, "matmul_peak", return_value=1e12)
    with peak, mock.patch("seq2seq.report.curves.draw_curves", autospec=True):
        return main()


def test_every_phase_of_a_training_is_marked(tmp_path: Path) -> None:
    """Guards against a renamed function, after which the kills of `attack.py train` could not be aimed at its phase."""
    config = write_config(write_text_files(tmp_path / "text"), tmp_path / "run")
    test = ("src", "xx"), ("tgt", "yy")
    settings = [f"data.test.{side}={tmp_path}/text/test.{suffix}" for side, suffix in test]
    settings += ["tokenizer.sampling=0.1", "tokenizer.joint=false", "train.max_steps=20", "train.metric=loss"]
    words = [str(config), *settings]
    process = Process(marked, (words,), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    marks = [line.split() for line in output.decode().splitlines() if line.startswith("mark ")]
    begun, ended = ({phase for _, _, _, what, phase, _ in marks if what == kind} for kind in ("begin", "end"))
    phases = {"tokenizer", "corpus", "sampling", "step", "validation", "model", "checkpoint"}
    phases |= {"test", "calibration", "curves"}  # at the end
    assert begun == ended == phases
