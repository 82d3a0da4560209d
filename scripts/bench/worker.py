"""``python -m bench.worker MODULE SPEC.json``: run one job in this process and print its result as the last line.

A job is a module with ``run(spec)``, which takes and returns plain values.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path


def main() -> int:
    """Run the job named by the command line."""
    module, path = sys.argv[1:]
    try:
        result = importlib.import_module(module).run(json.loads(Path(path).read_text(encoding="utf-8")))
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
