"""The check of a GPU can be started everywhere, and says at once where there is none."""

import os
import subprocess
import sys
from pathlib import Path

from tests.toy import ROOT, environment


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``bash scripts/gpu_check.sh`` from another folder, in this environment, without a GPU."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    here = {**environment(), "PATH": path, "VIRTUAL_ENV": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    words = ("bash", str(ROOT / "scripts" / "gpu_check.sh"), *words)
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=here, timeout=100)


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    """Guards against a check that takes minutes on a CPU, or ends with a traceback."""
    done = check(tmp_path)
    assert done.returncode == 2
    assert done.stderr == "device cuda: PyTorch finds no CUDA device here; use cpu or auto\n"
    assert not (tmp_path / "runs").exists()


def test_its_help_says_what_the_verdicts_are(tmp_path: Path) -> None:
    """Guards against a table that its readers cannot understand."""
    done = check(tmp_path, "--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("ok", "slow", "WRONG", "skipped", "gpu-check.md", "--src", "--model"))
