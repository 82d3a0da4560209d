"""HTML keeps its tags, and only its texts are translated, in whole sentences; tags inside a sentence come back into its
translation, once each, well nested, around what the model looked from."""

import asyncio
import re
import shutil
from concurrent.futures import Future
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.decode.placing import Bare, Looked, put_in
from seq2seq.decode.translator import Translator
from seq2seq.errors import UserError
from seq2seq.serve.api import Api, Settings
from seq2seq.serve.batcher import Batcher, Loaded
from seq2seq.serve.markup import Piece, escaped, join_html, split_html
from seq2seq.serve.models import Models
from tests.decode.test_placing import placed, spans, words_of
from tests.toy import sentences

PARTS = ("<", ">", "/", "b", "!", "--", '"', "&", "&amp;", "\n", "\r", "<p>", "</p>", "<br>", "<script>", "</script>")
PARTS += (
    "<b>",
    "</b>",
    "<i>",
    "</i>",
    "<sup>",
    "</sup>",
    "<img>",
    "<!--",
    "-->",
    "x y",
    "?",
    "[",
    "]",
    "<![CDATA[",
    " ",
    "=",
    '<p translate="no">',
    "<a href='x>y'>",
)
TAGS = ("<b>", "</b>", "<i>", "</i>", '<a href="x>y">', "</a>", "<img>", "<!-- c -->", "<code>q</code>", "<b></b>")
TAG = re.compile(r"<!--.*?-->|<code>q</code>|<(?:\"[^\"]*\"|[^>])*>")


def translated(html: str) -> str:
    pieces = split_html(html)
    assert not any(piece.elements for piece in pieces)
    return join_html(pieces, [escaped(f"<{piece.text}>") for piece in pieces if piece.text is not None])


def texts(html: str, at_all_tags: bool = False) -> list[str]:
    return [piece.text for piece in split_html(html, at_all_tags) if piece.text is not None]


@given(st.lists(st.sampled_from(PARTS), max_size=20))
def test_the_pieces_are_the_text(parts: list[str]) -> None:
    """Guards against markup that is lost, doubled or changed, however broken it is."""
    html = "".join(parts)
    for at_all_tags in (False, True):
        pieces = split_html(html, at_all_tags)
        assert "".join(piece.raw for piece in pieces) == html
        assert not (at_all_tags and any(piece.elements for piece in pieces))


def test_texts_are_translated_and_tags_stay() -> None:
    """Guards against translated tags, lost spaces at tags, and a translation that becomes a tag."""
    html = '<p class="a">Two\n dogs &amp; cats.</p><!-- no --><br> 12 <img alt="x">\n<p><b><i>So</i></b>\n'
    expected = (
        '<p class="a">&lt;Two dogs &amp; cats.&gt;</p><!-- no --><br> 12 <img alt="x">\n<p><b><i>&lt;So&gt;</i></b>\n'
    )
    assert translated(html) == expected


def test_a_sentence_is_whole() -> None:
    """Guards against words that are translated without those beside them, and against two sentences in one."""
    assert texts("<p>Two <b>dogs</b> <a>play</a>.<p>One<br>two<li>three") == ["Two dogs play.", "One", "two", "three"]
    assert texts("Two <b>dogs</b> play.", at_all_tags=True) == ["Two", "dogs", "play."]
    assert texts("<p>a<sup>2</sup>, H<sub>2</sub>O <code>q</code>, <!-- no --> b<sup>2</sup>c") == ["a, H2O, b2c"]
    assert texts("one <b>two<br>three</b> four") == ["one", "two", "three", "four"]  # tags without their other one
    assert texts("one <b><i>two</b></i> three") == ["one", "two", "three"]


def test_hostile_markup_takes_little_time() -> None:
    """Guards against work that grows with the square of the text, and against a stack that overflows."""
    for html in ("<b>" * 6000 + "x" + "</b>" * 6000, "<b>" * 6000 + "</i>" * 6000 + "x", "<b><i></b></i>x" * 2000):
        assert not any(piece.elements for piece in split_html(html))
        started = process_time()
        assert "".join(piece.raw for piece in split_html(html)) == html
        assert process_time() - started < 3
    for html in ("<b>x" * 60 + "</b>" * 60, "x<i></i>" * 300):
        assert not any(piece.elements for piece in split_html(html))


def test_what_is_no_text_stays() -> None:
    """Guards against translated programs, and against text after them that stays."""
    for html in (
        "<script>if (a < b) x</script>",
        "<style>p</style>",
        "<pre>a <b>c</b></pre>",
        "<code>a</code>",
        '<p translate="no">a<br>b</p>',
    ):
        assert translated(html) == html
        assert translated(f"{html} end") == f"{html} &lt;end&gt;"


def test_what_never_ends_stays() -> None:
    """Guards against comments and tags without an end that the model reads as words; browsers show none of it."""
    for rest in (
        "<!-- never <b>a</b>",
        '<a href="x>my <b>b</b></p>',
        "<!doctype",
        "</p",
        "<?php a",
        '<p translate="no">a<b',
    ):
        assert translated(f"<p>ka</p>{rest}") == f"<p>&lt;ka&gt;</p>{rest}"
    assert translated("ka < mi") == "&lt;ka &lt; mi&gt;"


def test_a_class_says_what_stays() -> None:
    """Guards against names that pages mark for translators of the web in the other usual way."""
    assert translated('<p class="a notranslate">ka</p>') == '<p class="a notranslate">ka</p>'
    assert translated('<p class="a">ka</p>') == '<p class="a">&lt;ka&gt;</p>'


def bare(piece: Piece) -> Bare:
    return Bare(str(piece.text), piece.elements)


def sentence(html: str) -> Piece:
    (piece,) = (piece for piece in split_html(html) if piece.text is not None)
    return piece


@pytest.mark.parametrize(
    ("html", "translation", "order", "expected"),
    [
        ("I <b>saw</b> <i>him</i>.", "ich habe ihn gesehen.", [0, 0, 2, 1, 3], "ich habe <i>ihn</i> <b>gesehen</b>."),
        ("<b>Two dogs</b> play", "zwei Hunde spielen", [0, 1, 2], "<b>zwei Hunde</b> spielen"),
        ("a <b>red <i>big</i> car</b> b", "b Auto groß rot a", [4, 3, 2, 1, 0], "b <b>Auto <i>groß</i> rot</b> a"),
        ("a dog<sup>[1]</sup> b", "b Hund a", [2, 1, 0], "b Hund<sup>[1]</sup> a"),
        ("a <img> dog b", "b Hund a", [2, 1, 0], "b <img> Hund a"),
        ("a <a><img></a> (b)", "a (b)", [0, 1, 2, 3], "a <a><img></a> (b)"),
        ("<b>a</b><i>b</i>", "AB", [0], "<b>AB</b><i></i>"),
        ("a <img> <b>dog</b> c", "A Hund C", [0, 1, 2], "A <img> <b>Hund</b> C"),
        ("a <b><img> dog c</b>", "A Hund C", [0, 1, 2], "A <b><img> Hund C</b>"),
        ("a <img><img> dog", "A Hund", [0, 1], "A <img><img> Hund"),
        ("a <img>, dog", "A, Hund", [0, 1, 2], "A <img>, Hund"),
        ("a <b>&lt; b</b> c", "A &lt; B < C", [0, 1, 2, 2, 2, 2, 3], "A <b>&amp;lt; B &lt;</b> C"),
        ("<b>a <i>b</i></b> c d", "A C D B", [0, 2, 3, 1], "<b><i>A</i></b> C D B"),
        ("a <b>b</b>", "A B.", [0, 1, 1], "A <b>B</b>."),
        ("a <b>b</b> c d", "D C A.", [3, 2, 1, 1], "D C <b>A</b>."),
        ("<b>a b</b>!", "A B!", [0, 1, 2], "<b>A B</b>!"),
    ],
)
def test_tags_follow_their_words(html: str, translation: str, order: list[int], expected: str) -> None:
    """Guards against tags around other words, in an order that the words do not have, and texts that become tags."""
    assert placed(bare(sentence(html)), translation, order, escaped) == expected


@given(st.lists(st.sampled_from([*TAGS, "ka", "to ", " mi", ".", " "]), min_size=3, max_size=25), st.data())
def test_all_tags_are_kept(parts: list[str], data: st.DataObject) -> None:
    """Guards against tags that are lost, doubled or overlap, and words that are cut or lost."""
    translation = "AA, bb (cc) <b> dd."
    for piece in split_html("".join(parts)):
        if piece.text is None or not piece.elements:
            continue
        size = len(spans(translation))
        num_words = len(words_of(bare(piece)))
        order = data.draw(st.lists(st.integers(0, num_words - 1), min_size=size, max_size=size))
        html = placed(bare(piece), translation, order, escaped)
        assert sorted(TAG.findall(html)) == sorted(TAG.findall(piece.raw))
        assert re.findall(r"\w+", TAG.sub(" ", html)) == ["AA", "bb", "cc", "lt", "b", "gt", "dd"]
        assert TAG.sub("", html).replace(" ", "") == "AA,bb(cc)&lt;b&gt;dd."
        (_,) = (one for one in split_html(f"{html}.x") if one.text is not None)  # else they are not well nested


def test_a_word_that_is_copied_keeps_its_tags_inside(model: Loaded) -> None:
    """Guards against H2O that becomes one tag, and against tags inside words."""
    piece = sentence("H<sub>2</sub>O is")
    looked = Looked(
        str(piece.text), [(0, 1), (1, 2), (2, 3), (4, 6)], "ist H2O", [(0, 3), (3, 5), (5, 6), (6, 7)], np.ones((4, 4))
    )
    assert put_in(looked, piece.elements) == "ist H<sub>2</sub>O"
    line = sentences(1, seed=5)[0][0]
    translator = model.translator
    for inside in range(1, len(line), 3):
        piece = sentence(f"{line[:inside]}<b>{line[inside:]}</b> ka")
        translation = translator.translate(str(piece.text))
        (html,) = translator.with_elements([bare(piece)], [translation], model.decode, escaped)
        assert (html.count("<b>"), html.count("</b>")) == (1, 1)
        assert html.replace("<b>", "").replace("</b>", "") == translation
        assert not re.search(r"\w</?b>\w", html)


def test_where_the_model_cannot_be_looked_into(model: Loaded) -> None:
    """Guards against another error for a text that is longer than the model reads and translated in parts."""
    for html, translation in (("ka <b>to</b> " + "mi " * 200, "x"), ("ka <b>to</b>", " ")):
        with pytest.raises(UserError, match=r"the model reads at most|blank"):
            model.translator.with_elements([bare(sentence(html + " mi"))], [translation], model.decode, escaped)


def test_an_engine_without_attention_keeps_all_tags(toy: Path, tmp_path: Path) -> None:
    """Guards against lost or moved tags with CTranslate2, where each text between two tags is translated alone."""
    pytest.importorskip("ctranslate2")
    folder = shutil.copytree(toy / "best", tmp_path / "model")
    translator = Translator.load(folder, engine="ctranslate2")
    batcher = Batcher(10_000)
    api = Api(Models([folder], lambda _: Loaded(translator, translator.config.decode)), batcher, Settings(1000, 99, 60))

    async def wait(future: Future[Any]) -> Any:
        return await asyncio.wrap_future(future)

    html = ["<p>ka <b>to <i>mi</i></b> ka<sup>[1]</sup> <img> to.</p>", "<a>ka</a>, <!-- c --> to <code>q</code>"]
    fields = {"q": html, "source": "xx", "target": "yy", "format": "html"}
    answer = asyncio.run(api.translate(fields, wait))["translatedText"]
    batcher.stop()
    assert [re.findall(r"<.*?>", text) for text in answer] == [re.findall(r"<.*?>", text) for text in html]
