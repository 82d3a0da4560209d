"""Text to text: one output for each input, in order, the same whatever shares the batch."""

import copy
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seq2seq.config import Config, DecodeConfig
from seq2seq.data.symbols import EOS_ID
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.decode import engine as engine_module
from seq2seq.decode import search as search_module
from seq2seq.decode import stepper as stepper_module
from seq2seq.decode import windows
from seq2seq.decode.engine import Source, TorchEngine
from seq2seq.decode.sentences import cut_to_fit
from seq2seq.decode.stepper import GraphStepper
from seq2seq.decode.translation import Translation
from seq2seq.decode.translator import Translator
from seq2seq.errors import ModelError, UserError
from seq2seq.model import state as state_module
from seq2seq.model.kernels.cuda_graphs import Graphs
from seq2seq.model.quantize import FbgemmLinear, Int8Linear
from seq2seq.model_folder import build_model, save_model_folder
from tests.toy import environment, sentences

GREEDY = DecodeConfig(beam_size=1, max_length_ratio=1, max_length_offset=3)
BEAM = DecodeConfig(beam_size=3, max_length_ratio=1, max_length_offset=3)
ODD = [
    "",
    " ",
    "\t",
    "\u3000",
    "\u2028",
    "\r",
    "\x00",
    "\ufeff",
    "\u200b",
    "\x0c",
    "\u2581",
    "\u202eabc",
    "😀",
    "\ud800",
    "�",
]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Forty lines of unsorted lengths."""
    return [src for src, _ in sentences(40, seed=9)]


def all_translations(translator: Translator, lines: list[str], decode: DecodeConfig) -> list[list[Translation]]:
    return list(translator.translate_stream(lines, decode))


def test_the_model_looks_at_its_source(translator: Translator, lines: list[str]) -> None:
    """Guards the other tests: were all translations the same, order and batches could be wrong unseen."""
    assert len(set(translator.translate(lines, GREEDY))) > 10


@pytest.mark.parametrize("line", ODD)
def test_every_line_gives_one_line(line: str, translator: Translator, lines: list[str]) -> None:
    """Contract 1 for odd lines: their neighbours stay where they are, and no output holds a line break."""
    before, after = lines[:2]
    outputs = translator.translate([before, line, after], GREEDY)
    assert len(outputs) == 3
    assert [outputs[0], outputs[2]] == translator.translate([before, after], GREEDY)
    assert not any(set(output) & set("\n\r") for output in outputs)
    if not line.strip(" \r"):
        assert outputs[1] == ""


def test_no_lines_give_no_lines(translator: Translator) -> None:
    """An empty input is not an error."""
    assert translator.translate([]) == []


@pytest.mark.parametrize("line", ["", "   ", "\t", "\t\r", "\u3000", "\x0c", "\u2028"])
def test_a_blank_line_stays_blank(line: str, translator: Translator) -> None:
    """Guards against words made up for a line of white space that the tokenizer knows as characters."""
    assert translator.translate(["ka to", line], GREEDY)[1] == ""


def test_blank_lines_have_one_translation(translator: Translator) -> None:
    """The n best are different texts, and a blank line has one; samples may be equal, and are as many as asked for."""
    for decode, count in ((BEAM, 1), (DecodeConfig(sample=True), 2)):
        (blank,) = all_translations(translator, ["  "], decode.model_copy(update={"n_best": 2}))
        assert [translation.text for translation in blank] == [""] * count


class Column(list[str]):
    """Like a column of pandas, or a table: its keys are not its values."""

    def keys(self) -> list[int]:
        return []


@pytest.fixture
def idle(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> Translator:
    """The translator, which must not search."""
    monkeypatch.setattr(translator.engine, "search", None)
    return translator


@pytest.mark.parametrize("lines", [b"kato", None, 7, Path("kato"), {"kato": 1}, Column(["ka"])], ids=repr)
def test_what_is_no_list_of_lines_is_refused(lines: Any, idle: Translator) -> None:
    """Guards against bytes of which each number is a line, and the names of columns in place of their lines. A stream
    refuses them when it is made, and a single string, too: its letters would be lines."""
    with pytest.raises(TypeError, match=r'list of strings, not \w+: translate\(\["..."\]\)$'):
        idle.translate(lines, GREEDY)
    for refused in (lines, "kato"):
        with pytest.raises(TypeError, match="list of strings"):
            idle.translate_stream(refused, GREEDY)


@pytest.mark.parametrize("line", [b"kato", None, 7, float("nan"), ["kato"]], ids=repr)
def test_what_is_no_line_is_refused_by_number(line: Any, idle: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a traceback from deep within, or the translation of a number's letters; and against an hour of
    work before the lines of a later window are looked at."""
    monkeypatch.setattr(windows, "WINDOW_LINES", 1)
    with pytest.raises(TypeError, match=f"^line 2 is {type(line).__name__}, not str$"):
        idle.translate(["kato", line], GREEDY)


def test_a_string_gives_a_string(translator: Translator) -> None:
    """The first line of anyone's notebook; and lines may come from anything that can be iterated over."""
    first, second = translator.translate(["kato", "miren solvu"])
    assert translator.translate("kato") == first != second
    assert translator.translate("") == ""
    assert translator.translate(line for line in ("kato", "miren solvu")) == [first, second]
    streamed = translator.translate_stream(np.array(["kato", "miren solvu"]))
    assert [translations[0].text for translations in streamed] == [first, second]


def test_keywords_change_the_models_settings(translator: Translator, lines: list[str]) -> None:
    """Each is for one call, over the model's own settings or those that are given; a stream takes them as well."""
    own = translator.config.decode
    for decode in (own, BEAM):
        short = decode.model_copy(update={"max_length_ratio": 0.2, "max_length_offset": 1})
        expected = translator.translate(lines, short)
        given = None if decode is own else decode
        assert translator.translate(lines, given, max_length_ratio=0.2, max_length_offset=1) == expected
        assert translator.translate(lines, given) == translator.translate(lines, decode) != expected
    (two,) = translator.translate_stream(["kato"], n_best=2)
    assert len(two) == 2


def test_wrong_keywords_are_refused_in_one_line(idle: Translator) -> None:
    """Nothing is translated, and the message is the config's own: with the name that was meant, and what is allowed."""
    for given, expected in (
        ({"beam_sise": 2}, "beam_sise: unknown key; did you mean beam_size?"),
        ({"beam_size": 0}, "beam_size: must be a whole number > 0 and <= 1000, not 0"),
        ({"n_best": 9}, "n_best: must be at most beam_size (2) without sample, not 9"),
    ):
        for translate in (idle.translate, idle.translate_stream):
            with pytest.raises(UserError) as caught:
                translate(["kato"], **given)
            assert str(caught.value) == expected
    with pytest.raises(TypeError, match=r"^decode must be a DecodeConfig, not int; or write beam_size=2$"):
        idle.translate("kato", 5)  # type: ignore[call-overload]


def test_a_translator_says_what_it_is(model: Path, translator: Translator) -> None:
    """One line for a notebook, with the folder of the model that was found; one that was not loaded has no folder."""
    number = sum(parameter.numel() for parameter in translator.engine.model.parameters())
    what = f"transformer, {number:,} parameters, xx to yy, vocabulary 330; cpu, fp32)"
    assert repr(translator) == f"Translator({model / 'best'}: {what}"
    assert repr(Translator(translator.engine, translator.config, translator.tokenizers)) == f"Translator({what}"


def test_a_home_folder_is_found(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands the ~ in a notebook."""
    monkeypatch.setenv("HOME", str(model.parent))
    assert Translator.load(f"~/{model.name}", device="cpu").folders == (model / "best",)


FORKED = """
import os, signal, sys, torch
torch.set_num_threads(2)
from seq2seq import Translator
lines = ["kato miren solvu", "palin vu", "ren"] * 40
translator = Translator.load(sys.argv[1], device="cpu")
found = translator.translate(lines)
(torch.randn(700, 700) @ torch.randn(700, 700)).exp()  # starts the threads that a child has not
if os.fork() == 0:
    signal.alarm(30)
    again = translator if sys.argv[2] == "parent" else Translator.load(sys.argv[1], device="cpu")
    one = again.translate(lines[:1])  # in one batch, which all threads share
    os._exit(0 if one + again.translate(lines[1:]) == found else 1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("loaded_in", ["parent", "child"])
def test_a_forked_child_translates(loaded_in: str, model: Path) -> None:
    """Guards against a child that waits forever for threads of its parent, as under gunicorn --preload."""
    environment_ = {**environment(), "OMP_NUM_THREADS": "2"}
    arguments = [sys.executable, "-c", FORKED, model, loaded_in]
    done = subprocess.run(arguments, env=environment_, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("search", ["greedy", "beam", "sample"])
def test_a_translation_cut_at_its_limit_is_reported(search: str, translator: Translator, lines: list[str]) -> None:
    """Guards against half a translation that looks like a whole one, and against false alarms: reported are the lines
    whose translation is longer where there is more room, and no other (a beam may find a shorter one that is whole)."""
    beam_size = 3 if search == "beam" else 1
    tight = DecodeConfig(sample=search == "sample", beam_size=beam_size, max_length_ratio=0, max_length_offset=9)
    problems: dict[int, str] = {}
    found = list(translator.translate_stream(["", *lines], tight, problems.setdefault))
    roomy = translator.translate(["", *lines], tight.model_copy(update={"max_length_offset": 40}))
    assert 3 < len(problems) < 35
    assert list(problems) == [number for number, best in enumerate(found, start=1) if best[0].cut]
    for number, (translations, whole) in enumerate(zip(found, roomy, strict=True), start=1):
        differs = translations[0].text != whole
        assert differs if number in problems else not differs or search == "beam", number
    expected = "the translation reached its length limit of 9 tokens; raise decode.max_length_ratio"
    assert set(problems.values()) == {expected}


@pytest.mark.parametrize("decode", [GREEDY, BEAM], ids=["greedy", "beam"])
def test_translations_do_not_depend_on_their_batch(
    decode: DecodeConfig, translator: Translator, lines: list[str]
) -> None:
    """Contract 3: one by one, all at once, and shuffled give the same texts, and scores within 1e-4."""
    lines = [*lines, "", lines[3]]
    single = [all_translations(translator, [line], decode)[0][0] for line in lines]
    shuffled = np.random.default_rng(0).permutation(len(lines)).tolist()
    for batch_tokens in (1, 50, 10**6):
        batched = decode.model_copy(update={"batch_tokens": batch_tokens})
        for order in (range(len(lines)), shuffled):
            found = all_translations(translator, [lines[i] for i in order], batched)
            assert [translations[0].text for translations in found] == [single[i].text for i in order]
            ours = [(t[0].score, t[0].log_prob) for t in found]
            theirs = [(single[i].score, single[i].log_prob) for i in order]
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_an_ensemble_cuts_lines_for_its_shortest_member(
    tmp_path: Path, tiny_config: Callable[..., Config], tiny_tokenizers: TokenizerPair
) -> None:
    """Guards against sources that one of the models was never made for, and against one identity for two ensembles."""
    weights = dict(build_model(tiny_config(), tiny_tokenizers).named_parameters())
    for name, config in (("a", tiny_config()), ("b", tiny_config().replace("data", max_length=9))):
        save_model_folder(tmp_path / name, weights, config, tiny_tokenizers, {"name": name})
    one, other, alone = (
        Translator.load([tmp_path / name for name in names], device="cpu") for names in ("ab", "ba", "a")
    )
    assert one.config.data.max_length == other.config.data.max_length == 9
    assert alone.config.data.max_length == 16
    assert one.identity() != alone.identity()


@pytest.mark.parametrize("decode", [GREEDY, BEAM], ids=["greedy", "beam"])
@pytest.mark.parametrize(
    "layer",
    [
        Int8Linear,
        pytest.param(
            FbgemmLinear,
            marks=pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="no FBGEMM"),
        ),
    ],
)
def test_int8_does_not_depend_on_the_batch(
    layer: type[Int8Linear | FbgemmLinear],
    decode: DecodeConfig,
    translator: Translator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Contract 3, closer: guards against the least differences of fp32 sums, which rounding to int8 makes large. Those
    that a BLAS makes for other shapes are left: they turn a rounding around in one sentence of some hundred."""
    monkeypatch.setattr("seq2seq.decode.engine.int8_layer", lambda shapes: layer)
    assert isinstance(translator.engine, TorchEngine)
    monkeypatch.setattr(translator, "engine", TorchEngine(translator.engine.model, torch.float32))  # quantises anew
    lines = [src for src, _ in sentences(200, seed=9)]  # the differences are rare
    words = " ".join(lines).split()
    long = next(
        line
        for line in (" ".join(words[:n]) for n in range(len(words)))
        if len(translator.tokenizers.src.encode([line])[0]) > 16  # beyond a vector, so that its batch adds up otherwise
    )
    alone, together = (
        all_translations(
            translator, [*lines, long], decode.model_copy(update={"quantize": "int8", "batch_tokens": batch_tokens})
        )
        for batch_tokens in (1, 10**6)
    )
    assert [translations[0].text for translations in together] == [translations[0].text for translations in alone]
    scores, expected = ([translations[0].score for translations in found] for found in (together, alone))
    different = np.abs(np.subtract(scores, expected))
    assert (different <= 1e-4).mean() >= 0.99
    assert different.max() < 1e-2


@pytest.fixture
def graphs(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> Graphs:
    """Has the translator search in steps of fixed shapes, as on CUDA, small enough that a search goes through many."""
    monkeypatch.setattr(stepper_module, "_SENTENCES", 2)
    monkeypatch.setattr(state_module, "_STEPS", 2)
    graphs = Graphs(torch.device("cpu"))
    monkeypatch.setattr(translator.engine, "_graphs", graphs)
    return graphs


SAMPLE = DecodeConfig(sample=True, n_best=3, max_length_ratio=1)


@pytest.mark.parametrize("decode", [GREEDY, BEAM, SAMPLE], ids=["greedy", "beam", "sample"])
def test_fixed_shapes_change_nothing(
    decode: DecodeConfig, translator: Translator, lines: list[str], request: pytest.FixtureRequest
) -> None:
    """The search that CUDA runs gives the text of the other one, in batches of any size and order."""
    expected = all_translations(translator, lines, decode)
    graphs = request.getfixturevalue("graphs")
    ran = []
    run = graphs.run
    graphs.run = lambda key, function: ran.append(function.__self__.shape) or run(key, function)
    for batch_tokens in (10**6, 1, 50, 300):
        ran.clear()
        found = all_translations(translator, lines, decode.model_copy(update={"batch_tokens": batch_tokens}))
        assert [[t.text for t in ts] for ts in found] == [[t.text for t in ts] for ts in expected]
        ours, theirs = ([t.score for ts in every for t in ts] for every in (found, expected))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        assert ran
        if batch_tokens == 10**6:
            assert len({num_sentences for num_sentences, _ in ran}) > 2


def test_batches_on_cuda_fill_their_shapes(
    translator: Translator, lines: list[str], graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against rows computed for no sentence, and against padding that the size of a batch does not count."""
    sizes, whole = [], engine_module.search

    def counted(stepper: GraphStepper, max_lengths: list[int], *options: Any) -> object:
        sizes.append(len(max_lengths))
        return whole(stepper, max_lengths, *options)

    monkeypatch.setattr(engine_module, "search", counted)
    translator.translate(["ka to"] * 50, BEAM.model_copy(update={"batch_tokens": 3 * 16 * 21}))
    assert sizes == [16, 16, 16, 2]  # 21 sentences would be computed as 32; each is padded to 16 tokens


def test_batches_are_larger_on_cuda(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stated number holds on every device; the default is for the device."""
    engine, sample = translator.engine, DecodeConfig(sample=True)
    assert isinstance(engine, TorchEngine)
    stated = DecodeConfig(batch_tokens=7), DecodeConfig(batch_tokens=10**6, sample=True)
    assert [engine.batch_tokens(decode) for decode in (DecodeConfig(), sample, *stated)] == [8192, 8192, 7, 10**6]
    monkeypatch.setattr(engine, "device", torch.device("cuda"))
    assert [engine.batch_tokens(decode) for decode in (DecodeConfig(), sample, *stated)] == [65_536, 16_384, 7, 10**6]


@pytest.mark.parametrize("n_best", [1, 2])
def test_only_hypotheses_that_are_returned_are_followed_back(
    n_best: int, translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against host time for tokens that nobody reads; several can spell one text, so n_best needs them all."""
    followed, trace = [], search_module._trace
    monkeypatch.setattr(search_module, "_trace", lambda *end: followed.append(trace(*end)) or followed[-1])
    sources = [Source([5, 6, 7, EOS_ID], (0, 0)), Source([9, EOS_ID], (1, 0))]
    found = translator.engine.search(sources, BEAM.model_copy(update={"n_best": n_best}))
    assert [len(hypotheses) for hypotheses in found] == [1 if n_best == 1 else 3] * 2
    assert len(followed) == sum(map(len, found))


def test_fixed_shapes_are_for_one_search_at_a_time(
    translator: Translator, lines: list[str], graphs: Graphs, threads: Callable[[int], None]
) -> None:
    """Guards against two threads that translate at once in the same tensors."""
    decode = BEAM.model_copy(update={"batch_tokens": 60})
    alone = all_translations(translator, lines, decode)
    threads(3)
    assert all_translations(translator, lines, decode) == alone


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("decode", [GREEDY, BEAM, SAMPLE], ids=["greedy", "beam", "sample"])
def test_cuda_translates_as_the_cpu_does(decode: DecodeConfig, translator: Translator, lines: list[str]) -> None:
    """In fp32 the text of the CPU, whatever the batches; in bf16 nearly so."""
    expected = translator.translate(lines, decode)
    model = copy.deepcopy(translator.engine.model).cuda()
    engines = (TorchEngine(model, dtype) for dtype in (torch.float32, torch.bfloat16))
    exact, half = (Translator(engine, translator.config, translator.tokenizers) for engine in engines)
    for batch_tokens in (10**6, 1, 300, 10**6):
        batched = decode.model_copy(update={"batch_tokens": batch_tokens})
        assert exact.translate(lines, batched) == expected
        if not decode.sample:
            same = sum(a == b for a, b in zip(half.translate(lines, batched), expected, strict=True))
            assert same > 0.8 * len(lines)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("decode", [BEAM, SAMPLE], ids=["beam", "sample"])
def test_a_step_waits_for_the_device_once(
    decode: DecodeConfig, translator: Translator, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against hidden waits, each of which leaves the device idle: PyTorch refuses all but the one read-back."""
    engine = TorchEngine(copy.deepcopy(translator.engine.model).cuda(), torch.float32)
    on_cuda = Translator(engine, translator.config, translator.tokenizers)
    expected = on_cuda.translate(lines, decode)  # captures the graphs, for which the device is waited for
    whole, read = engine_module.search, torch.Tensor.cpu
    reads: list[torch.Tensor] = []

    def checked(*arguments: object) -> object:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return whole(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def allowed(tensor: torch.Tensor) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("default")
        reads.append(read(tensor))
        torch.cuda.set_sync_debug_mode("error")
        return reads[-1]

    def counted(stepper: GraphStepper) -> object:
        steps.append(stepper)
        return advance(stepper)

    steps: list[GraphStepper] = []
    advance = GraphStepper.advance
    monkeypatch.setattr(GraphStepper, "advance", counted)
    monkeypatch.setattr(engine_module, "search", checked)
    monkeypatch.setattr(torch.Tensor, "cpu", allowed)
    assert on_cuda.translate(lines, decode) == expected
    assert len(reads) == len(steps) > 0


def test_int8_is_close_to_fp32_and_something_else(
    translator: Translator, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against an option without effect, and one that translates worse; fp32 is untouched afterwards."""
    monkeypatch.setattr("seq2seq.decode.engine.int8_layer", lambda shapes: Int8Linear)
    plain = all_translations(translator, lines, GREEDY)
    quantized = all_translations(translator, lines, GREEDY.model_copy(update={"quantize": "int8"}))
    assert [t[0].score for t in quantized] != [t[0].score for t in plain]
    assert sum(a[0].text == b[0].text for a, b in zip(plain, quantized, strict=True)) > 0.8 * len(lines)
    assert all_translations(translator, lines, GREEDY) == plain


def test_int8_gives_way_where_it_is_slow(
    translator: Translator, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against a translation that takes ten times as long."""
    plain = all_translations(translator, lines[:5], GREEDY)
    monkeypatch.setattr("seq2seq.decode.engine.int8_layer", lambda shapes: None)
    with pytest.warns(UserWarning, match=r"int8 is not faster than fp32 .*; translating in fp32"):
        assert all_translations(translator, lines[:5], GREEDY.model_copy(update={"quantize": "int8"})) == plain


def test_int8_is_for_the_cpu(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a kernel's message about shapes or devices."""
    monkeypatch.setattr(translator.engine, "device", torch.device("cuda"))
    with pytest.raises(UserError, match=r"decode\.quantize: int8 is for the CPU; .* device cpu"):
        translator.translate(["ka"], GREEDY.model_copy(update={"quantize": "int8"}))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets PyTorch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_several_threads_translate_nothing(translator: Translator, threads: Callable[[int], None]) -> None:
    """Guards against a traceback where all lines are blank, and none is left for any thread."""
    threads(3)
    assert translator.translate(["", " "]) == ["", ""]
    assert translator.translate([]) == []


def test_batches_are_dealt_to_threads(
    translator: Translator, lines: list[str], threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against results in the order of completion, and against threads that fight for the same cores: each batch
    has one thread of PyTorch's, and all is as before afterwards."""
    decode = BEAM.model_copy(update={"batch_tokens": 60})
    threads(1)
    alone = all_translations(translator, lines, decode)
    threads(3)
    workers, all_started = set(), threading.Barrier(3)

    def search(*arguments: object) -> object:
        assert torch.get_num_threads() == 1
        if threading.get_ident() not in workers:
            workers.add(threading.get_ident())
            all_started.wait(timeout=300)  # so that none is left without a batch
        return whole(*arguments)

    whole = engine_module.search
    monkeypatch.setattr(engine_module, "search", search)
    assert all_translations(translator, lines, decode) == alone
    assert len(workers) == 3
    assert threading.get_ident() not in workers
    assert torch.get_num_threads() == 3
    fresh: list[int] = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [3]


def test_one_batch_needs_no_pool(
    translator: Translator, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line by itself has all threads, and waits for none to start."""
    threads(3)
    monkeypatch.setattr(engine_module, "ThreadPoolExecutor", None)
    assert len(translator.translate(["ka to"], BEAM)) == 1


def test_a_failing_batch_fails_the_call(
    translator: Translator, lines: list[str], threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against an exception that stays in its thread, and against work that goes on after it."""
    calls: list[int] = []

    def fail(*arguments: object) -> None:
        calls.append(1)
        raise ValueError("no room")

    threads(2)
    monkeypatch.setattr(engine_module, "search", fail)
    with pytest.raises(ValueError, match="no room"):
        translator.translate(lines * 20, BEAM.model_copy(update={"batch_tokens": 1}))
    assert torch.get_num_threads() == 2


def test_n_best_comes_best_first(translator: Translator, lines: list[str]) -> None:
    """The n best are sorted, and the first is what a search for one gives."""
    decode = BEAM.model_copy(update={"beam_size": 4, "n_best": 4})
    best = translator.translate(lines, decode.model_copy(update={"n_best": 1}))
    for translations, first in zip(all_translations(translator, lines, decode), best, strict=True):
        scores = [translation.score for translation in translations]
        assert len(translations) == 4
        assert scores == sorted(scores, reverse=True)
        assert translations[0].text == first
        assert all(translation.log_prob <= 0 for translation in translations)


def test_n_best_are_different_texts(translator: Translator, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against one text several times, cut into other pieces, also where lines are joined from parts: a list is
    rather shorter, and what is left is the better of two. Samples are independent draws, and stay as they are."""
    inner = translator.tokenizers.tgt.decode_batch
    monkeypatch.setattr(  # all that differ in nothing but their length are one text
        translator.tokenizers.tgt, "decode_batch", lambda batch: [text[:4] for text in inner(batch)]
    )
    decode = BEAM.model_copy(update={"beam_size": 4, "n_best": 4})
    lines = [*lines, "kato miren. " * 9]
    fewer = 0
    for translations in all_translations(translator, lines, decode):
        texts = [translation.text for translation in translations]
        assert 1 <= len(set(texts)) == len(texts) <= 4
        assert [t.score for t in translations] == sorted((t.score for t in translations), reverse=True)
        fewer += len(texts) < 4
    assert fewer > 10
    samples = all_translations(translator, lines, DecodeConfig(sample=True, n_best=4, temperature=0.01))
    assert all(len(found) == 4 for found in samples)
    assert len({translation.text for translation in samples[0]}) < 4


def test_windows_join_seamlessly(translator: Translator, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and line numbers go on across the windows in which a long input is read."""
    decode = DecodeConfig(sample=True, n_best=2, max_length_ratio=1)
    lines = [*lines[:4], "", *lines[4:6], "ka " * 60]
    problems: list[tuple[int, str]] = []
    whole = [all_translations(translator, lines, options) for options in (GREEDY, decode)]
    monkeypatch.setattr(windows, "WINDOW_LINES", 3)
    for options, expected in zip((GREEDY, decode), whole, strict=True):
        found = list(translator.translate_stream(iter(lines), options, lambda *problem: problems.append(problem)))
        assert [[t.text for t in ts] for ts in found] == [[t.text for t in ts] for ts in expected]
    assert [number for number, message in problems if "longer than" in message] == [8, 8]


def test_windows_read_no_further_than_needed(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is flat: the first translation is there before the input was read to its end, however long its lines."""
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "kato"

    for name, limit, expected in (("WINDOW_LINES", 3, 3), ("WINDOW_CHARACTERS", 2 * len("kato"), 2)):
        monkeypatch.setattr(windows, name, limit)
        taken = 0
        next(translator.translate_stream(endless(), GREEDY))
        assert taken == expected


def test_a_line_too_long_is_cut_told_and_joined(translator: Translator) -> None:
    """Nothing of a line is dropped silently: parts are translated by themselves and joined by a space, in order."""
    limit = translator.config.data.max_length - 1
    parts = ["kato miren solvu palin kaka.", "Toto mimi renren solsol vuvu.", "papa linlin kami tosol renvu."]
    line = " ".join([*parts, *parts])
    encoded = translator.tokenizers.src.encode([line])[0]
    assert len(encoded) > limit
    problems: list[tuple[int, str]] = []
    found = list(translator.translate_stream(["kato", line], BEAM, lambda *problem: problems.append(problem)))
    assert [number for number, _ in problems] == [2]
    assert f"longer than {limit} tokens" in problems[0][1]
    pieces = [ids for _, ids in cut_to_fit(line, limit, translator.tokenizers.src)]
    assert max(map(len, pieces)) <= limit
    assert [
        i for piece in pieces for i in piece
    ] == encoded  # cut at spaces, which belong to the next word: no token lost
    texts = translator.tokenizers.src.decode_batch(pieces)
    expected = [all_translations(translator, [text], BEAM)[0][0] for text in texts]
    assert found[1][0].text == " ".join(translation.text for translation in expected)
    assert found[1][0].log_prob == pytest.approx(sum(t.log_prob for t in expected), abs=1e-3)


def test_a_line_of_several_sentences_is_translated_in_sentences(translator: Translator) -> None:
    """Guards against sentences that a model of single ones leaves out; without the setting, or if nobody knows what the
    model has learned, a line is translated as it is. Long sentences are cut further."""
    parts = ["Kato miren.", "Solvu?", "Palin kaka vu."]
    lines = ["ren", " ".join(parts), "Kato. " + "mi " * 40, ""]
    decode = BEAM.model_copy(update={"split_sentences": True})
    problems: list[int] = []
    found = list(translator.translate_stream(lines, decode, lambda number, _: problems.append(number)))
    assert found[1][0].text == " ".join(translator.translate(parts, BEAM))
    assert len(found) == 4
    assert set(problems) >= {3}
    whole = translator.translate(lines, BEAM)
    assert whole[0] == found[0][0].text
    assert whole[1] != found[1][0].text
    for setting in ("auto", False):
        assert translator.translate(lines, BEAM.model_copy(update={"split_sentences": setting})) == whole


@pytest.mark.parametrize("line", ["ka" * 500, "😀" * 40, "\x00" * 70, "ka " * 999, "。" * 200])
def test_no_line_is_too_long(line: str, translator: Translator) -> None:
    """A line without a space or a sentence's end is cut as well, into parts that fit; no character goes."""
    limit = translator.config.data.max_length - 1
    pieces = [ids for _, ids in cut_to_fit(line, limit, translator.tokenizers.src)]
    assert 0 < max(map(len, pieces)) <= limit
    decoded = "".join(translator.tokenizers.src.decode_batch(pieces))
    assert decoded.replace(" ", "") == line.replace(" ", "")
    (output,) = translator.translate([line], GREEDY)
    assert "\n" not in output


def test_sampling_depends_on_seed_and_line_alone(translator: Translator, lines: list[str]) -> None:
    """The same seed gives the same samples in any batch; another seed, and another sample, others."""
    decode = DecodeConfig(sample=True, n_best=3, max_length_ratio=1)
    reference = all_translations(translator, lines, decode)
    for batch_tokens in (1, 10**6):
        found = all_translations(translator, lines, decode.model_copy(update={"batch_tokens": batch_tokens}))
        assert [[t.text for t in ts] for ts in found] == [[t.text for t in ts] for ts in reference]
    other = all_translations(translator, lines, decode.model_copy(update={"seed": 2}))
    assert [[t.text for t in ts] for ts in other] != [[t.text for t in ts] for ts in reference]
    assert len({t.text for t in reference[0]}) > 1
    same_line_twice = all_translations(translator, [lines[0], lines[0]], decode)
    assert [t.text for t in same_line_twice[0]] != [t.text for t in same_line_twice[1]]


@pytest.mark.parametrize("language", ["zh-Hans", "zh_CN", "cmn", "zho_Hans", "tha_Thai"])
def test_unspaced_targets_join_without_a_space(language: str, translator: Translator) -> None:
    """Parts of a Chinese translation are joined as Chinese is written, whatever form its code has."""
    data = translator.config.data.model_copy(update={"tgt_lang": language})
    chinese = Translator(translator.engine, translator.config.model_copy(update={"data": data}), translator.tokenizers)
    line = "kato miren. " * 20
    spaced = all_translations(translator, [line], GREEDY)[0][0].text
    assert " " in spaced
    pieces = translator.tokenizers.src.decode_batch([ids for _, ids in cut_to_fit(line, 23, translator.tokenizers.src)])
    assert chinese.translate([line], GREEDY)[0] == "".join(translator.translate(pieces, GREEDY))


@pytest.mark.parametrize("decode", [GREEDY, BEAM, DecodeConfig(sample=True, max_length_ratio=1)])
def test_a_model_without_numbers_is_an_error(translator: Translator, decode: DecodeConfig) -> None:
    """Guards against an IndexError where weights hold NaN, found by fuzzing, and against a line that gets lost."""
    broken = copy.deepcopy(translator.engine.model)
    with torch.no_grad():
        broken.output_weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="no finite numbers"):
        Translator(TorchEngine(broken), translator.config, translator.tokenizers).translate(["ka to", ""], decode)
