"""Measures a running server under load: requests per second, latencies, batch sizes; each answer is checked.

    python scripts/serve_load.py MODEL --text test.en.gz --clients 1 16 64 256

The server is started twice, with batches and with one line at a time. Every client sends one sentence, waits for its
answer, and sends the next one; an answer must be the translation that the sentence has alone.
"""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

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
def running(model: Path, batched: bool, threads: int) -> Iterator[int]:
    """A server in a process of its own; gives its port."""
    start = [sys.executable, *(["-m", "seq2seq"] if batched else ["-c", UNBATCHED])]
    command = [*start, "serve", str(model), "--port", "0", "--device", "cpu", "--threads", str(threads)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield next(int(found[1]) for line in process.stderr if (found := re.search(r"http://[\d.]+:(\d+)", line)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Measure seq2seq serve under load.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="sentences to translate, one a line")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    sources = [line for line in read_text(args.text) if line.strip()][: args.sentences]
    translator = Translator.load(args.model, "cpu")
    alone = [translator.translate(source) for source in sources]
    print("clients  batches  requests/s     p50     p95     p99  lines/batch  differ")
    for batched in (True, False):
        with running(args.model, batched, args.threads) as port:
            asyncio.run(load(port, sources, 4, 1))  # the first requests are slow
            for clients in args.clients:
                before = asyncio.run(batches(port))
                started = time.perf_counter()
                answers = asyncio.run(load(port, sources, clients, args.seconds))
                rate = len(answers) / (time.perf_counter() - started)  # until the last answer
                lines, number = (now - then for now, then in zip(asyncio.run(batches(port)), before, strict=True))
                seconds = sorted(taken for _, taken, _ in answers)
                p50, p95, p99 = (seconds[int(len(seconds) * share)] for share in (0.5, 0.95, 0.99))
                differ = sum(text != alone[number] for number, _, text in answers)
                times = "  ".join(f"{1000 * moment:3.0f} ms" for moment in (p50, p95, p99))
                kind = "on" if batched else "off"
                print(f"{clients:7}  {kind:>7}  {rate:10.1f}  {times}  {lines / number:11.1f}  {differ:6}", flush=True)


if __name__ == "__main__":
    main()
