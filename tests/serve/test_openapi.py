"""Schemathesis finds nothing: the OpenAPI document is true, and no request of its makers breaks the server."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.running import Server
from tests.toy import environment


def test_schemathesis(limited: Server, tmp_path: Path) -> None:
    """Guards against a document that promises something else than the server does, and against answers with 500."""
    pytest.importorskip("schemathesis")
    (tmp_path / "schemathesis.toml").write_text(
        # A document cannot say what a text file may have, nor how many tokens a model reads.
        "".join(
            f'[[operations]]\ninclude-path = "{path}"\nchecks.positive_data_acceptance.enabled = false\n'
            for path in ("/translate_file", "/explain")
        )
    )
    run = ["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", f"{limited.url}/openapi.json"]
    options = ["--max-examples", "1", "--seed", "1", "--phases", "coverage", "--no-color"]
    done = subprocess.run(
        [sys.executable, *run, *options], cwd=tmp_path, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stdout[-5000:]
