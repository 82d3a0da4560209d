"""Promise: text that another toolkit has prepared is recognised, and plain text of any language is not."""

import pytest

from seq2seq.traces import has_capitals, has_subwords, is_tokenised, processed

PLAIN = [
    "The end. He said, “yes”.",
    "wait ... and . . . so",
    "a price of .5, 1,000 or 3.14 at 12:30",
    "Vraiment ? Oui ! C’est vrai ; bien sûr : oui.",
    "यह एक वाक्य है ।",
    "我们喜欢猫，它们喜欢我们。",
    "我们喜欢 Python 和 NumPy。",
    "ฉันกินข้าวที่บ้านของฉัน แล้วไปโรงเรียนกับเพื่อนของฉัน เมื่อวานนี้ตอนเช้า",
    "mail me@@home, C## and #tag",
    "R&amp;D",
    "",
]


@pytest.mark.parametrize("line", PLAIN)
def test_plain_text_has_no_traces(line: str) -> None:
    """Guards against false alarms over the spaces and marks that languages have by themselves."""
    assert not has_subwords(line)
    assert not is_tokenised(line)


@pytest.mark.parametrize("line", ["the wom@@ an", "boo@@", "▁the▁cat", "play ##ing", "he ￭s"])
def test_subwords_are_seen(line: str) -> None:
    """Guards against text cut by subword-nmt, SentencePiece, BERT or OpenNMT, which would be cut again."""
    assert has_subwords(line)
    assert processed([line, "", " "]) == "cut into subwords"


@pytest.mark.parametrize(
    "line",
    [
        "the end .",
        "He came , and went",
        "it &apos;s &quot; so &quot;",
        "state @-@ of",
        "they do n't",
        "我们 喜欢 猫",
        "我 喜 欢 猫 。",
        "猫 が 好き です",
        "ฉัน กิน ข้าว",
    ],
)
def test_tokenised_text_is_seen(line: str) -> None:
    """Guards against scores of tokenised text, which compare with no others, and models that write it."""
    assert is_tokenised(line)
    assert processed([line]) == "tokenised"
    assert processed([line, "plain", "plain", "plain"]) is None


def test_capitals_are_seen() -> None:
    """Guards against lower-cased text that passes, and against letters without case taken for lower-cased ones."""
    assert [has_capitals(line) for line in ("the End", "Москва", "the end 1", "我们", "საქართველო")] == [1, 1, 0, 0, 0]
