"""HTML keeps its tags, and only its texts are translated, in whole sentences."""

from time import process_time

from hypothesis import given
from hypothesis import strategies as st

from seq2seq.serve.markup import escaped, join_html, split_html

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
