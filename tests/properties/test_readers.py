"""Promise: a reader gives what its files hold or one clear error, quickly and in little memory, whatever they hold.

`python scripts/attack.py fuzz` runs this file with many more examples.
"""

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seq2seq.errors import UserError
from tests.properties.damage import bounded, damaged
from tests.properties.readers import READERS


@pytest.fixture(params=READERS, scope="module")
def reader(request, tmp_path_factory):
    return READERS[request.param](tmp_path_factory.mktemp(request.param))


def test_valid_files_are_read(reader):
    """Guards against an attack whose files are refused from the start, so that it shows nothing."""
    for files in reader.valid:
        reader.check(files)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_are_read_or_refused(reader, tmp_path_factory, data):
    """Guards against tracebacks, crashes, endless work, much memory, and wrong content that passes for right."""
    files = data.draw(damaged(reader.valid, reader.words), label="files")
    with bounded(files, tmp_path_factory.getbasetemp()):
        try:
            reader.check(files)
            hypothesis.event("accepted")
        except UserError as error:
            str(error).encode()  # can be printed
            hypothesis.event("refused")


def test_former_findings_are_refused(reader, tmp_path):
    """Guards against the return of what fuzzing has found."""
    for old, new in reader.former:
        files = tuple(part.replace(old, new, 1) for part in reader.valid[-1])
        assert files != reader.valid[-1], old
        with bounded(files, tmp_path), pytest.raises(UserError):
            reader.check(files)
