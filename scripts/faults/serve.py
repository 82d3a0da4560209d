"""Hostile, broken and slow clients of `serve`; its kill -9 and SIGTERM under load.

A server gets malformed requests, bodies of 100 MB, huge heads, paths out of its folder, and clients that send next to
nothing, while others translate. It must answer each with the right status, answer the others as before,
and need no more memory at the end than after the first round. It then answers requests of every kind that it offers,
each with another text, and must not grow. Then it is killed under load and started again on the same port, and stopped
by SIGTERM under load, which must lose no request that it accepted.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from faults.translate import small_model
from seq2seq import Translator
from seq2seq.data.formats.lines import read_text
from tests.toy import ROOT, command, environment

_JSON = b"Content-Type: application/json\r\n"
_LARGE = 100_000_000  # bytes of a body
_GROWTH = 1.1  # of memory, at most


def add_options(parser: argparse.ArgumentParser) -> None:
    """The size of the attack."""
    parser.add_argument("--model", type=Path, metavar="DIR", help="run folder or model folder (default: a small one)")
    parser.add_argument("--malformed", type=int, default=10_000, metavar="N", help="requests (default: 10,000)")
    parser.add_argument("--requests", type=int, default=10_000, metavar="N", help="good ones (default: 10,000)")
    parser.add_argument("--slow", type=int, default=200, metavar="N", help="clients that send nothing (default: 200)")
    parser.add_argument("--kills", type=int, default=3, help="of each kind (default: 3)")
    parser.add_argument("--seed", type=int, default=1, help="of requests and moments (default: 1)")


def run(args: argparse.Namespace) -> list[str]:
    """Attack, measure, kill, stop."""
    args.out.mkdir(parents=True, exist_ok=True)
    model = args.model.resolve() if args.model else small_model(args.out)
    sentences = [line for line in read_text(ROOT / "data/train.en")[:40] if line.strip()]
    translator = Translator.load(model, "cpu")
    languages = translator.config.data.source_language, translator.config.data.target_language
    good = [_request(text, *map(str, languages)) for text in sentences]
    expected = [translator.translate(text) for text in sentences]
    load = _Load(good, expected)
    with _serving(model, 0, args.out / "log") as server:
        problems = _attacked(args, server, load)
    with _serving(model, 0, args.out / "log") as server:
        problems += _used(args, server, sentences, *map(str, languages))
    for kind in (signal.SIGKILL, signal.SIGTERM):
        problems += _ended(args, model, load, kind)
    return problems


class _Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    @property
    def mib(self) -> float:
        """The memory that it has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def send(self, data: bytes, timeout: float = 60) -> bytes:
        """What it sends until it closes the connection; nothing if it does not answer."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(data)
            with suppress(ConnectionResetError):
                while part := connection.recv(65_536):
                    answer += part
        return answer


class _Load:
    """Clients that translate, and check what they get."""

    def __init__(self, requests: list[bytes], expected: list[str]) -> None:
        self._requests, self._expected = requests, expected
        self.outcomes: Counter[str] = Counter()

    @contextmanager
    def running(self, server: _Server, clients: int = 8) -> Iterator[None]:
        """Clients that send requests, each one after the answer to the last."""
        self.outcomes.clear()
        stopping = threading.Event()
        threads = [threading.Thread(target=self._client, args=(server, n, stopping)) for n in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            for thread in threads:
                thread.join()

    def _client(self, server: _Server, number: int, stopping: threading.Event) -> None:
        while not stopping.is_set():
            number = (number + 1) % len(self._requests)
            try:
                answer = server.send(self._requests[number])
            except ConnectionError:
                self.outcomes["refused"] += 1
                return
            text = _text_of(answer)
            kind = "right" if text == self._expected[number] else "refused" if b" 503 " in answer[:20] else "lost"
            self.outcomes[kind if text is None or kind == "right" else "WRONG"] += 1


def _attacked(args: argparse.Namespace, server: _Server, load: _Load) -> list[str]:
    rng, problems = random.Random(args.seed), []
    with load.running(server, 2):
        memory = []
        for _ in range(2):
            codes, seconds = _malformed(server, rng, args.malformed // 2)
            memory.append(server.mib)
            problems += [f"{what}: answered with {code}" for (what, code), _ in codes.items() if not _fits(what, code)]
            shown = ", ".join(f"{code}: {number}" for code, number in sorted(_by_code(codes).items()))
            print(
                f"{args.malformed // 2:,} malformed requests in {seconds:.0f} s: {shown}; {memory[-1]:,.0f} MiB",
                flush=True,
            )
        for what, attack in _LARGE_ONES.items():
            started = time.monotonic()
            found = Counter(attack(server))
            problems += [f"{what}: answered with {code}" for code in found if not _fits(what, code)]
            shown = ", ".join(f"{code}: {number}" for code, number in sorted(found.items()))
            memory.append(server.mib)
            print(f"{what} in {time.monotonic() - started:.0f} s: {shown}; {memory[-1]:,.0f} MiB", flush=True)
        problems += _slow(server, args.slow)
        memory.append(server.mib)
        print(f"afterwards: {memory[-1]:,.0f} MiB", flush=True)
    outcomes = load.outcomes
    print(f"others meanwhile: {dict(outcomes)}")
    problems += ["the server has ended"] * (server.process.poll() is not None)
    problems += [f"memory grew from {memory[0]:.0f} to {memory[-1]:.0f} MiB"] * (memory[-1] > _GROWTH * memory[0])
    return problems + ["others were disturbed"] * (set(outcomes) != {"right"})


def _used(args: argparse.Namespace, server: _Server, sentences: list[str], source: str, target: str) -> list[str]:
    """Requests of every kind from four clients, each with another text, in five parts; the memory after each part."""
    words, kinds = [word for line in sentences for word in line.split()], list(_GOOD)
    number, memory, codes = args.requests // 5, list[float](), Counter[str]()

    def ask(seed: int) -> str:
        rng = random.Random(seed)
        text = " ".join(rng.choices(words, k=rng.randrange(1, 30)))
        return _code(server.send(_GOOD[kinds[seed % len(kinds)]](text, source, target)))

    started = time.monotonic()
    with ThreadPoolExecutor(4) as clients:
        for part in range(5):
            first = args.seed + part * number
            codes.update(clients.map(ask, range(first, first + number)))
            memory.append(server.mib)
    shown = ", ".join(f"{mib:,.0f}" for mib in memory)
    print(f"{5 * number:,} good requests in {time.monotonic() - started:.0f} s: {dict(codes)}; {shown} MiB", flush=True)
    problems = [f"{codes.total() - codes['200']} of the good requests failed"] * (set(codes) != {"200"})
    return problems + [f"memory grew from {memory[0]:.0f} to {memory[-1]:.0f} MiB"] * (memory[-1] > _GROWTH * memory[0])


def _malformed(server: _Server, rng: random.Random, number: int) -> tuple[Counter[tuple[str, str]], float]:
    """The status of each answer to so many requests, by kind."""
    started, codes = time.monotonic(), Counter[tuple[str, str]]()
    for _ in range(number):
        what = rng.choice(list(_MALFORMED))
        codes[what, _code(server.send(_MALFORMED[what](rng)))] += 1
    return codes, time.monotonic() - started


def _slow(server: _Server, number: int) -> list[str]:
    """Connections that send nothing or one byte a second; they are closed, and nobody waits for them."""
    started = time.monotonic()
    connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(number)]
    begun = b"POST /translate HTTP/1.1\r\nHost: x\r\nX-A: "
    open_ones = list(connections)
    for n, connection in enumerate(connections):
        connection.setblocking(False)
        if n % 2:
            connection.send(begun)
    slowest = 0.0
    while open_ones and time.monotonic() < started + 60:
        before = time.monotonic()
        assert b"200 OK" in server.send(_get("/health"))
        slowest = max(slowest, time.monotonic() - before)
        for connection in list(open_ones):
            try:
                connection.send(b"a" if connection in connections[1::2] else b"")
                ended = connection.recv(1000) == b""
            except BlockingIOError:
                continue
            except OSError:
                ended = True
            if ended:
                open_ones.remove(connection)
        time.sleep(1)
    for connection in connections:
        connection.close()
    seconds = time.monotonic() - started
    print(f"{number} slow clients: all closed after {seconds:.0f} s; slowest /health meanwhile {1000 * slowest:.0f} ms")
    return [f"{len(open_ones)} slow clients are still connected"] * bool(open_ones)


def _ended(args: argparse.Namespace, model: Path, load: _Load, kind: signal.Signals) -> list[str]:
    """End a server under load and start it again on the same port, several times."""
    rng, problems, port, total, starts = random.Random(args.seed), [], 0, Counter[str](), []
    for _ in range(args.kills + 1):
        started = time.monotonic()
        with _serving(model, port, args.out / "log") as server:
            starts.append(time.monotonic() - started)
            port = server.port
            with load.running(server):
                time.sleep(rng.uniform(2, 4))
                server.process.send_signal(kind)
                code = server.process.wait(60)
        total += load.outcomes
        problems += [f"SIGTERM: exit code {code}"] * (kind == signal.SIGTERM and code != 0)
        problems += ["no request was answered"] * (load.outcomes["right"] == 0)
    print(f"{kind.name} under load, {args.kills + 1} times on the same port: {dict(total)}; ", end="")
    print(f"starts took {min(starts):.1f} to {max(starts):.1f} s", flush=True)
    bad = {"WRONG"} if kind == signal.SIGKILL else {"WRONG", "lost"}
    return problems + [f"{kind.name}: {total[one]} answers {one}" for one in sorted(bad & set(total))]


@contextmanager
def _serving(model: Path, port: int, log: Path) -> Iterator[_Server]:
    options = ("--port", str(port), "--device", "cpu", "--threads", "1")
    process = subprocess.Popen(command("serve", model, *options), stderr=subprocess.PIPE, env=environment())
    assert process.stderr is not None
    try:
        said = b""
        while not (found := re.search(rb"http://127\.0\.0\.1:(\d+)", said)):
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"the server does not start: {said.decode()}")
            said += line
        yield _Server(process, int(found[1]))
    finally:
        process.kill()
        process.wait()
        with log.open("ab") as file:
            file.write(said + process.stderr.read())
        process.stderr.close()


def _request(text: str, source: str, target: str) -> bytes:
    return _query(q=text, source=source, target=target)


def _query(path: bytes = b"/translate", **fields: object) -> bytes:
    return _post(json.dumps(fields).encode(), path=path)


def _post(body: bytes, head: bytes = _JSON, path: bytes = b"/translate") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + head + length + b"\r\n" + body


def _file(text: str, source: str, target: str) -> bytes:
    fields = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name, value.encode())
        for name, value in ((b"source", source), (b"target", target))
    )
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n%s\r\n--x--\r\n'
    head = b"Content-Type: multipart/form-data; boundary=x\r\n"
    return _post(fields + file % "\n".join([text] * 3).encode(), head, b"/translate_file")


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def _code(answer: bytes) -> str:
    return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "none"


def _by_code(codes: Counter[tuple[str, str]]) -> Counter[str]:
    total = Counter[str]()
    for (_, code), number in codes.items():
        total[code] += number
    return total


def _text_of(answer: bytes) -> str | None:
    try:
        return str(json.loads(answer.partition(b"\r\n\r\n")[2])["translatedText"])
    except (ValueError, KeyError, TypeError):
        return None


def _cut(rng: random.Random) -> bytes:
    body = b'{"q": "a", "source": "en", "target": "de"}'
    return _post(body[: rng.randrange(len(body))])


def _flipped(rng: random.Random) -> bytes:
    request = bytearray(_post(b'{"q": 1, "source": "en", "target": "de"}'))
    for _ in range(rng.randrange(1, 8)):
        request[rng.randrange(len(request))] = rng.randrange(256)
    return bytes(request) + b"\r\n\r\n" + b" " * 3000  # its length may have become longer


def _path(rng: random.Random) -> bytes:
    step = rng.choice(["../", "..%2f", "%2e%2e/", "..\\", "%00", "....//", "//"])
    start = rng.choice(["/", "/download_file/"])
    return _get(f"{start}{step * rng.randrange(1, 9)}{rng.choice(['etc/passwd', 'config.yaml', 'model.safetensors'])}")


_GOOD: dict[str, Callable[[str, str, str], bytes]] = {
    "a text": _request,
    "a list": lambda text, src, tgt: _query(q=[text, text[:20], ""], source=src, target=tgt),
    "alternatives": lambda text, src, tgt: _query(q=text, source=src, target=tgt, alternatives=2),
    "HTML": lambda text, src, tgt: _query(q=f"<p>{text} <b>{text}</b></p>", source=src, target=tgt, format="html"),
    "an add-on": lambda text, src, tgt: _query(b"/translate_list", texts=[text], **{"from": src, "to": tgt}),
    "a file": _file,
    "a language": lambda text, src, tgt: _query(b"/detect", q=text),
    "a look inside": lambda text, src, tgt: _query(b"/explain", q=text, translation=text[:20], source=src, target=tgt),
    "the page": lambda text, src, tgt: _get("/"),
    "figures": lambda text, src, tgt: _get("/metrics"),
}
_MALFORMED: dict[str, Callable[[random.Random], bytes]] = {
    "JSON that is cut": _cut,
    "bytes that are no HTTP": lambda rng: rng.randbytes(rng.randrange(1, 200)) + b"\r\n\r\n",
    "requests with changed bytes": _flipped,
    "deep JSON": lambda rng: _post(rng.choice([b"[", b'{"q":', b'{"a":[']) * rng.randrange(100, 20_000)),
    "invalid UTF-8": lambda rng: _post(b'{"q": "' + rng.choice([b"\xff", b"\xc0\xaf", b"\xed\xa0\x80"]) + b'"}'),
    "fields of other types": lambda rng: _post(
        json.dumps({"q": rng.choice([1, None, {}, [[]], True]), "source": "en", "target": "de"}).encode()
    ),
    "forms that are broken": lambda rng: _post(
        rng.randbytes(300), b"Content-Type: multipart/form-data; boundary=x\r\n"
    ),
    "too many headers": lambda rng: _post(b"{}", b"X-A: " + b"b" * rng.randrange(20_000, 200_000) + b"\r\n"),
    "paths out of the folder": _path,
}
# What is no request may be closed without an answer, and what is no longer malformed may be good.
_ALSO = {
    "bytes that are no HTTP": {"none"},
    "requests with changed bytes": {"none", "404", "405", "408", "413", "501", "505"},
    "too many headers": {"none", "431"},
    "paths out of the folder": {"404"},
    "bodies of 100 MB": {"413"},
    "bodies of 100 MB in chunks": {"413"},
    "heads of 10 MB": {"none", "431"},
}


def _fits(what: str, code: str) -> bool:
    return code in _ALSO[what] if "100 MB" in what else code == "400" or code in _ALSO.get(what, ())


def _large_body(server: _Server) -> Iterator[str]:
    for _ in range(5):
        yield _code(server.send(_post(b"x" * _LARGE)))


def _large_chunks(server: _Server) -> Iterator[str]:
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    head = b"POST /translate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(5):
        yield _code(server.send(head + chunk * (_LARGE // 65_536) + b"0\r\n\r\n"))


def _large_head(server: _Server) -> Iterator[str]:
    for _ in range(20):
        yield _code(server.send(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(1_000_000))))


_LARGE_ONES: dict[str, Callable[[_Server], Iterator[str]]] = {
    "bodies of 100 MB": _large_body,
    "bodies of 100 MB in chunks": _large_chunks,
    "heads of 10 MB": _large_head,
}
