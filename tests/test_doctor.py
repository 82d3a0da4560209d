"""Promise: `doctor` names what is wrong in a config's text by file and line, all at once, and touches no run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seq2seq.cli.main import main
from seq2seq.config import Config
from seq2seq.data.formats.lines import printable
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.doctor import machine
from seq2seq.doctor.report import LIMITS, Section, Verdict, judged
from seq2seq.doctor.run import examine, inspect
from seq2seq.errors import OutOfMemoryError
from seq2seq.train.distributed import Processes
from seq2seq.train.dry_run import DryRun
from tests.toy import environment, sentences, toy_config, train, write_config, write_lines, write_text_files


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with toy text, from beside which commands run."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    return write_text_files(tmp_path / "text")


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def change(path: Path, lines: dict[int, bytes]) -> None:
    """Replace lines, counted from 1."""
    old = path.read_bytes().split(b"\n")
    for number, line in lines.items():
        old[number - 1] = line
    path.write_bytes(b"\n".join(old))


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def report_until(last: str, text: Path, *overrides: str) -> str:
    """The report up to a section, and with it; without the dry run, which takes long."""
    config, shown = toy_config(text, text.parent / "run", *overrides), ""
    for section in examine(config, inspect(config)):
        shown += f"{section} "
        if section.title == last:
            break
    return " ".join(shown.split())


def report(text: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[int, str]:
    """Exit code and report of the command, its lines joined where they were wrapped."""
    config = write_config(text, text.parent / "run")
    code = main(["doctor", str(config), *overrides])
    return code, " ".join(capsys.readouterr().out.split())


def test_every_unreadable_file_is_reported_at_once(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a report that ends where reading for training would, and against success where it cannot train."""
    change(text / "train.xx", {7: b"kato \xff", 20: b"kato \xfe"})
    assert "not tried" in report(text, capsys)[1]
    write_lines(text / "valid.yy", ["fe", "gu"])
    (text / "test.yy").write_text("fe\ngu\n", encoding="utf-16")
    code, shown = report(text, capsys, f"data.test.src={text}/none.xx", f"data.test.tgt={text}/test.yy")
    assert code == 2
    assert "WRONG invalid UTF-8: 2 (1.67 %) of the lines" in shown
    assert "text/train.xx:7: kato \\xff text/train.xx:20: kato \\xfe" in shown
    assert "WRONG text/valid.xx has 6 lines but text/valid.yy has 2" in shown
    assert "none.xx: no such file" in shown
    assert "not tried correct the text first" in shown
    assert "text/test.yy: is UTF-16" in shown
    assert "4 wrong" in shown
    assert not (text.parent / "run").exists()


def test_doubtful_lines_are_named(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a doubtful line that is not reported, or is reported with a wrong line number."""
    monkeypatch.setattr(machine, "judge_machine", lambda config, data, processes: Section("", []))  # it takes seconds
    src, tgt = lines_of(text / "train.xx"), lines_of(text / "train.yy")
    test = lines_of(text / "test.xx"), lines_of(text / "test.yy")
    other = "Привет, дорогой мир"
    change(
        text / "train.xx",
        {3: b"", 6: b"", 9: tgt[8], 11: test[0][2], 15: other.encode(), 16: b"ka to mi ren " * 9, 30: src[4]},
    )
    change(
        text / "train.yy",
        {3: b" ", 6: b" ", 4: b"do\x07r", 11: test[1][2].upper() + b"!", 30: tgt[4], 40: b"&lt;fe&gt;"},
    )
    tests = f"data.test.src={text}/test.xx", f"data.test.tgt={text}/test.yy"
    code, shown = report(text, capsys, *tests, "tokenizer.vocab_size=360")
    for line in (
        "doubtful control characters or line separators: 1 (0.83 %) of the lines",
        "text/train.yy:4: do\\x07r",
        "doubtful blank lines: 4 (3.33 %) of the lines",
        "text/train.xx:3: (blank) text/train.xx:6: (blank) text/train.yy:6: (blank)",
        "doubtful HTML: 1 (0.83 %) of the lines",
        "text/train.yy:40: &lt;fe&gt;",
        "doubtful target equal to source: 1 (1.67 %) of the pairs",
        f"text/train.xx:9: {tgt[8].decode()}",
        "text/train.xx:30: " + f"{src[4].decode()} | {tgt[4].decode()} (repeats text/train.xx:5)",
        f"text/train.xx:15: {other} | {tgt[14].decode()} (cyrillic | latin)",
        "WRONG pairs of train: 1 (20 %) of the pairs, 0 of them exactly",
        "(is text/train.xx:11)",
        "doubtful pairs above data.max_length (24 tokens): 1 (1.67 %)",
    ):
        assert line in shown, line
    assert "(repeats text/train.xx:3)" not in shown
    assert re.search(r"train.xx:16: (ka to mi ren )+[^(]*… \(\d+ and \d+ tokens\)", shown)
    assert code == 2


def test_what_cleaning_leaves_out_is_no_worry(text: Path) -> None:
    """Guards against a text that is called wrong for pairs that training leaves out, and pairs that vanish unseen."""
    change(text / "train.yy", {number: lines_of(text / "train.xx")[number - 1] for number in range(1, 10)})
    change(text / "valid.yy", {1: lines_of(text / "valid.xx")[0]})

    assert "WRONG target equal to source: 9 (15 %)" in report_until("Text of train: 60 pairs", text)
    report = report_until("Tokens", text, "data.clean.identical=true")
    assert "ok target equal to source: 9 (15 %) of the pairs; data.clean.identical is on" in report
    assert "WRONG target equal to source: 1 (17 %)" in report  # of the validation text, which is not cleaned
    assert "Cleaning ok train: 51 of 60 pairs are clean; left out: 9 identical examples: " in report
    source = lines_of(text / "train.xx")[0].decode()
    assert f"text/train.xx:1: {source} | {source} (identical)" in report
    change(text / "train.xx", {1: b"ka to mi ren " * 30})
    change(text / "train.yy", {1: b"ka to mi ren " * 30})
    assert "above data.max_length (24 tokens): 0 (0 %)" in report_until("Tokens", text, "data.clean.identical=true")
    assert "pairs above data.max_length (24 tokens): 0 (0 %)" in report


def test_a_run_folder_that_train_would_refuse_is_wrong(text: Path) -> None:
    """Guards against "0 wrong" for a config that train refuses at once."""
    train(toy_config(text, text.parent / "run", "train.max_steps=2"))
    report = report_until("Tokens and settings", text, "train.max_steps=2", "optim.lr=0.5")
    assert "Tokens and settings WRONG" in report
    assert "run: holds a run with other settings (optim.lr: " in report
    shutil.rmtree(text.parent / "run/checkpoints")
    assert "but no checkpoint to continue from" in report_until("Tokens and settings", text, "train.max_steps=2")


def test_scripts_reveal_swapped_sides(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against swapped sides that pass, and against copies and swapped sides counted again as foreign."""
    src = [f"word number {i}" for i in range(30)]
    tgt = [f"слово номер {i}" for i in range(30)]
    src[6], tgt[6] = tgt[6], src[6]
    tgt[8] = src[8]
    src[9] = "λέξη αριθμός"
    write_lines(text / "train.xx", src)
    write_lines(text / "train.yy", [*tgt, "one more, so that nothing is trained"])
    _, shown = report(text, capsys)
    assert "WRONG swapped sides: 1 (3.33 %) of the pairs" in shown
    assert "text/train.xx:7: слово номер 6 | word number 6" in shown
    assert "foreign script: 1 (3.33 %) of the pairs" in shown
    assert "text/train.xx:10: λέξη αριθμός | слово номер 9 (greek | cyrillic)" in shown


def test_text_of_another_toolkit_is_named(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against subwords that are cut again, and against a model of tokenised or lower-cased text, unseen."""
    write_lines(text / "train.xx", [f"The wom@@ an has {i} books" for i in range(200)])
    write_lines(text / "train.yy", [f"die frau hat {i} bücher ." for i in range(200)] + ["so that nothing is trained"])
    _, shown = report(text, capsys)
    assert "WRONG marks of a subword tokenizer (@@, ▁, ##): 200 (50 %) of the lines" in shown
    assert "text/train.xx:1: The wom@@ an has 0 books" in shown
    assert "doubtful tokenised text: 200 (50 %) of the lines" in shown
    assert "text/train.yy:1: die frau hat 0 bücher ." in shown
    assert "doubtful lower-cased text: 1 (50 %) of the files" in shown
    assert shown.count("text/train.yy:1: die frau hat 0 bücher .") == 2


def test_pieces_are_counted_by_side(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against pieces per word that count ends of sentences or lines left out, and against misread bytes."""
    monkeypatch.setattr(machine, "judge_machine", lambda config, data, processes: Section("", []))
    change(text / "train.xx", {5: b""})
    change(text / "train.yy", {8: "龘 fe".encode()})
    _, shown = report(text, capsys, "tokenizer.character_coverage=0.99", "tokenizer.joint=false", "data.max_length=200")
    pair = TokenizerPair.load(next((text / "cache").glob("tokenizer-*")))
    kept = [line.decode() for number, line in enumerate(lines_of(text / "train.yy"), start=1) if number != 5]
    pieces = pair.tgt.encode(kept)
    fertility = sum(map(len, pieces)) / sum(len(line.split()) for line in kept)
    assert f"target: {fertility:.2f} pieces per word" in shown
    spelled = sum(i in pair.tgt.byte_values() for ids in pieces for i in ids)
    assert f"target: characters spelled as bytes: {spelled:,} (" in shown
    assert re.search(r"mostly [^/]*龘", shown.split("target: characters spelled")[1])


def test_a_run_is_left_as_it_is(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a dry run that changes a run's files, and against alarms over a corpus that is fine."""
    long = [pair for pair in sentences(60, seed=7) if len(pair[0].split()) > 3]  # short ones are in train by chance
    write_lines(text / "valid.xx", [src for src, _ in long])
    write_lines(text / "valid.yy", [tgt for _, tgt in long])
    train(toy_config(text, text.parent / "run"))
    capsys.readouterr()
    before = files_of(text.parent / "run")
    code, shown = report(text, capsys)
    assert code == 0
    assert "0 wrong" in shown
    assert "none: invalid UTF-8, blank lines" in shown
    assert "run has a run with" in shown
    assert re.search(
        r"disk: up to .* heaviest training step on cpu: \d+ sentences.* memory: .* an epoch: \d+ steps", shown
    )
    assert files_of(text.parent / "run") == before


def test_a_running_run_is_not_disturbed(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards against a dry run beside a run in the same folder, and against blaming the config for it."""
    running = [sys.executable, "-c", _RUNNING, str(text.parent / "run")]
    with subprocess.Popen(running, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        _, shown = report(text, capsys)
        process.communicate()
    assert re.search(rf"not tried \S*run: process {process.pid} on \S+ works on it", shown)
    assert "heaviest training step" not in shown


_RUNNING = """
import sys
from itertools import takewhile
from pathlib import Path
from seq2seq.files import locked_run
with locked_run(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_memory_disk_and_failure_have_their_verdicts(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a run that is reported as ok, but fails because memory or disk space runs out."""

    def outcome(peak: int) -> str:
        found = DryRun(peak, 1000, 0.9, "1 sentence", 10, 1.0, 1.0, 0.1, 1.0)
        monkeypatch.setattr(machine, "dry_run", lambda config, processes: found)
        return report(text, capsys, "train.max_steps=30", "train.max_epochs=2")[1]

    monkeypatch.setattr(machine, "free_space", lambda path: 10**12)
    assert "ok memory: peak 0 MB" in outcome(899)
    assert "about 10 s; the whole run: at most 20 s" in outcome(899)
    assert "doubtful memory" in outcome(901)
    assert "WRONG memory" in outcome(1001)
    monkeypatch.setattr(machine, "free_space", lambda path: 1000)
    assert "WRONG disk: up to" in outcome(899)

    def fails(config: Config, processes: Processes) -> DryRun:
        raise OutOfMemoryError("out of memory at step 1")

    monkeypatch.setattr(machine, "dry_run", fails)
    code, shown = report(text, capsys)
    assert code == 2
    assert "WRONG out of memory at step 1" in shown


def test_spellings_that_look_alike(text: Path) -> None:
    """Guards against a target that mixes kinds of spaces or accents unseen, and alarm about French punctuation."""
    write(text / "valid.xx", "ka\u00a0to\nmi\nka\u200bto\ne\u0301\nmi\tto\nka\n".encode())
    write(text / "valid.yy", "ha\u00a0!\nf\u202f? 10\u00a0000\ne\u0301\nb\u00adc\nb\u3000c\nb\n".encode())
    kinds = ("white space of other kinds", "soft hyphens", "characters in decomposed Unicode")
    shown = report_until("Spelling of characters", text)
    for kind, lines in zip(kinds, ("2 (33 %)", "1 (17 %)", "1 (17 %)"), strict=True):
        assert re.search(rf"ok valid, source: {kind}[^:]*: {re.escape(lines)}", shown), shown
        assert re.search(rf"doubtful valid, target: {kind}[^:]*: 1 \(17 %\)", shown), shown
    assert "valid.xx:3: ka\\u200bto" in shown
    assert "train, source: white" not in shown
    shown = report_until("Spelling of characters", text, "tokenizer.normalise_source=false")
    assert "doubtful valid, source: white space" in shown


def test_limits_judge_shares() -> None:
    """Guards against a finding that is wrong at a share where the table says doubtful, and advice where all is well."""
    few, some, many = (judged("identical", "x: {count}", number, 1000, ["a", "b"]) for number in (4, 5, 50))
    assert few == Verdict("ok", "x: 4 (0.40 %)", "", ["a"])
    assert some == Verdict("doubtful", "x: 5 (0.50 %)", LIMITS["identical"].advice, ["a", "b"])
    assert many.mark == "WRONG"
    assert judged("invalid", "{count}", 0, 0).mark == "ok"
    assert judged("invalid", "{count}", 1, 10**9).mark == "WRONG"


def test_examples_can_be_shown_on_any_terminal() -> None:
    """Guards against an example that rings the bell, breaks the line or fills the screen."""
    assert printable("a\x07bc", 20) == "a\\x07bc"
    assert printable("你好世界", 4) == "你好世界"
    assert printable("x" * 10**6, 10) == "x" * 9 + "…"


def test_settings_and_what_to_expect_are_shown(text: Path) -> None:
    """Guards against a run that cannot give a usable model, and whose owner learns it after hours."""
    shown = report_until("Settings", text, "train.max_steps=auto", "train.max_minutes=0.1", "optim.lr=auto")
    assert "Settings ok train.max_steps" in shown
    assert "ok optim.lr 0.003 for adamw and models that are 16 wide" in shown
    assert "doubtful too little text: with 60 pairs" in shown
    shown = report_until("Settings", text)
    assert "Settings ok nothing to choose" in shown
