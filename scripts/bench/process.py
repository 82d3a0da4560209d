"""Starting measured programs: each in a process of its own, with its own memory, threads and start-up.

``python -m bench.process JOB SPEC.json`` is such a process: it prints the job's result, as JSON, as its last line. A
job is ``MODULE`` or ``MODULE:ARGUMENT``, and the function ``run(values, ARGUMENT)`` of that module does it. ``values``
are the fields of the spec; the result is plain values, too.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.meter import Watch, tree_memory_bytes
from bench.workload import JobSpec

_SCRIPTS = Path(__file__).resolve().parents[1]
_SAMPLE_SECONDS = 0.2


def run_job(job: str, spec: JobSpec, folder: Path, *, watch_children: bool = False) -> dict[str, Any]:
    """Run a job and return its result, which holds ``error`` where the job failed, and what :class:`Watch` saw.

    With ``watch_children`` the result gets ``peak_tree_bytes``, the most memory that the process and its children held
    together, seen by looking at it now and then; looking takes time from what is measured. The job's output goes to a
    log in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.json")))
    path = folder / f"{number:03d}-{job.removeprefix('bench.').replace(':', '-')}.json"
    path.write_text(json.dumps({**asdict(spec), "started": time.time()}), encoding="utf-8")
    watch, peak = Watch(), 0
    with path.with_suffix(".log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.process", job, str(path)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=_environment(spec),
        )
        while True:
            try:
                out, _ = process.communicate(timeout=_SAMPLE_SECONDS if watch_children else None)
                break
            except subprocess.TimeoutExpired:
                peak = max(peak, tree_memory_bytes(process.pid))
        log.write(out)
    seen = watch.end()
    try:
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        log_path = path.with_suffix(".log")
        return {"error": f"ended with status {process.returncode} and no result; see {log_path}"}
    return {**result, **seen, **({"peak_tree_bytes": peak} if watch_children else {})}


def checked(run: dict[str, Any], problem: str) -> dict[str, Any]:
    """The result of a job that the benchmark cannot do without.

    Raises:
        SystemExit: the job failed; says ``problem`` and why.
    """
    if "error" in run:
        raise SystemExit(f"{problem}: {run['error']}")
    return run


def _environment(spec: JobSpec) -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_SCRIPTS), str(_SCRIPTS.parent)])}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(spec.threads))
    if spec.device != "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    # Peers must not talk to a server, and their tokenizers are not used.
    return {**environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Run the job that the command line names."""
    module, *arguments = sys.argv[1].split(":")
    try:
        values = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
        result = importlib.import_module(module).run(values, *arguments)
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
