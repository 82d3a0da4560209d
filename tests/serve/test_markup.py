"""HTML keeps its tags, and only its texts are translated."""

from hypothesis import given
from hypothesis import strategies as st

from seq2seq.serve.markup import join_html, split_html

PARTS = ("<", ">", "/", "b", "!", "--", '"', "&", "&amp;", "\n", "\r", "<p>", "</p>", "<br>", "<script>", "</script>")
PARTS += ("<!--", "-->", "x y", "?", "[", "]", "<![CDATA[", " ", "=", '<p translate="no">', "<a href='x>y'>")


def translated(html: str) -> str:
    pieces = split_html(html)
    return join_html(pieces, [f"<{piece.text}>" for piece in pieces if piece.text is not None])


@given(st.lists(st.sampled_from(PARTS), max_size=20))
def test_the_pieces_are_the_text(parts: list[str]) -> None:
    """Guards against markup that is lost, doubled or changed, however broken it is."""
    html = "".join(parts)
    assert "".join(piece.raw for piece in split_html(html)) == html


def test_texts_are_translated_and_tags_stay() -> None:
    """Guards against translated tags, lost spaces at tags, and a translation that becomes a tag."""
    html = '<p class="a">Two\n <b>dogs</b> &amp; cats.</p><!-- no --><br> 12 <img alt="x">\n'
    expected = (
        '<p class="a">&lt;Two&gt;\n <b>&lt;dogs&gt;</b> &lt;&amp; cats.&gt;</p><!-- no --><br> 12 <img alt="x">\n'
    )
    assert translated(html) == expected


def test_what_is_no_text_stays() -> None:
    """Guards against translated programs, and against text after them that stays."""
    for html in (
        "<script>if (a < b) x</script>",
        "<style>p</style>",
        "<pre>a <b>c</b></pre>",
        '<p translate="no">a<br>b</p>',
    ):
        assert translated(html) == html
        assert translated(f"{html} end") == f"{html} &lt;end&gt;"
