"""Files through ``seq2seq translate``: one output line for each input line, for any content."""

import gzip
import os
import random
import select
import signal
import subprocess
from pathlib import Path
from threading import Thread

import pytest
import torch

from seq2seq.cli.main import main
from seq2seq.data.formats.tables import read_tsv
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.decode import windows
from seq2seq.decode.output import OutputFile
from seq2seq.decode.translator import Translator
from tests.toy import run_command, sentences, start_command, toy_model, write_lines

OPTIONS = ("--beam-size", "1", "--max-length-ratio", "0", "--max-length-offset", "4", "--device", "cpu")
BOM = b"\xef\xbb\xbf"
BLANK = [b"", b" ", b"   \t ", b"\r", b"\r\r", "\u3000".encode(), b"\xc2\xa0"]
NASTY = [
    b"\x00",
    b"ka\x00to",
    "ka\u2028to".encode(),
    "ka\u2029to\u0085mi".encode(),
    b"ka\rto\rmi",
    b"kato\r",
    BOM,
    BOM + b"kato",
    b"\xff\xfe",
    b"ka\xc3",
    b"\xed\xa0\x80 to",
    b"\xf8\x88\x80\x80\x80",
    b"ka" * 3000,
    "👩‍👩‍👧‍👦😀🏴󠁧󠁢󠁳󠁣󠁴󠁿".encode(),
    bytes(range(1, 10)) + bytes(range(11, 32)) + b"\x7f",
    b"\x0b\x0c\x1c\x1d\x1e",
    "שלום \u202e\u2066مرحبا\u2069".encode(),
    "\u2581ka\u2581\u2581to".encode(),
    b"<s> </s> <unk> <pad> <0x0A>",
    b"\x1f\x8b not gzip",
    b"e" + "\u0301".encode() * 50,
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return toy_model(tmp_path_factory.mktemp("files")) / "best"


def nasty_lines(count: int) -> list[bytes]:
    """Lines without LF: ordinary ones, every nasty and blank one, byte noise; the first with a byte order mark."""
    rng = random.Random(4)
    ordinary = [src.encode() for src, _ in sentences(50, seed=8)]
    lines = [BOM + b"kato miren", *NASTY, *BLANK]
    while len(lines) < count:
        kind = rng.random()
        if kind < 0.75:
            lines.append(rng.choice(ordinary))
        elif kind < 0.85:
            lines.append(rng.choice(BLANK))
        elif kind < 0.87:
            lines.append(rng.choice([line for line in NASTY if len(line) < 100]))
        else:
            noise = bytes(rng.randrange(256) for _ in range(rng.randrange(12)))
            lines.append(noise.replace(b"\n", b"") or b"ka")
    return lines


def output_lines(data: bytes) -> list[str]:
    """Lines by LF alone; every one ended."""
    assert data == b"" or data.endswith(b"\n")
    return data.decode("utf-8").split("\n")[:-1]


def test_ten_thousand_nasty_lines(model: Path, tmp_path: Path) -> None:
    """Contract 1: exactly as many lines out as in, blank where blank, each the translation of its own line; invalid
    bytes and cut lines are reported with their numbers."""
    lines = nasty_lines(10_000)
    data = b"\n".join(lines)  # the last line has no LF
    (tmp_path / "in").write_bytes(data)
    done = run_command("translate", model, "--input", tmp_path / "in", "--output", tmp_path / "out", *OPTIONS)
    assert done.returncode == 0, done.stderr.decode()
    outputs = output_lines((tmp_path / "out").read_bytes())
    assert len(outputs) == 10_000
    for number, (line, output) in enumerate(zip(lines, outputs, strict=True), start=1):
        assert "\r" not in output
        if not line.decode("utf-8", "replace").strip(" \r"):
            assert output == "", (number, line, output)
    translator = Translator.load(model, device="cpu")
    decode = translator.config.decode.model_copy(
        update={"beam_size": 1, "max_length_ratio": 0.0, "max_length_offset": 4}
    )
    sample = [*range(40), *random.Random(1).sample(range(40, 10_000), 60), 9_999]
    for i in sample:
        if len(lines[i]) < 1000:
            line = lines[i].removeprefix(BOM if i == 0 else b"").removesuffix(b"\r").decode("utf-8", "replace")
            assert outputs[i] == translator.translate([line], decode)[0], (i + 1, lines[i])
    message = done.stderr.decode()
    invalid = 1 + next(i for i, line in enumerate(lines) if line == b"\xff\xfe")
    assert f"in:{invalid}: not valid UTF-8 (byte 0xff)" in message
    assert "more lines have such problems" in message


def test_gzip_and_standard_streams_say_the_same(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain or gzip, file or pipe: the same lines; the last one needs no ending. The bar knows the lines of a file."""
    lines = nasty_lines(60)
    data = b"\n".join(lines)
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "in.gz").write_bytes(gzip.compress(data))
    for name in ("in", "in.gz"):
        arguments = [
            "translate",
            str(model),
            "--input",
            str(tmp_path / name),
            "--output",
            str(tmp_path / f"{name}.out"),
        ]
        assert main([*arguments, *OPTIONS]) == 0
        assert "60/60" in capsys.readouterr().err
    expected = (tmp_path / "in.out").read_bytes()
    assert len(output_lines(expected)) == 60
    assert (tmp_path / "in.gz.out").read_bytes() == expected
    for stdin in (data, gzip.compress(data)):
        done = run_command("translate", model, *OPTIONS, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout == expected


@pytest.mark.parametrize(
    ("data", "count"), [(b"", 0), (b"\n", 1), (b"\n\n", 2), (BOM, 0), (BOM + b"\n", 1), (b"ka", 1)]
)
def test_few_lines(data: bytes, count: int, model: Path, tmp_path: Path) -> None:
    """The line count of empty and nearly empty files; compressed, nothing is a gzip file, too."""
    (tmp_path / "in").write_bytes(data)
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out.gz")]
    assert main([*arguments, *OPTIONS]) == 0
    written = (tmp_path / "out.gz").read_bytes()
    assert written.startswith(b"\x1f\x8b")
    assert len(output_lines(gzip.decompress(written))) == count


def test_n_best_format(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Number, score and text between tabs, at most N lines for each, different and best first; a blank line has one.
    How many lines have fewer is reported, blank ones aside."""
    write_lines(tmp_path / "in", ["kato miren", "", "solvu"])
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--n-best", "3", "--beam-size", "4", "--device", "cpu"]) == 0
    rows = [line.split("\t", 2) for line in output_lines((tmp_path / "out").read_bytes())]
    assert [row[0] for row in rows] == ["1"] * 3 + ["2"] + ["3"] * 3
    for first in (0, 4):
        scores = [float(row[1]) for row in rows[first : first + 3]]
        assert scores == sorted(scores, reverse=True)
        assert len({row[2] for row in rows[first : first + 3]}) == 3
    assert rows[3][2] == ""
    assert "different translations" not in capsys.readouterr().err
    monkeypatch.setattr(Tokenizer, "decode_batch", lambda _, batch: ["fe"] * len(batch))
    assert main([*arguments, "--n-best", "3", "--beam-size", "4", "--device", "cpu"]) == 0
    assert len(output_lines((tmp_path / "out").read_bytes())) == 3
    assert "2 lines have fewer than 3 different translations" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["out", "out.gz"])
def test_a_table_is_a_dataset(model: Path, tmp_path: Path, name: str) -> None:
    """Guards against pairs that a tab, a line break or a byte order mark in a text takes apart, shifts or loses: the
    reader of TSV finds a pair for every line, with its place, in either order of the columns."""
    lines = [BOM + BOM + b"\tkato", b"ka\tto\r\rmi", *nasty_lines(70)[1:]]
    (tmp_path / "in").write_bytes(b"\n".join(lines))
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), *OPTIONS]
    assert main([*arguments, "--output", str(tmp_path / "plain")]) == 0
    assert main([*arguments, "--output", str(tmp_path / name), "--format", "tsv"]) == 0
    texts = [line.replace("\t", " ") for line in output_lines((tmp_path / "plain").read_bytes())]
    sources = [line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines]
    sources = [source.replace("\t", " ").replace("\r", " ") for source in sources]
    sources[0] = " kato"  # without the mark of the input, and that of the table, which readers leave out
    units = list(read_tsv(tmp_path / name, src=0, tgt=1, score=2))
    assert [(unit.src, unit.tgt, unit.number) for unit in units] == list(zip(sources, texts, range(1, 72), strict=True))
    scores = [unit.score for unit in units]
    assert all(score is not None and score < 0 for score, text in zip(scores, texts, strict=True) if text)
    back = list(read_tsv(tmp_path / name, src=1, tgt=0))
    assert [(unit.tgt, unit.src) for unit in back] == [(unit.src, unit.tgt) for unit in units]


def test_a_table_has_a_row_for_each_translation(model: Path, tmp_path: Path) -> None:
    """Guards against n-best rows without their source, and against scores that are not those of the ranks."""
    write_lines(tmp_path / "in", ["kato miren", "", "solvu"])
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), "--n-best", "3", "--device", "cpu"]
    assert main([*arguments, "--beam-size", "4", "--output", str(tmp_path / "ranked")]) == 0
    assert main([*arguments, "--beam-size", "4", "--output", str(tmp_path / "table"), "--format", "tsv"]) == 0
    ranked, table = ((tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("ranked", "table"))
    names = {"1": "kato miren", "2": "", "3": "solvu"}
    expected = [(names[number], text, score) for number, score, text in (row.split("\t") for row in ranked)]
    assert [tuple(row.split("\t")) for row in table] == expected
    assert len(table) == 7


@pytest.mark.parametrize("resume", [(), ("--resume",)])
@pytest.mark.parametrize("name", ["text", "../{folder}/text", "link", "hard"])
def test_the_output_must_not_be_the_input(
    name: str, resume: tuple[str, ...], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards against a source text that its own translation replaces, under whatever name."""
    write_lines(tmp_path / "text", ["kato miren", "solvu"])
    (tmp_path / "link").symlink_to("text")
    (tmp_path / "hard").hardlink_to(tmp_path / "text")
    before = (tmp_path / "text").read_bytes()
    output = str(tmp_path / name.format(folder=tmp_path.name))
    arguments = ["translate", str(model), "--input", str(tmp_path / "text"), "--output", output]
    assert main([*arguments, *OPTIONS, *resume]) == 2
    assert "--output is the same file as --input" in capsys.readouterr().err
    assert (tmp_path / "text").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["hard", "link", "text"]


def test_appending_to_the_input_is_refused(model: Path, tmp_path: Path) -> None:
    """Guards against ``< a >> a``, which reads its own translations without end."""
    write_lines(tmp_path / "text", ["kato miren"])
    with (tmp_path / "text").open("rb") as stdin, (tmp_path / "text").open("ab") as stdout:
        done = run_command("translate", model, *OPTIONS, stdin=stdin, stdout=stdout)
    assert done.returncode == 2
    assert (tmp_path / "text").read_bytes() == b"kato miren\n"


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_a_link_is_written_through(resume: tuple[str, ...], model: Path, tmp_path: Path) -> None:
    """Guards against a link that a file replaces, while the place it leads to stays empty or as it was."""
    write_lines(tmp_path / "in", ["", " "])
    (tmp_path / "place").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links/first").symlink_to("second")
    (tmp_path / "links/second").symlink_to("../place/out")  # there is no such file yet
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "links/first")]
    for _ in range(2):
        assert main([*arguments, *OPTIONS, *resume]) == 0
        assert (tmp_path / "place/out").read_bytes() == b"\n\n"
        assert (tmp_path / "links/first").is_symlink()
    assert sorted(os.listdir(tmp_path / "links")) == ["first", "second"]


def test_a_link_to_itself_is_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a traceback, or a file in the link's place."""
    write_lines(tmp_path / "in", [""])
    (tmp_path / "loop").symlink_to("loop")
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "loop")]
    assert main([*arguments, *OPTIONS]) == 2
    assert "points back to itself" in capsys.readouterr().err
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["/proc/self/fd/1", "/dev/fd/1", "link"])
def test_an_open_file_is_written_on(name: str, model: Path, tmp_path: Path) -> None:
    """Guards against a link such as /dev/stdout that a file replaces, and a file opened with ``>>`` that is emptied."""
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    (tmp_path / "out").write_bytes(b"earlier\n")
    arguments = ("translate", model, *OPTIONS, "--output", name)
    with (tmp_path / "out").open("ab") as stdout:
        done = run_command(*arguments, stdin=b"\n\n", stdout=stdout, cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"earlier\n\n\n"
    assert (tmp_path / "link").is_symlink()
    assert run_command("translate", model, *OPTIONS, "--output", "/proc/self/fd/1", stdin=b"\n").stdout == b"\n"


def test_lines_are_answered_as_they_come(model: Path, tmp_path: Path) -> None:
    """Guards against a program that waits for ever for the translation of its line: the answer comes while the input
    stays open, also for a blank first line, and when half of the next line is there already."""
    os.mkfifo(tmp_path / "pipe")
    for source in ("-", str(tmp_path / "pipe")):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = start_command("translate", model, *OPTIONS, "--input", source, **pipes)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with process, process.stdin if source == "-" else (tmp_path / "pipe").open("wb") as writer:
            for sent, count in ((b"\n", 1), (b"kato\nmiren\nsol", 2), (b"vu\n", 1)):
                writer.write(sent)
                writer.flush()
                for _ in range(count):
                    assert select.select([process.stdout], [], [], 300)[0], f"no answer to {sent!r}"
                    assert process.stdout.readline().endswith(b"\n")
            writer.close()
            assert process.stdout.read() == b""
            assert process.wait(300) == 0, process.stderr.read()


def test_a_fast_pipe_is_read_in_large_windows(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against small batches, which are slow, where many lines wait; samples are those of a file."""
    data = b"\n".join(src.encode() for src, _ in sentences(3000, seed=8))
    sizes: list[int] = []
    translate = Translator._translate_window

    def watched(translator: Translator, lines: list[str], *rest: object) -> object:
        sizes.append(len(lines))
        return translate(translator, lines, *rest)

    monkeypatch.setattr(Translator, "_translate_window", watched)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "in").write_bytes(data)
    Thread(target=(tmp_path / "pipe").write_bytes, args=(data,)).start()
    for name in ("pipe", "in"):
        arguments = [
            "translate",
            str(model),
            "--input",
            str(tmp_path / name),
            "--output",
            str(tmp_path / f"{name}.out"),
        ]
        assert main([*arguments, *OPTIONS, "--sample"]) == 0
    assert (tmp_path / "pipe.out").read_bytes() == (tmp_path / "in.out").read_bytes()
    assert sizes.pop() == sum(sizes) == 3000
    assert len(sizes) < 20


def test_an_output_that_is_no_file_is_written_to(model: Path, tmp_path: Path) -> None:
    """Guards against a named pipe, or /dev/null, that is replaced by a file."""
    write_lines(tmp_path / "in", ["", " "])
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "pipe")]
    assert main([*arguments, *OPTIONS]) == 0
    assert os.read(reader, 100) == b"\n\n"
    os.close(reader)
    assert sorted(os.listdir(tmp_path)) == ["in", "pipe"]


SAMPLING = ("--sample", "--n-best", "2", "--max-length-ratio", "1", "--device", "cpu")


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows in twelve lines."""
    monkeypatch.setattr(windows, "WINDOW_LINES", 8)


def resumable(model: Path, folder: Path, name: str, *options: str) -> list[str]:
    """A command that translates twelve lines into ``folder / name``; its input is made where it is missing."""
    folder.mkdir(exist_ok=True)
    if not (folder / "in").exists():
        lines = [b"kato", b"", b"ka\xff", b"ren " * 40, *(src.encode() for src, _ in sentences(8, seed=8))]
        (folder / "in").write_bytes(b"\n".join(lines))
    arguments = ["translate", str(model), "--input", str(folder / "in"), "--output", str(folder / name)]
    return [*arguments, *SAMPLING, *options]


def killed_at(call: int, arguments: list[str]) -> bool:
    """Run the command in a process that ends, as by kill -9, at this call of fsync or rename; whether it came to it."""
    pid = os.fork()
    if pid == 0:
        calls = iter(range(1, call))

        def mortal(function):
            return lambda *given: function(*given) if next(calls, None) else os._exit(9)

        os.fsync, os.replace = mortal(os.fsync), mortal(os.replace)
        os._exit(main(arguments))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.usefixtures("small_windows")
def test_killed_at_any_step_and_resumed(model: Path, tmp_path: Path) -> None:
    """Guards against lines lost, repeated, or sampled anew after a death: wherever it comes, the same command ends
    with the bytes of an undisturbed run, until then nothing looks finished, and no litter is left."""
    assert main(resumable(model, tmp_path / "whole", "out.gz")) == 0
    assert main(resumable(model, tmp_path / "whole", "out")) == 0
    whole = (tmp_path / "whole/out.gz").read_bytes()
    assert gzip.decompress(whole) == (tmp_path / "whole/out").read_bytes()
    assert len(output_lines(gzip.decompress(whole))) == 24
    call = 1
    while killed_at(call, arguments := resumable(model, folder := tmp_path / f"{call}", "out.gz", "--resume")):
        if (folder / "out.gz").exists():  # the last step: all is done but the folder's entry
            assert (folder / "out.gz").read_bytes() == whole
        else:
            with (folder / ".out.gz.partial").open("ab") as partial:
                partial.write(b"half a window")
        assert main(arguments) == 0
        assert (folder / "out.gz").read_bytes() == whole, call
        assert sorted(os.listdir(folder)) == [".out.gz.partial.json", "in", "out.gz"]
        call += 1
    assert call == 2 * 4 + 3 + 1  # a record takes four steps, the rename three


@pytest.mark.usefixtures("small_windows")
def test_a_table_is_resumed(model: Path, tmp_path: Path) -> None:
    """Guards against translations beside the sources of other lines after a death."""
    assert main(resumable(model, tmp_path / "whole", "out", "--format", "tsv")) == 0
    arguments = resumable(model, tmp_path / "parts", "out", "--format", "tsv", "--resume")
    assert killed_at(7, arguments)  # as below
    assert main(arguments) == 0
    assert (tmp_path / "parts/out").read_bytes() == (tmp_path / "whole/out").read_bytes()


@pytest.mark.usefixtures("small_windows")
def test_what_does_not_fit_is_refused_and_kept(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against an output made of two translations: of other options, lines, bytes, or by two processes."""
    arguments = resumable(model, tmp_path / "a", "out", "--resume")
    assert killed_at(7, arguments)  # before the second window has its record; that of the first stands

    def refused(expected: str, *options: str) -> None:
        before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
        capsys.readouterr()
        assert main([*arguments, *options]) == 2
        message = capsys.readouterr().err
        assert expected in message
        assert message.count("\n") == 1
        assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before

    def changed(name: str, old: bytes, new: bytes, expected: str) -> None:
        data = (tmp_path / "a" / name).read_bytes()
        assert old in data
        (tmp_path / "a" / name).write_bytes(data.replace(old, new, 1))
        refused(expected)
        (tmp_path / "a" / name).write_bytes(data)

    refused("decode.seed was 1, now it is 7", "--seed", "7")
    refused("format was text, now it is tsv", "--format", "tsv")
    refused("the first 8 lines of", "--invalid-bytes", "blank")
    changed("in", b"kato", b"kata", "the first 8 lines of")
    changed(".out.partial", b"\t", b" ", "damaged")
    changed(".out.partial.json", b"{", b"", "damaged")
    with OutputFile(tmp_path / "a/out"):
        refused("another process is writing it")
    assert main([*arguments[:-1], "--seed", "7"]) == 0  # without --resume
    assert "an unfinished translation was deleted" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "a")) == ["in", "out"]


@pytest.mark.usefixtures("small_windows")
def test_a_complete_output_is_left_alone(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again finds nothing to do; when a line was added to the input, it translates anew."""
    arguments = resumable(model, tmp_path, "out", "--resume")
    assert main(arguments) == 0
    before = (tmp_path / "out").stat()
    assert main(arguments) == 0
    assert "nothing is left to do" in capsys.readouterr().err
    after = (tmp_path / "out").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(os.listdir(tmp_path)) == [".out.partial.json", "in", "out"]
    with (tmp_path / "in").open("ab") as file:
        file.write(b"\nsolvu")
    assert main(arguments) == 0
    assert len(output_lines((tmp_path / "out").read_bytes())) == 26


@pytest.mark.usefixtures("small_windows")
def test_an_end_by_signal(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM cleans up as Ctrl-C does; with --resume it keeps finished lines and says how to continue."""
    translate = Translator._translate_window

    def terminated(translator: Translator, lines: list[str], first: int, *rest: object) -> object:
        if first == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return translate(translator, lines, first, *rest)

    monkeypatch.setattr(Translator, "_translate_window", terminated)
    arguments = resumable(model, tmp_path, "out")
    assert main(arguments) == 143
    assert os.listdir(tmp_path) == ["in"]
    assert main([*arguments, "--resume"]) == 143
    assert "the first 8 lines are saved; run the same command" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == [".out.partial", ".out.partial.json", "in"]
    monkeypatch.setattr(Translator, "_translate_window", translate)
    assert main([*arguments, "--resume"]) == 0
    assert "in:3: not valid UTF-8" not in capsys.readouterr().err  # the earlier process reported it


def test_invalid_bytes(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that is not UTF-8 is reported by number, and read, left blank or refused; other lines are not affected."""
    (tmp_path / "in").write_bytes(b"kato\nka\xffto\nkato\n")
    arguments = ["translate", str(model), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    outputs = {}
    for choice in ("replace", "blank"):
        assert main([*arguments, *OPTIONS, "--invalid-bytes", choice]) == 0
        assert "in:2: not valid UTF-8 (byte 0xff)" in capsys.readouterr().err
        outputs[choice] = output_lines((tmp_path / "out").read_bytes())
        assert outputs[choice][0] == outputs[choice][2] != ""
    assert outputs["blank"] == [outputs["replace"][0], "", outputs["replace"][0]] != outputs["replace"]
    (tmp_path / "out").unlink()
    assert main([*arguments, *OPTIONS, "--invalid-bytes", "fail"]) == 2
    assert "in:2: not valid UTF-8 (byte 0xff); convert the file" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in"]


def test_a_text_in_the_command(model: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Guards against a text taken for a path or a model, a line break that shifts lines, and a bar on the screen; a
    model that is not there is still reported as one."""
    arguments = ["translate", str(model), *OPTIONS]
    assert main([*arguments, "--text", "kato", "--text", "miren\r\n\nsolvu", "--text", "", "--text", "ka\udcffto"]) == 0
    captured = capfdbinary.readouterr()
    piped = run_command(*arguments, stdin=b"kato\nmiren\n\nsolvu\n\nka\xffto\n")
    assert captured.out == piped.stdout
    assert len(output_lines(captured.out)) == 6
    assert b"--text:6: not valid UTF-8" in captured.err
    assert b"translating" not in captured.err
    for wrong, message in (
        (["translate", str(model), "--text", "kato", "--input", "in"], b"--text and --input: give one of them"),
        (["translate", "modle", "--text", "kato"], b"modle: no such folder"),
        (["translate", str(model), "kato miren"], b"kato miren: no such folder"),
    ):
        assert main(wrong) == 2
        assert message in capfdbinary.readouterr().err


def test_the_bar_moves_with_each_batch(model: Path) -> None:
    """Guards against a bar that stands still for a window of 4,096 lines: each batch is reported when it is found, each
    line once, when all its parts are there; blank ones at once."""
    translator = Translator.load(model, device="cpu")
    long = " ".join(["kato miren,"] * 30)
    lines = ["kato", "", "ren", long, " ", "solvu pa", "lin lin lin lin"]
    decode = translator.config.decode.model_copy(update={"batch_tokens": 20})
    counts: list[int] = []
    (window,) = translator.translate_windows(lines, decode, on_lines=counts.append)
    assert len(window) == sum(counts) == len(lines)
    assert counts[0] == 2
    assert len(counts) > 4
    assert max(counts[1:]) <= 2


def test_an_output_that_is_made_again_has_its_own_size(tmp_path: Path) -> None:
    """Guards against the size of the complete output before it in the record: resumed, the file would have NULs."""
    for run, data in (("old", b"a long line\n"), ("new", b"short\n")):
        with OutputFile(tmp_path / "out") as output:
            assert (output.recall() is None) == (run == "old")
            output.clear()
            output.write(data)
            output.keep({"run": run}, 1, 0, "")
            record = output.recall()
            assert record is not None
            assert (record.size, output.size, output.complete) == (len(data), len(data), False)
            output.finish()
