"""Wrong, hostile and slow clients get the right error and hold up nobody; a server that ends loses no request."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from seq2seq.cli.main import main
from seq2seq.cli.serve import _listener
from seq2seq.serve.batcher import Loaded
from tests.serve.running import Server, served, serving
from tests.toy import command, environment, sentences, toy_config, train

PAIR = {"source": "xx", "target": "yy"}
GOOD = {"q": "kato mi", **PAIR}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"q"',
        b"null",
        b"\xff\xfe",
        b'{"q": "\xff"}',
        b"[" * 50_000,
        b'{"q":' * 13_000,
        b'{"q": ' + b"9" * 5000 + b"}",
        *(
            json.dumps({**GOOD, **wrong}).encode()
            for wrong in (
                *({"q": q} for q in ("", None, 1, [], [1], {}, ["a", None], [["a"]], "\ud800")),
                *({"source": code} for code in ("", None, 1, "zz", "../..")),
                *({"target": code} for code in ("", None, 1, "zz", "auto", "xx")),
                *({"format": kind} for kind in ("pdf", 1, [])),
                *({"alternatives": number} for number in (-1, "x", "", 1.5, True, [], float("nan"), "²")),
                {"q": "x" * 301},
                {"q": ["x"] * 21},
                {"q": "x\n" * 21},
            )
        ),
    ],
)
def test_a_wrong_request_is_the_clients_fault(limited: Server, body: bytes) -> None:
    """Guards against 500, which says that the server is wrong, and against answers that are no JSON."""
    status, answer = limited.ask("/translate", body)
    assert (status, list(answer)) == (400, ["error"])


def test_forms_that_are_wrong(limited: Server) -> None:
    """Guards against texts that are read in another encoding than their own."""
    form, many = "application/x-www-form-urlencoded", b"multipart/form-data; boundary=x"
    for body, kind in (
        (b"q=%ff&source=xx&target=yy", form),
        (b"q=\xff&source=xx&target=yy", form),
        (b"&".join([b"a=b"] * 5000), form),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n", many.decode()),
        (b"no parts", many.decode()),
        (b"no boundary", "multipart/form-data"),
        (b"q=a", "text/plain"),
    ):
        status, answer, _ = limited.send("/translate", body, Content_Type=kind)
        assert (status, b"error" in answer) == (400, True), body[:50]
    assert limited.send("/translate_file", b"q=a")[0] == 400


def test_large_requests_are_refused_unread(limited: Server) -> None:
    """Guards against a body or a head that fills the memory."""
    head = b"POST /translate HTTP/1.1\r\nHost: x\r\n"
    assert b" 413 " in limited.raw(head + b"Content-Length: 100000000\r\n\r\nx")
    status, _, _ = limited.send("/translate", b"x" * 5_000_000)
    assert status == 413
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    assert b" 413 " in limited.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2)
    assert b" 400 " in limited.raw(head + b"".join(b"X-%d: x\r\n" % n for n in range(10_000)))
    assert b" 400 " in limited.raw(b"\x00\xff\r\n\r\n")


def test_slow_clients_are_sent_away(limited: Server) -> None:
    """Guards against connections that send one byte a second and take all places."""
    for beginning, answer in (
        (b"GET / HT", b""),
        (b"", b""),
        (b"POST /translate HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", b" 408 "),
    ):
        started = time.monotonic()
        assert answer in limited.raw(beginning)
        assert 0.5 < time.monotonic() - started < 5


def test_answers_do_not_wait_for_a_client_to_confirm_the_last_one() -> None:
    """Guards against Nagle's algorithm, with which each answer on a connection that is kept comes 40 ms late."""

    async def without_nagle() -> int:
        found = asyncio.get_running_loop().create_future()
        listener = _listener("127.0.0.1", 0)
        server = await asyncio.start_server(lambda _, writer: found.set_result(writer), sock=listener)
        async with server:
            _, client = await asyncio.open_connection(*listener.getsockname())
            accepted = (await found).get_extra_info("socket")
            client.close()
            return int(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    assert asyncio.run(without_nagle())


def test_a_full_queue_says_when_to_come_back(limited: Server) -> None:
    """Guards against a queue without limit, and clients that do not know what to do."""
    seen: list[tuple[int, str | None]] = []

    def ask() -> None:
        body = json.dumps({**GOOD, "q": "ka to mi " * 30}).encode()
        status, _, headers = limited.send("/translate", body, Content_Type="application/json")
        seen.append((status, headers.get("retry-after")))

    clients = [threading.Thread(target=ask) for _ in range(12)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert {(200, None), (429, "1")} == set(seen)


def test_a_translation_that_takes_too_long(toy: Path) -> None:
    """Guards against requests that wait for ever, and work that goes on for nobody."""
    server = served(toy, "--timeout", "0.001")
    status, _, headers = server.send("/translate", json.dumps(GOOD).encode(), Content_Type="application/json")
    assert (status, headers["retry-after"]) == (503, "5")
    time.sleep(0.3)
    assert b"seq2seq_waiting_characters 0.0" in server.send("/metrics")[1]


def test_keys_and_other_origins(toy: Path, tmp_path: Path) -> None:
    """Guards against a way around the key, and pages of strangers that use the server of their reader."""
    (tmp_path / "keys").write_text("first\nsécond\n", encoding="utf-8")
    server = served(toy, "--api-key-file", tmp_path / "keys", "--cors", "https://my.example")
    assert server.ask("/translate", GOOD)[0] == 403
    assert server.ask("/translate", {**GOOD, "api_key": "firs"})[0] == 403
    assert server.ask("/translate", {**GOOD, "api_key": ["first"]})[0] == 400
    assert server.ask("/translate", {**GOOD, "api_key": "first"})[0] == 200
    assert server.ask("/translate", {**GOOD, "api_key": "sécond"})[0] == 200
    assert server.ask("/translate", GOOD, Authorization="Bearer first")[0] == 200
    assert server.ask("/detect", {"q": "x"})[0] == 403
    assert server.send_file("a.txt", b"ka", PAIR)[0] == 403
    assert server.send("/metrics")[0] == 403
    assert server.send("/languages")[0] == server.send("/health")[0] == 200
    for origin, allowed in (("https://my.example", "https://my.example"), ("https://other.example", None)):
        assert server.send("/languages", Origin=origin)[2].get("access-control-allow-origin") == allowed


def test_sigterm_under_load_loses_no_accepted_request_and_the_log_has_no_text(toy: Path, model: Loaded) -> None:
    """Guards against answers that are cut off, a server that does not end, and private texts in log files."""
    broken = "from seq2seq.serve.api import Api; Api.detect = lambda self, fields: int(fields['q'])"
    lines = [src for src, _ in sentences(20, seed=8)]
    alone = [model.translator.translate(line) for line in lines]
    outcomes: list[str] = []
    with serving(toy, first=broken) as server:
        assert server.ask("/translate", {**GOOD, "q": "secret"})[0] == 200
        assert server.ask("/translate?q=secret", {"q": ""})[0] == 400
        status, answer = server.ask("/detect", {"q": "secret"})
        assert (status, "secret" in str(answer)) == (500, False)
        multipart = "multipart/form-data; boundary=x"
        assert server.send("/translate", b"secret", Content_Type=multipart)[0] == 400

        def client(number: int) -> None:
            line, body = alone[number], json.dumps({"q": lines[number], **PAIR}).encode()
            head = b"POST /translate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            request = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            while not {"refused", "lost"} & set(outcomes):
                try:
                    answer = server.raw(request)
                except (ConnectionRefusedError, ConnectionResetError):
                    outcomes.append("refused")
                else:
                    good = answer and json.loads(answer.partition(b"\r\n\r\n")[2]) == {"translatedText": line}
                    outcomes.append("answered" if good else "lost")

        clients = [threading.Thread(target=client, args=(number,)) for number in range(20)]
        for thread in clients:
            thread.start()
        while len(outcomes) < 100:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        for thread in clients:
            thread.join(20)
        assert server.process.wait(20) == 0
        log = server.process.stderr.read() if server.process.stderr else ""
    assert set(outcomes) == {"answered", "refused"}
    assert "/detect: a bug: ValueError in" in log
    assert "secret" not in log
    assert log.count("\n") == 2  # and nothing of libraries


def test_who_has_connected_when_the_server_is_stopped_is_answered(toy: Path, model: Loaded) -> None:
    """Guards against requests of clients that are connected, but not let in yet, which a busy server reset."""
    lines = [src for src, _ in sentences(8, seed=9)]
    answers: list[str] = []
    with serving(toy) as server:

        def client(line: str) -> None:
            body = json.dumps({"q": line, **PAIR}).encode()
            head = b"POST /translate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            answer = server.raw(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            answers.append(json.loads(answer.partition(b"\r\n\r\n")[2])["translatedText"])

        server.process.send_signal(signal.SIGSTOP)
        clients = [threading.Thread(target=client, args=(line,)) for line in lines]
        for thread in clients:
            thread.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        for thread in clients:
            thread.join(20)
        assert server.process.wait(20) == 0
    assert sorted(answers) == sorted(map(model.translator.translate, lines))


def test_a_changed_folder_is_loaded_and_a_damaged_one_is_not(toy: Path, tmp_path: Path, model: Loaded) -> None:
    """Guards against a restart for each new model, and a server that is brought down by a damaged one."""
    shutil.copytree(toy / "best", tmp_path / "model")
    other = toy_config(toy.parent / "text", tmp_path / "other", "model.d_model=32", "train.max_steps=2")
    train(other)
    with serving(tmp_path / "model", first="from seq2seq.serve import models; models._EVERY = 0.1") as server:
        before = server.ask("/translate", GOOD)
        weights = tmp_path / "model/model.safetensors"
        (tmp_path / "bad").write_bytes(weights.read_bytes()[:-100])
        (tmp_path / "bad").rename(weights)
        assert server.process.stderr is not None
        assert "changed, but the new model cannot be used" in server.process.stderr.readline()
        assert server.ask("/translate", GOOD) == before
        shutil.rmtree(tmp_path / "model")
        assert server.ask("/translate", GOOD) == before
        shutil.copytree(tmp_path / "other/best", tmp_path / "new")
        (tmp_path / "new").rename(tmp_path / "model")
        while "the new model is used" not in server.process.stderr.readline():
            pass
        assert server.ask("/translate", GOOD) != before


def test_mistakes_on_the_command_line(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against tracebacks; each mistake gets one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "empty").write_text("\n")
        for arguments, message in (
            (["--port", str(port)], "in use"),
            (["--port", "70000"], "--port"),
            (["--host", "no.such.host.invalid", "--port", "0"], "cannot use no.such.host.invalid"),
            (["--api-key-file", str(tmp_path / "none")], "cannot be read"),
            (["--api-key-file", str(tmp_path / "empty")], "has no key"),
            (["--queue", "5"], "--queue"),
            (["--timeout", "nan"], "--timeout"),
            (["--n-best", "2"], "alternatives"),
            ([str(toy), "--port", "0"], "both translate xx to yy"),
        ):
            assert main(["serve", str(toy), *arguments]) == 2
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith("seq2seq serve: error: ")
            assert message in error
    code = "import sys; sys.modules['uvicorn'] = None; from seq2seq.cli.main import main; sys.exit(main(sys.argv[1:]))"
    whole = [command()[0], "-c", code, "serve", str(toy), "--port", "0"]
    done = subprocess.run(whole, capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install '.[serve]'" in done.stderr
