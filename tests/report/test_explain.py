"""The page that explains a translation, and the picture of its alignment."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seq2seq.decode.explanation import Attention, Candidate, Explanation, Node, Scored
from seq2seq.errors import UserError
from seq2seq.report.explain import draw_alignment, write_page
from seq2seq.report.figure import choose_fonts

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "▁The ▁black ▁cat ▁of ▁my ▁neigh bour , ▁who ▁works ▁at ▁night , ▁sleeps ▁on ▁the ▁window ▁all ▁day ."
GERMAN = "▁Die ▁schwarze ▁Katze ▁meines ▁Nachbarn , ▁der ▁nachts ▁arbeitet , ▁schläft ▁den ▁ganzen ▁Tag ▁am ▁Fenster ."
CHINESE = "▁ 我 邻居 的 黑 猫 整天 睡 在 窗台 上 ， 他 在 夜里 工作 。"
NASTY = [
    "</script><script>alert(1)</script>",
    "<!--",
    '"',
    "'",
    "&amp;",
    "🙂",
    "▁שלום",
    "\u2028",
    "\udc80",
    "$x$",
    "{{a}}",
]

STATES = {  # what the page says of a node
    "continued": "continue",
    "open": "Still in the beam",
    "dropped": "Dropped",
    "finished": "Finished",
    "cut": "Cut",
}


def attention(source: list[str], target: list[str], kinds: str, layers: int = 4, heads: int = 4) -> Attention:
    """Random weights, with a large weight near the diagonal; ``kinds``: letters of encoder, decoder, cross."""
    rng = np.random.default_rng(1)

    def weights(rows: int, columns: int, *, causal: bool = False) -> np.ndarray:
        near = -np.abs(np.arange(rows)[:, None] / rows - np.arange(columns) / columns)
        scores = rng.normal(size=(layers, heads, rows, columns)) + 12 * near
        if causal:
            scores[..., np.triu(np.ones((rows, columns), bool), 1)] = -np.inf
        exps = np.exp(scores)
        return (exps / exps.sum(axis=-1, keepdims=True)).astype(np.float32)

    return Attention(
        source=source,
        target=target,
        read=["<s>", *target[:-1]],
        encoder=weights(len(source), len(source)) if "e" in kinds else None,
        decoder=weights(len(target), len(target), causal=True) if "d" in kinds else None,
        cross=weights(len(target), len(source)) if "c" in kinds else None,
    )


def scored(pieces: list[str], seed: int, surprise: float = 0.5) -> Scored:
    rng = np.random.default_rng(seed)
    log_probs = [-float(x) for x in rng.exponential(surprise, size=len(pieces))]
    candidates = [
        sorted(
            [Candidate(piece, float(np.exp(log_prob))), *(Candidate(f"▁no{k}", 0.3 / (k + 1)) for k in range(4))],
            key=lambda candidate: -candidate.probability,
        )
        for piece, log_prob in zip(pieces, log_probs, strict=True)
    ]
    text = "".join(pieces[:-1]).replace("▁", " ").strip()
    return Scored(text, pieces, log_probs, candidates, sum(log_probs) / penalty(len(pieces)))


def penalty(length: int) -> float:
    return float(((5 + length) / 6) ** 0.6)


def beam(translation: Scored, size: int) -> tuple[list[Node], int]:
    """A made-up search: the first hypothesis is the translation, the others branch off and are dropped or finish."""
    rng = np.random.default_rng(3)
    nodes: list[Node] = []

    def add(parent: int | None, step: int, piece: str, log_prob: float, state: Any) -> int:
        total = (0.0 if parent is None else nodes[parent].log_prob) + log_prob
        nodes.append(Node(parent, step, piece, total, total / penalty(step + 1), state))
        return len(nodes) - 1

    live: list[int | None] = [None] * size
    last = len(translation.pieces) - 1
    for step, (piece, log_prob) in enumerate(zip(translation.pieces, translation.log_probs, strict=True)):
        state = "finished" if step == last else "continued"
        new = [add(live[0], step, piece, log_prob, state)]
        for k in range(1, size):
            parent = live[int(rng.integers(0, k + 1))]
            other = "</s>" if step == last else translation.pieces[int(rng.integers(0, last))]
            new.append(
                add(parent, step, other, -1.5 - float(rng.exponential()), "cut" if step == last else "continued")
            )
        if step > last // 2 and step % 4 == 0:
            add(live[-1], step, "</s>", -6.0, "finished")
        live = list(new)
    parents = {node.parent for node in nodes}
    nodes = [
        Node(node.parent, node.step, node.piece, node.log_prob, node.score, "open" if number in live else "dropped")
        if node.state == "continued" and number not in parents
        else node
        for number, node in enumerate(nodes)
    ]
    return nodes, live[0] or 0


def explanation(architecture: str, target: str, kinds: str, **others: Any) -> Explanation:
    pieces = [*target.split(" "), "</s>"]
    source = [*SOURCE.split(" "), "</s>"]
    translation = scored(pieces, 2)
    nodes, best = beam(translation, 5)
    given: dict[str, Any] = {"reference": None, "positions": "none", "position_vectors": None} | others
    return Explanation(
        architecture=architecture,
        source_text="".join(source[:-1]).replace("▁", " ").strip(),
        attention=attention(source, pieces, kinds),
        translation=translation,
        beam_size=5,
        length_penalty=0.6,
        beam=nodes,
        best=best,
        **given,
    )


def sinusoids(positions: int, width: int) -> np.ndarray:
    angles = np.arange(positions)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(positions, width).astype(np.float32)


def transformer(target: str = GERMAN, **others: Any) -> Explanation:
    vectors = sinusoids(21, 64)
    return explanation("transformer", target, "edc", positions="sinusoidal", position_vectors=vectors, **others)


def reference(surprise: float) -> Scored:
    return scored(["▁Die", "▁schwarze", "▁Katze", "▁schläft", ".", "</s>"], 5, surprise)


def page(tmp_path: Path, shown: Explanation) -> str:
    write_page(shown, tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="explanation">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    """A page that a teacher shows without a network must not wait for fonts, styles or scripts from elsewhere."""
    text = page(tmp_path, transformer(reference=reference(0.5)))
    assert set(re.findall(r"https?://[^\"'\s]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(src|@import)\s*=|url\(|\bfetch\(", text)
    assert set(re.findall(r'href="([^"]*)', text)) <= {"data:,", "#${section.id}"}
    assert "default-src 'none'" in text


def test_the_page_is_small(tmp_path: Path) -> None:
    """Numbers with all their digits made pages of many megabytes."""
    assert len(page(tmp_path, transformer(reference=reference(0.5))).encode()) < 400_000


def test_pieces_cannot_become_markup(tmp_path: Path) -> None:
    """A piece such as </script> ended the data, and what followed it was run."""
    shown = transformer(target=" ".join(NASTY))
    text = page(tmp_path, shown)
    assert text.count("</script>") == page(tmp_path, transformer()).count("</script>")
    assert data_of(text)["attention"]["target"] == [*NASTY, "</s>"]


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    """JSON has no infinity, so a page with an impossible reference stayed empty."""
    impossible = scored(["▁x", "</s>"], 1)
    impossible.log_probs[0] = -np.inf
    assert data_of(page(tmp_path, transformer(reference=impossible)))["reference"]["log_probs"][0] is None


def test_the_mask_is_that_of_the_weights(tmp_path: Path) -> None:
    """A model with an attention window does not see all earlier pieces."""
    shown = transformer()
    decoder = shown.attention.decoder
    assert decoder is not None
    length = decoder.shape[-1]
    window = np.tril(np.ones((length, length), int)) - np.tril(np.ones((length, length), int), -4)
    decoder *= window
    assert data_of(page(tmp_path, shown))["mask"] == window.tolist()


def test_a_wheel_has_the_template(tmp_path: Path) -> None:
    """The page worked from a checkout, and not where the package was installed."""
    pytest.importorskip("setuptools")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "seq2seq", tmp_path / "seq2seq", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert "seq2seq/report/explain.html" in wheel.namelist()


@pytest.mark.parametrize("target", [GERMAN, " ".join(NASTY[:7]) + " $x$"])
def test_the_picture_of_the_alignment(tmp_path: Path, target: str) -> None:
    """A piece with two dollar signs was read as a formula."""
    pytest.importorskip("matplotlib")
    draw_alignment(transformer(target).attention, tmp_path / "alignment.png")
    assert (tmp_path / "alignment.png").read_bytes().startswith(b"\x89PNG")


def test_letters_without_a_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chinese pieces were drawn as boxes, without a word about fonts."""
    fonts = pytest.importorskip("matplotlib.font_manager")
    first = [
        entry for entry in fonts.fontManager.ttflist if entry.name in ("DejaVu Sans", "Last Resort High-Efficiency")
    ]
    monkeypatch.setattr(fonts.fontManager, "ttflist", first)
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: [])
    with pytest.raises(UserError, match=r"no font on this machine has the letters 上.*install"):
        draw_alignment(transformer(CHINESE).attention, tmp_path / "alignment.png")


def test_a_font_that_matplotlib_does_not_know_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A font that was installed as the message advised was not found: matplotlib remembers an old list."""
    fonts = pytest.importorskip("matplotlib.font_manager")
    old = [entry for entry in fonts.fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(fonts.fontManager, "ttflist", old)
    try:
        names = choose_fonts(["猫"])
    except UserError:
        pytest.skip("this machine has no font for Chinese")
    assert names[0] == "DejaVu Sans"
    assert len(names) == 2


def test_no_alignment_without_attention(tmp_path: Path) -> None:
    """A traceback about None."""
    with pytest.raises(UserError, match="no attention over the source"):
        draw_alignment(explanation("recurrent", GERMAN, "").attention, tmp_path / "alignment.png")


# What the page says to a reader: the tests below click through it in Chromium, where it is installed.

WIDE, PHONE = 1200, 400
SECTIONS = ["pieces", "attention", "alignment", "candidates", "mask", "positions", "beam", "reference"]
_HAN = re.compile("[\u4e00-\u9fff]")


class Reader:
    """A reader with a browser of some width, in which the page must fit."""

    def __init__(self, browser: Any, tmp_path: Path, shown: Explanation, width: int) -> None:
        self.browser = browser
        self.width = width
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        write_page(shown, tmp_path / "page.html")
        browser.get((tmp_path / "page.html").as_uri())
        self.check()

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        """What can be seen of an element."""
        return self.all(selector)[0].text

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", selector)

    def click(self, element: Any) -> None:
        """Click where an element is, as a person does: it fails if something covers the element."""
        self.run("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element)
        element.click()
        self.check()

    def check(self) -> None:
        assert self.run("return document.documentElement.scrollWidth") <= self.width

    def shares(self, selector: str) -> tuple[float, ...]:
        """How deep the colours are."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.style.getPropertyValue('--share'))"
        return tuple(float(share or 0) for share in self.run(script, selector))


CLICK_HEADS = """\
return [...document.querySelectorAll('#head button')].map(button => {
  button.click();
  return [...document.querySelectorAll('#map td[data-row]')].map(cell => cell.style.getPropertyValue('--share')).join();
})"""


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_a_reader_clicks_through_the_attention(browser: Any, tmp_path: Path, width: int) -> None:
    """Each kind, layer and head is another map, with the weights of the model, and the console stays empty."""
    shown = transformer()
    maps = {"encoder": shown.attention.encoder, "masked": shown.attention.decoder, "cross": shown.attention.cross}
    reader = Reader(browser, tmp_path, shown, width)
    seen = set()
    first = 0 if width == WIDE else 3  # layer
    for kind, button in zip(maps, reader.all("#kind button"), strict=True):
        weights = maps[kind]
        assert weights is not None
        reader.click(button)
        assert kind in button.text
        for layer, layer_button in [*enumerate(reader.all("#layer button"))][first:]:
            reader.click(layer_button)
            for head, text in enumerate(reader.run(CLICK_HEADS)):
                shares = [float(share or 0) for share in text.split(",")]
                expected = weights[layer].mean(axis=0) if head == 0 else weights[layer, head - 1]
                np.testing.assert_allclose(shares, (expected / expected.max()).ravel(), atol=0.001)
                seen.add(tuple(shares))
            reader.click(reader.all("#head button")[-1])
    assert len(seen) == 3 * (4 - first) * 5
    assert [one.get_attribute("aria-pressed") for one in reader.all("#head button")] == ["false"] * 4 + ["true"]
    reader.click(reader.all("#map tbody tr:nth-child(3) td")[1])
    said, value = reader.text("#attention .readout").split(": ")
    assert said == "▁Katze, when predicted, looks at ▁black"
    assert float(value) == pytest.approx(expected[2, 1], abs=0.001)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_a_reader_leaves_punctuation_out(browser: Any, tmp_path: Path, width: int) -> None:
    """The two checkboxes are one, the weights that remain keep their values, and the page says so."""
    shown = transformer()
    reader = Reader(browser, tmp_path, shown, width)
    lines = len(reader.all("#lines line"))
    first, second = reader.all(".leave-out")
    reader.click(first)
    assert second.is_selected()
    assert "sum to less than 1" in reader.text("#left-out")
    kept = [piece for piece in shown.translation.pieces if piece not in (",", ".", "</s>")]
    assert [text.strip() for text in reader.texts("#map tbody th")] == kept
    assert len(reader.all("#map thead th")) == 17
    assert 0 < len(reader.all("#lines line")) < lines
    reader.click(reader.all("#map tbody tr:nth-child(1) td")[0])
    cross = shown.attention.cross
    assert cross is not None
    said = float(reader.text("#attention .readout").split(": ")[1])
    assert said == pytest.approx(cross[-1, :, 0, 0].mean(), abs=0.001)
    reader.click(second)
    assert not first.is_selected()
    assert len(reader.all("#map tbody th")) == 18
    assert len(reader.all("#lines line")) == lines


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_a_reader_follows_the_other_sections(browser: Any, tmp_path: Path, width: int) -> None:
    """Alignment, candidates, mask and positions show the numbers of the explanation."""
    shown = transformer()
    reader = Reader(browser, tmp_path, shown, width)
    alignment, pieces = shown.attention.alignment, shown.translation.pieces
    assert alignment is not None
    for t, button in [*enumerate(reader.all("#lines button"))][::6]:
        reader.click(button)
        color, background = (button.value_of_css_property(name) for name in ("color", "background-color"))
        assert (color, background) == ("rgba(255, 255, 255, 1)", "rgba(8, 81, 156, 1)")  # it was white on white
        best = int(alignment[t].argmax())
        piece = shown.attention.source[best]
        assert reader.text("#alignment .readout").startswith(f"{pieces[t]} ← {piece} {alignment[t, best]:.2f}")
        assert reader.shares("#lines span")[best] == 1
    assert [text.strip().split()[0] for text in reader.texts("#target .piece")] == pieces
    assert [text.strip() for text in reader.texts(".step .chosen span:first-child")] == pieces
    assert len(reader.all(".step")) == len(pieces)
    assert len(reader.all("#mask-map td.masked")) == 18 * 17 / 2
    assert not reader.all("#mask .window")
    reader.click(reader.all("#mask-map tbody tr:nth-child(3) td")[0])
    assert reader.text("#mask .readout") == "To predict ▁Katze, the step sees: <s> ▁Die ▁schwarze"
    reader.click(reader.all("canvas")[0])
    readout = reader.text("#positions .readout")
    found = re.fullmatch(r"position (\d+), dimension (\d+): (.*)", readout)
    assert found
    assert shown.position_vectors is not None
    value = shown.position_vectors[int(found[1]), int(found[2])]
    assert float(found[3].replace("−", "-")) == pytest.approx(float(value), abs=1e-4)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_a_reader_climbs_in_the_beam(browser: Any, tmp_path: Path, width: int) -> None:
    """Each node says which hypothesis it is, with its numbers; the way of the translation is marked."""
    shown = transformer(" ".join([GERMAN] * 2).replace(" ▁Fenster . ▁Die", " ▁Fenster ; ▁die"))
    reader = Reader(browser, tmp_path, shown, width)
    assert max(node.step for node in shown.beam) > 30
    assert len(reader.all(".tree button.best")) == len(shown.translation.pieces)
    assert reader.text("#beam .details").startswith(shown.translation.text)
    said = reader.run(
        "return [...document.querySelectorAll('.tree button')].map(button => {"
        "button.click(); return document.querySelector('#beam .details').innerText})"
    )
    for node, text in zip(shown.beam, said, strict=True):
        found = re.search(r"log-probability (\S+); .* = (\S+): score (\S+)", text)
        assert found
        numbers = [float(number.replace("−", "-")) for number in found.groups()]
        assert numbers == pytest.approx([node.log_prob, penalty(node.step + 1), node.score], abs=0.01)
        assert STATES[node.state] in text
    buttons = reader.all(".tree button")
    for number in (0, len(buttons) // 2, len(buttons) - 1):
        reader.click(buttons[number])
        assert buttons[number].get_attribute("aria-pressed") == "true"
    reader.click(buttons[shown.best])
    buttons[shown.best].send_keys("\ue012")  # the left arrow
    assert buttons[shown.beam[shown.best].parent or 0].get_attribute("aria-pressed") == "true"
    scores = [-float(text[1:]) for text in reader.texts(".ranking td:first-child")]
    assert scores == sorted(scores, reverse=True)
    reader.click(reader.all(".ranking button")[0])
    assert reader.text("#beam .details").startswith(shown.translation.text)


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_a_reader_changes_the_language(browser: Any, tmp_path: Path, width: int) -> None:
    """Captions were left in the other language: no Chinese may be in the English page, and each text has its pair."""
    reader = Reader(browser, tmp_path, transformer(reference=reference(0.5)), width)
    english, chinese = reader.all("#language button")
    assert _HAN.findall(reader.text("body")) == ["中", "文"]
    reader.click(chinese)
    text = reader.text("body")
    terms = ["编码器自注意力", "掩码自注意力", "交叉注意力", "残差连接", "位置编码", "束搜索", "长度惩罚"]
    assert all(term in text for term in terms)
    assert not re.search("attention is|the model|layer|head|Translation of", text)
    missing = "[lang=en]:not(:has(+ [lang=zh]))"
    assert reader.run("return document.querySelectorAll('body ' + arguments[0]).length", missing) == 0
    reader.click(english)
    assert _HAN.findall(reader.text("body")) == ["中", "文"]


def test_the_page_starts_in_the_language_of_the_browser(browser: Any, tmp_path: Path) -> None:
    """A Chinese reader finds Chinese without looking for a button."""
    agent = {"userAgent": browser.execute_script("return navigator.userAgent")}
    browser.execute_cdp_cmd("Network.setUserAgentOverride", {**agent, "acceptLanguage": "zh-CN"})
    try:
        reader = Reader(browser, tmp_path, transformer(CHINESE), PHONE)
        assert reader.text("h1") == "模型怎样翻译了这句话"
    finally:
        browser.execute_cdp_cmd("Network.setUserAgentOverride", {**agent, "acceptLanguage": "en-US"})


@pytest.mark.parametrize(
    ("surprise", "verdict"), [(0.2, "The model prefers the reference"), (9.0, "The model prefers its own translation")]
)
def test_the_verdict_about_the_reference(browser: Any, tmp_path: Path, surprise: float, verdict: str) -> None:
    """A search error is not a model error."""
    shown = transformer(reference=reference(surprise))
    reader = Reader(browser, tmp_path, shown, PHONE)
    assert reader.text(".verdict").startswith(verdict)
    assert len(reader.all("#reference .bar")) == len(shown.translation.pieces) + 6


@pytest.mark.parametrize(
    ("architecture", "kinds", "missing"),
    [
        ("convolutional", "c", {"mask", "positions", "reference"}),
        ("recurrent", "c", {"mask", "positions", "reference"}),
        ("recurrent", "", {"attention", "alignment", "mask", "positions", "reference"}),
    ],
)
def test_only_what_a_model_has(browser: Any, tmp_path: Path, architecture: str, kinds: str, missing: set[str]) -> None:
    """A model without self-attention has no buttons and captions for it."""
    reader = Reader(browser, tmp_path, explanation(architecture, GERMAN, kinds), PHONE)
    sections = [section.get_attribute("id") for section in reader.all("section")]
    assert sections == [name for name in SECTIONS if name not in missing]
    assert len(reader.all("nav a")) == len(sections)
    assert reader.texts("#kind button") == ["cross-attention"] * len(kinds)
    assert f"{architecture} model" in reader.text("#model")


def test_nothing_to_choose(browser: Any, tmp_path: Path) -> None:
    """A recurrent model has one layer and one head of attention: buttons would promise more."""
    shown = explanation("recurrent", GERMAN, "c")
    one_map = replace(shown.attention, cross=shown.attention.alignment[None, None])
    reader = Reader(browser, tmp_path, replace(shown, attention=one_map), PHONE)
    assert not reader.all("#layer")[0].is_displayed()
    assert not reader.all("#head")[0].is_displayed()
    assert max(reader.shares("#map td[data-row]")) == 1


def test_nasty_pieces_are_text(browser: Any, tmp_path: Path) -> None:
    """A piece with markup was run as a script."""
    reader = Reader(browser, tmp_path, transformer(" ".join(NASTY), reference=scored([*NASTY, "</s>"], 1)), PHONE)
    assert len(reader.all("#target .piece")) == len(NASTY) + 1
    assert reader.texts("#target .piece:nth-child(-n + 5) bdi") == NASTY[:5]
    assert reader.text(".verdict") == "The model translated exactly as the reference."


def test_characters_of_bytes_and_a_window(browser: Any, tmp_path: Path) -> None:
    """A character outside the vocabulary is three pieces of a byte; a window masks what is far back."""
    shown = transformer("▁a <0xE4> <0xBD> <0xA0> ▁b")
    assert shown.attention.decoder is not None
    shown.attention.decoder[..., 5, 0] = 0
    reader = Reader(browser, tmp_path, shown, WIDE)
    assert reader.text("#beam .details").startswith("a你 b")
    assert "attention window" in reader.text("#mask")
