"""Measured programs: each in a process of its own, what it costs, and what else the machine did while it ran.

``python -m bench.process JOB SPEC.json`` is such a process: it prints the job's result, as JSON, as its last line. A
job is ``MODULE`` or ``MODULE:ARGUMENT:...``, and the function ``run(spec, ARGUMENT, ...)`` of that module does it. The
spec has the options of the command line, and what its command adds; the result is plain values.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
import traceback
from argparse import Namespace
from pathlib import Path
from typing import Any

_SCRIPTS = Path(__file__).resolve().parents[1]
_SAMPLE_SECONDS = 0.2
_MOST_OTHERS, _MOST_STEAL = 0.1, 0.02  # shares of the machine's CPU time; beyond them a time says little


def run_job(
    job: str, spec: Namespace, folder: Path, *, watch_children: bool = False, most_seconds: float | None = None
) -> dict[str, Any]:
    """Run a job and return its result, which holds ``error`` where the job failed, and what else the machine did.

    A job that takes longer than ``most_seconds`` is ended, and has failed.

    With ``watch_children`` the result gets ``peak_tree_bytes``, the most memory that the process and its children held
    together, seen by looking at it now and then; looking takes time from what is measured. The job's output goes to a
    log in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.json")))
    path = folder / f"{number:03d}-{job.removeprefix('bench.').replace(':', '-')}.json"
    path.write_text(json.dumps({**vars(spec), "started": time.time()}, default=str), encoding="utf-8")
    before, peak = _clocks(), 0
    with path.with_suffix(".log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "bench.process", job, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=_environment(spec))
        killer = threading.Timer(most_seconds or 2**20, process.kill)
        killer.start()
        try:
            while True:
                try:
                    out, _ = process.communicate(timeout=_SAMPLE_SECONDS if watch_children else None)
                    break
                except subprocess.TimeoutExpired:
                    peak = max(peak, _tree_memory_bytes(process.pid))
        finally:  # also after Ctrl-C
            killer.cancel()  # its thread would keep this process alive
            process.kill()  # does nothing if it has ended
        log.write(out)
    seen = _seen_since(before)
    try:
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": f"ended with status {process.returncode} and no result; see {path.with_suffix('.log')}"}
    return {**result, **seen, **({"peak_tree_bytes": peak} if watch_children else {})}


def run_and_print(title: str, job: str, spec: Namespace, folder: Path, counted: str, unit: str) -> dict[str, Any]:
    """:func:`run_job`, with a line on its speed: how many of what it ``counted`` in a second, in words (``unit``)."""
    run = run_job(job, spec, folder)
    said = run.get("error") or f"{run[counted] / run['seconds']:,.0f} {unit}"
    print(f"{title}: {said}{usage(run)}", flush=True)
    return run


def checked(run: dict[str, Any], problem: str) -> dict[str, Any]:
    """The result of a job that the benchmark cannot do without.

    Raises:
        SystemExit: the job failed; says ``problem`` and why.
    """
    if "error" in run:
        raise SystemExit(f"{problem}: {run['error']}")
    return run


def usage(run: dict[str, Any]) -> str:
    """What follows a run's speed in the output."""
    cpu = f", {run['cpu_seconds']:,.1f} CPU s in all" if "cpu_seconds" in run else ""
    return cpu + (f"; DISTURBED: {run['disturbed']}" if run.get("disturbed") else "")


def _environment(spec: Namespace) -> dict[str, str]:
    paths = [str(_SCRIPTS), str(_SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(spec.threads))
    if spec.device != "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    # Peers must not talk to a server, and their tokenizers are not used.
    return {**environment, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _clocks() -> tuple[float, float, float, float]:
    """Seconds: wall; CPU time of children, of all processes, and what the host gave to other machines (steal)."""
    children = os.times()
    try:
        user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    except (OSError, ValueError):  # Linux alone has it
        user = nice = system = irq = soft = steal = 0
    ticks = os.sysconf("SC_CLK_TCK")
    busy = (user + nice + system + irq + soft) / ticks
    return time.perf_counter(), children.children_user + children.children_system, busy, steal / ticks


def _seen_since(before: tuple[float, ...]) -> dict[str, Any]:
    """Wall and CPU seconds of the child, which has been waited for, shares of the machine that others and the host
    took, the load, and ``disturbed``: what disturbed the child, or ''."""
    wall, own, busy, steal = (now - then for now, then in zip(_clocks(), before, strict=True))
    machine = wall * (os.cpu_count() or 1)
    others, stolen = max(0.0, busy - own) / machine, steal / machine
    found = [f"other programs took {others:.0%} of the CPU"] * (others > _MOST_OTHERS)
    found += [f"the host took {stolen:.0%} (steal)"] * (stolen > _MOST_STEAL)
    numbers = {"wall_seconds": wall, "cpu_seconds": own, "load": os.getloadavg()[0], "others": others, "steal": stolen}
    return {**numbers, "disturbed": ", ".join(found)}


def _tree_memory_bytes(pid: int) -> int:
    """The memory that a process and its children hold now, shared pages counted once; 0 where there is no /proc."""
    total, found = 0, [pid]
    for process in found:  # grows while it is read
        with contextlib.suppress(OSError):  # a process that has ended
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def peak_memory_bytes(device: str) -> int:
    """The most memory held so far: resident set of this process, or what PyTorch took of the GPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_memory(device: str) -> None:
    """Let the peak start anew from what is held now, where the system can do that (Linux, CUDA)."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def synchronise(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def main() -> None:
    """Run the job that the command line names."""
    module, *arguments = sys.argv[1].split(":")
    try:
        spec = Namespace(**json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
        result = importlib.import_module(module).run(spec, *arguments)
    except Exception as error:
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
