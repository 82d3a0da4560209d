"""The Dockerfile, without Docker: what it copies, installs and runs exists."""

import json
import re

from seq2seq.cli.main import make_parser
from tests.toy import ROOT

LINES = (ROOT / "scripts/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ").strip() for line in LINES if line.startswith(f"{name} ")]


def test_what_is_copied_exists_and_is_sent() -> None:
    """Guards against files that were renamed, or that the ignore list keeps from the build."""
    ignore = (ROOT / "scripts/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [name for line in instructions("COPY") for name in line.split()[:-1]]
    assert {"constraints.txt", "pyproject.toml", "seq2seq"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignore
    assert {"README.md", "LICENSE"} <= set(copied)  # pyproject.toml names them


def test_what_is_installed_and_run_exists() -> None:
    """Guards against extras and options that are gone, and against a version of PyTorch that grep does not find."""
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    (wanted,) = re.findall(r"'\.\[(.*)\]'", "\n".join(LINES))
    assert set(wanted.split(",")) <= set(extras)
    assert len(re.findall("^torch==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)) == 1
    (command,) = instructions("CMD")
    arguments = make_parser().parse_args(json.loads(command))
    assert arguments.host == "0.0.0.0"
    assert str(arguments.port) in instructions("EXPOSE")


def test_it_runs_as_a_user_without_rights() -> None:
    """Guards against a server that runs as root."""
    last = [line.split()[0] for line in LINES if line.split()[:1] in (["USER"], ["RUN"], ["CMD"])]
    assert last[-2:] == ["USER", "CMD"]
    assert instructions("USER") == ["seq2seq"]
