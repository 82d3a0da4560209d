"""LibreTranslate's API as its clients use it, over real sockets."""

import gzip
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from seq2seq.serve import documents
from seq2seq.serve.batcher import Loaded
from tests.serve.running import Server
from tests.toy import run_command, sentences

LINES = [src for src, _ in sentences(12, seed=5)]
PAIR = {"source": "xx", "target": "yy"}


def test_a_text_a_list_and_forms(server: Server, model: Loaded) -> None:
    """Guards against answers of another shape than LibreTranslate's, and other translations than the command's."""
    texts = [model.translator.translate(line) for line in LINES]
    done = run_command("translate", model.translator.folders[0], stdin="".join(f"{x}\n" for x in LINES).encode())
    assert done.stdout.decode().split("\n")[:-1] == texts
    assert server.ask("/translate", {"q": LINES[0], **PAIR}) == (200, {"translatedText": texts[0]})
    assert server.ask("/translate", {"q": LINES, **PAIR}) == (200, {"translatedText": texts})
    assert server.ask("/translate", {"q": LINES[:1], **PAIR}) == (200, {"translatedText": texts[:1]})
    body = urlencode({"q": LINES[0], **PAIR})
    assert server.send("/translate", body.encode())[1] == server.send(f"/translate?{body}", b"")[1]
    repeated = urlencode([*PAIR.items(), *(("q", line) for line in LINES)]).encode()
    assert json.loads(server.send("/translate", repeated)[1]) == {"translatedText": texts}


def test_lines_keep_their_ends(server: Server, model: Loaded) -> None:
    """Guards against lost lines: each line of a text is translated by itself."""
    first, second = (model.translator.translate(line) for line in LINES[:2])
    answer = server.ask("/translate", {"q": f"{LINES[0]}\r\n\n{LINES[1]}\n", **PAIR})
    assert answer == (200, {"translatedText": f"{first}\r\n\n{second}\n"})


def test_alternatives_html_and_detection(server: Server, model: Loaded) -> None:
    """Guards against alternatives that repeat the translation, translated tags, and missing languages."""
    status, answer = server.ask("/translate", {"q": LINES[0], **PAIR, "alternatives": 3, "source": "auto"})
    best = model.translator.translate(LINES[0])
    assert (status, answer["translatedText"], answer["detectedLanguage"]["language"]) == (200, best, "xx")
    assert len(answer["alternatives"]) == 1  # the beam has two hypotheses
    assert best not in answer["alternatives"]
    html = f"<p>{LINES[0]}</p><ul><li>{LINES[1]} <b class='q'>{LINES[2]}</b></ul>"
    _, answer = server.ask("/translate", {"q": [html, "x"], **PAIR, "format": "html"})
    whole = model.translator.translate(f"{LINES[1]} {LINES[2]}")
    plain = re.sub("</?b.*?>", "", answer["translatedText"][0])
    assert plain == f"<p>{best}</p><ul><li>{whole}</ul>"
    assert re.search(r"<b class='q'>[^<]+</b>", answer["translatedText"][0])
    long = f"<i>{LINES[0]}</i> {'ka ' * 100}"  # more than the model can look at
    _, answer = server.ask("/translate", {"q": long, **PAIR, "format": "html"})
    assert answer["translatedText"].startswith(f"<i>{best}</i> ")


def test_the_forms_of_browser_add_ons(server: Server, model: Loaded) -> None:
    """Guards against a form that an add-on cannot read."""
    texts = [model.translator.translate(line) for line in LINES[:2]]
    kiss = server.ask("/translate_list", {"texts": LINES[:2], "from": "auto", "to": "yy"})
    assert kiss == (200, {"translations": [{"text": text, "src": "xx"} for text in texts]})
    immersive = {"text_list": LINES[:2], "source_lang": "XX", "target_lang": "yy"}
    expected = [{"text": text, "detected_source_lang": "xx"} for text in texts]
    assert server.ask("/translate_list", immersive) == (200, {"translations": expected})


def test_under_load_every_answer_is_as_alone(server: Server, model: Loaded) -> None:
    """Guards against answers for another client."""
    lines = [src for src, _ in sentences(60, seed=6)]
    alone = [model.translator.translate(line) for line in lines]

    def ask(line: str) -> str:
        return str(server.ask("/translate", {"q": line, **PAIR})[1]["translatedText"])

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(ask, lines)) == alone


def test_a_file_is_translated_and_downloaded(server: Server, model: Loaded) -> None:
    """Guards against names of files that reach the disk or the answer."""
    for name in ("a.txt", "../../etc/passwd.txt", "/etc/cron.d/x.TXT", "a\\..\\b.txt"):
        content = f"\ufeff{LINES[0]}\r\n\r\n{LINES[1]}".encode()
        status, answer, _ = server.send_file(name, content, PAIR)
        assert status == 200, answer
        status, translated, headers = server.send(answer.decode().split(str(server.port))[1].rstrip('"}'))
        texts = [model.translator.translate(line) for line in (LINES[0], "", LINES[1])]
        assert translated.decode() == "\ufeff" + "\r\n".join(texts)  # mark and line ends as in the file
        assert headers["content-disposition"] == 'attachment; filename="translated.yy.txt"'
    for path in ("/download_file/../../etc/passwd", "/download_file/%2e%2e%2fetc%2fpasswd", "/download_file/x.txt"):
        assert server.send(path)[0] == 404
    for name, content in (("a.exe", b"x"), ("a.txt", b"\xff\xfe"), ("a.txt", b"%PDF-1.4\n"), ("", b"x")):
        status, answer, _ = server.send_file(name, content, PAIR)
        assert (status, b"error" in answer) == (400, True), name


def test_a_table_and_records_come_back_with_translations(server: Server, limited: Server, model: Loaded) -> None:
    """Guards against documents in another place than the answer's, a wrong model, and limits that they do not have."""
    first, second = (model.translator.translate(line) for line in LINES[:2])
    table = f"id,xx,yy\r\n1,{LINES[0]},\r\n2,,\r\n3,kept,old\r\n4,{LINES[1]},\r\n"
    expected = f"id,xx,yy\r\n1,{LINES[0]},{first}\r\n2,,\r\n3,kept,old\r\n4,{LINES[1]},{second}\r\n"
    tmx = f"<tmx><body><tu><tuv xml:lang='xx-A'><seg>{LINES[0]}</seg></tuv></tu></body></tmx>"
    variant = f'<tuv xml:lang="yy"><seg>{first}</seg></tuv></tu>'
    for name, content, answer in (
        ("a.csv", table, expected),
        ("../../a.b.CSV.gz", table, expected),
        ("a.tsv", LINES[0], f"{LINES[0]}\t{first}\n"),
        ("a.jsonl", f'{{"text": "{LINES[0]}\\n{LINES[1]}"}}', f'"text": "{LINES[0]}\\n{LINES[1]}", "translation": '),
        ("a.tmx", tmx, tmx.replace("</tu>", variant)),
        ("a.tsv", "xx\n", "xx\tyy\n"),
        ("a.csv", "", ""),
        ("a.txt.gz", f"{LINES[0]}\n", f"{first}\n"),
        ("a.txt", "", ""),
    ):
        packed = gzip.compress(content.encode()) if name.endswith("gz") else content.encode()
        for source in ("xx", "XX", "auto"):
            status, body, _ = server.send_file(name, packed, {"source": source, "target": "yy"})
            assert status == 200, body
            url = json.loads(body)["translatedFileUrl"]
            _, translated, headers = server.send(url.removeprefix(server.url))
            ending = name.lower().removesuffix(".gz").rpartition(".")[2]
            assert headers["content-disposition"] == f'attachment; filename="translated.yy.{ending}"'
            if ending == "jsonl":
                assert json.loads(translated)["translation"] == f"{first}\n{second}"
            assert answer in translated.decode() if answer else not translated
    formats = server.ask("/frontend/settings")[1]["supportedFilesFormat"]
    assert formats == [".txt", ".tsv", ".csv", ".jsonl", ".tmx", ".html", ".htm", ".gz"]
    for name, content, message in (
        ("a.csv", "a,b\n", "the file:1: no column is named 'xx', 'source', 'src' or 'text'"),
        ("a.csv", "xx\n" + "ka\n" * 21, "the file has more than 20 texts to translate"),
        ("a.csv", 'xx\n"' + "ka\n" * 21 + '"\n', "22 lines in a request; the limit is 20"),
        ("a.csv", "xx\n" + "k" * 301, "the request has 301 characters"),
        ("a.csv", gzip.compress(b"xx\n" + b"\n" * 100_000), "the file has more than 69,136 bytes (unpacked)"),
        ("a.tmx", "<!DOCTYPE tmx [<!ENTITY a 'x'>]><tmx/>", "the file:1: declares the entity a"),
        ("a.png.gz", "", "file format not supported; supported: .txt, .tsv, .csv, .jsonl, .tmx, .html, .htm, and"),
    ):
        raw = content if isinstance(content, bytes) else content.encode()
        status, body, _ = limited.send_file(name, raw, PAIR)
        assert status == 400
        assert json.loads(body)["error"].startswith(message)
    for wrong in ({"source": "zz"}, {"target": "zz"}, {"source": ""}):
        status, body, _ = limited.send_file("a.csv", b"zz,a\n", {**PAIR, **wrong})
        assert status == 400
        assert "column" not in body.decode()


def test_a_large_document_holds_up_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a file whose reading stops the server meanwhile."""
    reading, answered = Event(), Event()
    read = documents.read_document

    def slow(*arguments: Any) -> Any:
        reading.set()
        assert answered.wait(20)
        return read(*arguments)

    monkeypatch.setattr(documents, "read_document", slow)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(server.send_file, "a.tsv", b"xx\nka\n", PAIR)
        assert reading.wait(20)
        assert server.ask("/translate", {"q": "ka", **PAIR})[0] == 200
        answered.set()
        assert sent.result()[0] == 200


def test_a_text_that_repeats_is_translated_once(limited: Server, model: Loaded) -> None:
    """Guards against a table or a page of equal cells that holds the engine as long as one of different ones."""

    def searched() -> float:
        (number,) = re.findall(rb"^seq2seq_batch_lines_sum (\S+)", limited.send("/metrics")[1], re.MULTILINE)
        return float(number)

    before = searched()
    status, answer = limited.ask("/translate", {"q": ["ka", "mi", "ka", "ka\nmi"], **PAIR})
    ka, mi = model.translator.translate(["ka", "mi"])
    assert (status, answer["translatedText"]) == (200, [ka, mi, ka, f"{ka}\n{mi}"])
    assert searched() - before == 2


def test_what_a_client_asks_first(server: Server) -> None:
    """Guards against clients that cannot start, and a page that loads something from elsewhere."""
    language = {"code": "xx", "name": "xx", "targets": ["yy"]}
    assert server.ask("/languages") == (200, [language, {"code": "yy", "name": "yy", "targets": ["xx"]}])
    assert server.ask("/health") == (200, {"status": "ok"})
    assert server.ask("/frontend/settings")[1]["keyRequired"] is False
    assert b"seq2seq_batch_lines_count" in server.send("/metrics")[1]
    status, page, headers = server.send("/")
    assert (status, page[:15]) == (200, b"<!DOCTYPE html>")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert not any(word in page for word in (b"http://", b"https://", b"src=", b"@import", b"innerHTML"))
    assert "access-control-allow-origin" not in server.send("/languages", Origin="https://evil.example")[2]


def test_what_the_model_looked_at(server: Server, model: Loaded) -> None:
    """Guards against pieces and weights that do not go together."""
    text = model.translator.translate(LINES[0])
    status, seen = server.ask("/explain", {"q": LINES[0], "translation": text, **PAIR})
    assert status == 200
    assert len(seen["target"]) == len(seen["probabilities"]) == len(seen["alignment"])
    assert all(len(row) == len(seen["source"]) and abs(sum(row) - 1) < 0.01 for row in seen["alignment"])
    assert server.ask("/explain", {"q": LINES[0], "translation": "", **PAIR})[0] == 400
    assert server.ask("/explain", {"q": "ka " * 100, "translation": text, **PAIR})[0] == 400


def test_clients_from_the_registry(server: Server, model: Loaded, tmp_path: Path) -> None:
    """Guards against what a hand-written test takes for the API."""
    libretranslatepy = pytest.importorskip("libretranslatepy")
    libretranslate_aio = pytest.importorskip("libretranslate_aio")
    text = model.translator.translate(LINES[0])
    client = libretranslatepy.LibreTranslateAPI(server.url)
    assert client.translate(LINES[0], "xx", "yy") == text
    assert client.languages()[0]["code"] == "xx"
    with libretranslate_aio.LibreTranslate(server.url) as other:
        assert other.translate(LINES[0], "xx", "yy").translated_text == text
        assert len(other.translate(LINES, "xx", "yy", alternatives=1).translated_text) == len(LINES)
        assert other.health()
        assert other.frontend_settings().language.target.code == "yy"
        (tmp_path / "a.txt").write_text(LINES[0], encoding="utf-8")
        file = other.translate_file(tmp_path / "a.txt", "xx", "yy")
        with urlopen(file.translated_file_url) as answer:
            assert answer.read().decode() == text
        (tmp_path / "a.csv").write_text(f"id,xx\n7,{LINES[0]}\n", encoding="utf-8")
        with urlopen(other.translate_file(tmp_path / "a.csv", "xx", "yy").translated_file_url) as answer:
            assert answer.read().decode() == f"id,xx,yy\n7,{LINES[0]},{text}\n"
        assert ".csv" in other.frontend_settings().supported_files_format
        (tmp_path / "a.csv").write_text("id,note\n", encoding="utf-8")
        with pytest.raises(libretranslate_aio.BadRequestError, match="the file:1: no column is named 'xx'"):
            other.translate_file(tmp_path / "a.csv", "xx", "yy")
        with pytest.raises(libretranslate_aio.BadRequestError, match="not supported"):
            other.translate("ka", "xx", "zz")
