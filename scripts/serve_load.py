"""Measures running servers under load: requests per second, latencies, batch sizes; each answer is checked.

    python scripts/serve_load.py MODEL --text test.en.gz --clients 1 16 64 256

Servers are started with batches, with one line at a time, and with --ctranslate2 with that engine.
They are measured in turns, because other programs on a machine change what it has left for them; read the ratios. Every
client sends one sentence, waits for its answer, and sends the next one; an answer must be the translation that the
sentence has alone. Then the start-up time and the memory of servers with one model, and with another one beside it.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple

from seq2seq import Translator
from seq2seq.data.formats.lines import read_text

UNBATCHED = """\
import sys
from seq2seq.serve import batcher
from seq2seq.cli.main import main
batcher._BATCH_LINES, batcher._MOMENT = 1, 0
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def running(models: Sequence[Path], kind: str, threads: int) -> Iterator[tuple[int, int]]:
    """A server in a process of its own; gives its port and its process id."""
    start = [sys.executable, *(["-c", UNBATCHED] if kind == "one line" else ["-m", "seq2seq"])]
    options = ["--port", "0", "--device", "cpu", "--threads", str(threads), "--engine", engine_of(kind)]
    process = subprocess.Popen([*start, "serve", *map(str, models), *options], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        port = next(int(found[1]) for line in process.stderr if (found := re.search(r"http://[\d.]+:(\d+)", line)))
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def engine_of(kind: str) -> str:
    """The engine of a kind of server."""
    return "ctranslate2" if kind == "ctranslate2" else "torch"


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes) -> bytes:
    """The answer to a request on an open connection."""
    way = b"POST" if body else b"GET"
    head = b"Host: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    writer.write(way + b" " + path.encode() + b" HTTP/1.1\r\n" + head + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in answer.split(b"\r\n")[0], answer
    (length,) = re.findall(rb"content-length: (\d+)", answer)
    return await reader.readexactly(int(length))


async def load(port: int, sources: Sequence[str], clients: int, seconds: float) -> list[tuple[int, float, str]]:
    """All answers: number of the source, seconds, translation."""
    answers: list[tuple[int, float, str]] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (started := time.perf_counter()) < end:
            body = json.dumps({"q": sources[number % len(sources)], "source": "auto", "target": target}).encode()
            answer = json.loads(await post(reader, writer, "/translate", body))
            answers.append((number % len(sources), time.perf_counter() - started, answer["translatedText"]))
            number += clients
        writer.close()

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    target = json.loads(await post(reader, writer, "/languages", b""))[0]["targets"][0]
    writer.close()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return answers


async def batches(port: int) -> tuple[float, float]:
    """The lines and the batches that the server has translated."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = (await post(reader, writer, "/metrics", b"")).decode()
    writer.close()
    lines, number = (
        float(re.findall(rf"^seq2seq_batch_lines_{name} (.*)$", text, re.M)[0]) for name in ("sum", "count")
    )
    return lines, number


class Figures(NamedTuple):
    """What one server did in one round."""

    rate: float  # requests per second, until the last answer
    seconds: list[float]  # of each request
    lines_per_batch: float
    differ: int


def measure(port: int, sources: Sequence[str], alone: Sequence[str], clients: int, seconds: float) -> Figures:
    """The figures of a server with so many clients."""
    before = asyncio.run(batches(port))
    started = time.perf_counter()
    answers = asyncio.run(load(port, sources, clients, seconds))
    rate = len(answers) / (time.perf_counter() - started)
    lines, number = (now - then for now, then in zip(asyncio.run(batches(port)), before, strict=True))
    differ = sum(text != alone[number] for number, _, text in answers)
    return Figures(rate, [taken for _, taken, _ in answers], lines / number, differ)


def start_up(models: Sequence[Path], sources: Sequence[str], threads: int) -> None:
    """Print how long servers take to start and what memory they need after some translations."""
    for number in range(1, len(models) + 1):
        started = time.perf_counter()
        with running(models[:number], "batches", threads) as (port, pid):
            seconds = time.perf_counter() - started
            cpu = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[11:13]))
            asyncio.run(load(port, sources, 16, 3))
            (kib,) = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        cpu_seconds = cpu / os.sysconf("SC_CLK_TCK")
        print(f"models: {number}; start: {seconds:.1f} s ({cpu_seconds:.1f} s CPU); memory: {int(kib) / 1024:,.0f} MiB")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Measure seq2seq serve under load.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="sentences to translate, one a line")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=5, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ctranslate2", action="store_true", help="measure its engine, too")
    parser.add_argument("--second", type=Path, help="a model for another direction, to measure the memory of two")
    args = parser.parse_args()
    sources = [line for line in read_text(args.text) if line.strip()][: args.sentences]
    kinds = ["batches", "one line", *(["ctranslate2"] if args.ctranslate2 else [])]
    engines = {engine: Translator.load(args.model, "cpu", engine=engine) for engine in map(engine_of, kinds)}
    alone = {engine: [one.translate(source) for source in sources] for engine, one in engines.items()}
    print("clients       server  requests/s  of batches     p50     p95     p99  lines/batch  differ")
    with ExitStack() as stack:
        ports = {kind: stack.enter_context(running([args.model], kind, args.threads))[0] for kind in kinds}
        for port in ports.values():
            asyncio.run(load(port, sources, 4, 1))  # the first requests are slow
        for clients in args.clients:
            rounds = [
                {
                    kind: measure(port, sources, alone[engine_of(kind)], clients, args.seconds)
                    for kind, port in ports.items()
                }
                for _ in range(args.rounds)
            ]
            for kind in kinds:
                some = [figures[kind] for figures in rounds]
                ratio = median(figures[kind].rate / figures["batches"].rate for figures in rounds)
                seconds = sorted(chain.from_iterable(one.seconds for one in some))
                times = "  ".join(f"{1000 * seconds[int(len(seconds) * share)]:3.0f} ms" for share in (0.5, 0.95, 0.99))
                rate, lines = median(one.rate for one in some), median(one.lines_per_batch for one in some)
                differ = sum(one.differ for one in some)
                line = f"{clients:7}  {kind:>11}  {rate:10.1f}  {ratio:10.2f}  {times}  {lines:11.1f}  {differ:6}"
                print(line, flush=True)
    start_up([args.model, *([args.second] if args.second else [])], sources, args.threads)


if __name__ == "__main__":
    main()
