"""Servers in a process of their own or in a thread, and raw requests to them."""

import argparse
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from seq2seq.cli import serve
from tests.toy import environment

for package in ("prometheus_client", "starlette", "uvicorn"):  # the extra serve
    pytest.importorskip(package)


class Server:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{self.port}"

    def send(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers of an answer; ``headers``: with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urlopen(Request(self.url + path, body, named), timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    def ask(self, path: str, fields: dict[str, Any] | bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of an answer to a request in JSON."""
        body = json.dumps(fields).encode() if isinstance(fields, dict) else fields
        status, content, _ = self.send(path, body, Content_Type="application/json", **headers)
        return status, json.loads(content)

    def send_file(self, name: str, content: bytes, fields: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers of the answer to a form with a file."""
        parts = [f'--x\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{one}\r\n' for key, one in fields.items()]
        parts.append(f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n')
        body = "".join(parts).encode() + content + b"\r\n--x--\r\n"
        return self.send("/translate_file", body, Content_Type="multipart/form-data; boundary=x")

    def raw(self, request: bytes, wait: float = 20) -> bytes:
        """What the server sends to these bytes until it closes the connection.

        ConnectionResetError if the connection is reset before that: the system does so to those who connect in the
        microseconds before a server stops listening.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            connection.sendall(request)
            answer = b""
            try:
                while part := connection.recv(65_536):
                    answer += part
            except ConnectionResetError:
                if not answer:
                    raise
        return answer


class Process(Server):
    """A server in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", first: str) -> None:
        (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)", first)
        super().__init__(int(port))
        self.process = process


def served(*arguments: str | Path) -> Server:
    """A server in a thread, which starts without loading PyTorch again; it ends with the tests."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        server = Server(free.getsockname()[1])
    whole = ["serve", *map(str, arguments), "--port", str(server.port), "--device", "cpu", "--threads", "1"]
    parser = argparse.ArgumentParser()
    serve.add(parser.add_subparsers(dest="command"))
    Thread(target=serve.run, args=(parser.parse_args(whole),), daemon=True).start()
    end = time.monotonic() + 60
    while True:
        try:
            server.send("/health")
            return server
        except URLError:
            assert time.monotonic() < end
            time.sleep(0.02)


@contextmanager
def serving(*arguments: str | Path, first: str = "") -> Iterator[Process]:
    """Start ``seq2seq serve``, after some Python code; it ends with the block."""
    code = f"import sys\nfrom seq2seq.cli.main import main\n{first}\nsys.exit(main(sys.argv[1:]))"
    whole = [sys.executable, "-c", code, "serve", *map(str, arguments), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stderr is not None
    said = ""
    while "http://127" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    try:
        yield Process(process, said)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.stderr.close()
