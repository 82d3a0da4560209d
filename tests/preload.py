"""What the server of ``tests.forked`` does once, so that no command does it again."""

import torch._dynamo  # noqa: F401 - the first optimizer imports it

import seq2seq.report.curves
import seq2seq.whole_run  # noqa: F401
import tests.toy  # noqa: F401
from seq2seq.cli import main, translate  # noqa: F401
from seq2seq.data.inspection import line_keys

line_keys(["a"])  # makes a table of all characters
