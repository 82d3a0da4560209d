"""Scores: sacreBLEU's own numbers, with signatures that tell the tokenizer and the references."""

from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import sentencepiece

from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.errors import DataError, UserError
from seq2seq.evaluate import fingerprint_lines, load_tokenizer, score, tokenizer_for
from seq2seq.files import checksum

HYP = ["The cat sat on the mat .", "A dog, barking loudly!", "", "It rains in the town today"]
REF = ["The cat sat on a mat.", "A dog barks loudly!", "nothing", "It rains in the town today"]
ZH_HYP = ["猫坐在垫子上。", "今天下雨了，很冷。"]
ZH_REF = ["猫坐在那张垫子上。", "今天下雨，很冷。"]


def test_scores_are_those_of_sacrebleu() -> None:
    """Numbers and signatures are what sacreBLEU itself gives for the same lines, so others can compare."""
    scores = score(HYP, [REF], "13a")
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    expected = bleu.corpus_score(HYP, [REF])
    assert scores.bleu == expected.score
    assert scores.chrf == chrf.corpus_score(HYP, [REF]).score
    assert scores.bleu_signature == str(bleu.get_signature())
    assert scores.chrf_signature == str(chrf.get_signature())
    assert scores.num_lines == 4
    assert str(scores).splitlines()[0] == expected.format(signature=str(bleu.get_signature()))


@pytest.mark.parametrize("tokenize", ["13a", "zh", "char", "none", "intl"])
def test_the_signature_names_the_tokenizer(tokenize: str) -> None:
    """A score without its tokenizer cannot be compared."""
    assert f"tok:{tokenize}" in score(ZH_HYP, [ZH_REF], tokenize).bleu_signature


@pytest.mark.parametrize("language", ["zh", "zh-Hans", "zh_CN", "ZH", "lzh", "cmn", "zho_Hans"])
def test_chinese_is_cut_as_chinese(language: str) -> None:
    """13a takes a Chinese sentence for one word and scores near 0; every way to write the code finds zh."""
    assert tokenizer_for(language, ZH_REF) == ("zh", None)
    assert score(ZH_HYP, [ZH_REF], "zh").bleu > 30 > score(ZH_HYP, [ZH_REF], "13a").bleu


@pytest.mark.parametrize("language", [None, "", "de", "en-GB", "xx"])
def test_other_languages_take_the_default(language: str | None) -> None:
    """What has no tokenizer of its own gets sacreBLEU's default."""
    assert tokenizer_for(language) == tokenizer_for(language, REF) == ("13a", None)


@pytest.mark.parametrize(("language", "name"), [("ja", "ja-mecab"), ("ko", "ko-mecab")])
def test_without_mecab_the_tokenizer_is_char(language: str, name: str) -> None:
    """Japanese and Korean are scored by characters, visible in the signature, where MeCab is missing."""
    chosen, _ = tokenizer_for(language)
    assert chosen in (name, "char")
    assert f"tok:{chosen.removesuffix('-mecab')}" in score(["猫"], [["猫"]], chosen).bleu_signature


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("th", "สุนัขชอบบ้านวันนี้"),
        ("lao_Laoo", "ຂ້ອຍມັກແມວຫຼາຍ"),
        ("km", "ខ្ញុំចូលចិត្តឆ្មា"),
        ("my", "ကျွန်တော်ကြောင်ကြိုက်တယ်"),
        ("bo", "ང་ཞི་མི་ལ་དགའ།"),
    ],
)
def test_text_without_spaces_is_scored_by_characters(language: str, text: str) -> None:
    """Guards against BLEU 0.00 for all but perfect translations, which cannot tell a good model from a useless one."""
    name, note = tokenizer_for(language, [text])
    assert (name, note) == ("char", None)
    assert score([text[:-2]], [[text]], target_language=language).bleu > 50 > score([text[:-2]], [[text]], "13a").bleu


@pytest.mark.parametrize(
    ("language", "reference", "name", "note"),
    [
        (None, "สุนัขชอบบ้านวันนี้", "char", "the target language is unknown, and the references are in Thai script"),
        ("xx", "สุนัขชอบบ้านวันนี้", "char", "the target language is xx, but the references are in Thai script"),
        ("en", "我们喜欢猫。", "zh", "the target language is en, but the references are in Chinese script"),
        ("zh", "A dog barks loudly!", "13a", "the target language is zh, but the references are in Latin script"),
        ("th", "我们喜欢猫。", "zh", "Chinese script: BLEU uses the tokenizer zh; set the language in data.tgt_lang"),
    ],
)
def test_the_script_of_the_references_decides(language: str | None, reference: str, name: str, note: str) -> None:
    """Guards against a language that is unknown, or another than that of the text, and a useless score for it."""
    chosen, found = tokenizer_for(language, [reference])
    assert chosen == name
    assert note in (found or "")
    scores = score([reference], [[reference]], target_language=language)
    assert f"tok:{name}" in scores.bleu_signature
    assert scores.notes == (found,)
    assert not score([reference], [[reference]], "char").notes
    assert len(score([reference], [[reference]], "13a").notes) == (name != "13a")


def test_tokenised_text_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Guards against sacreBLEU's advice of a parameter that does not exist here, and silence instead."""
    lines = ["It rains in the town ."] * 100
    for hypotheses, references, name in ((lines, [REF[:1] * 100], "translations"), (lines, [lines], "references")):
        (note,) = score(hypotheses, references, "13a").notes
        assert f"the {name} look tokenised" in note
    assert not caplog.records
    assert not score(REF, [REF], "13a").notes


@pytest.mark.parametrize("name", ["spm", "flores101", "flores200"])
def test_a_tokenizer_that_cannot_be_downloaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a traceback without a network, and against a warning about a name that means the same."""
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"cannot be used here: .*refused.*; sacreBLEU downloads .*char needs"
    ) as caught:
        load_tokenizer(name)
    assert "\n" not in str(caught.value)
    assert not caplog.records


def test_several_references() -> None:
    """Each line is measured against all references, and the signature says how many there are."""
    one, two = score(HYP, [REF], "13a"), score(HYP, [REF, HYP], "13a")
    assert two.bleu == pytest.approx(100) != one.bleu
    assert two.chrf > one.chrf
    assert "nrefs:1" in one.bleu_signature
    assert "nrefs:2" in two.bleu_signature
    assert "nrefs:2" in two.chrf_signature


def test_one_reference_needs_no_second_list() -> None:
    """The same scores; guards against a line that is taken for a reference whose lines are its letters."""
    assert score(HYP, REF, "13a") == score(HYP, [REF], "13a")
    assert "nrefs:1" in score(HYP, REF).bleu_signature


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ("a", ["a"], "hypotheses must be a list of strings, not str"),
        (["a"], "a", "references must be a list of strings, not str"),
        (["a"], None, "references must be a list of strings, not NoneType"),
        (["a"], [None], "references must be a list of strings, not NoneType"),
        (["a", 3.0], ["a", "b"], "hypotheses: line 2 is float, not str"),
        (["a", "b"], ["a", None], "references: line 2 is NoneType, not str"),
        (["a"], {"a": 1}, "references must be a list of strings, not dict"),
        (iter(["a"]), ["a"], "hypotheses must be a list of strings, not list_iterator"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_list_of_lines_is_refused(hypotheses: Any, references: Any, message: str) -> None:
    """Guards against a score of letters, and a traceback from within sacreBLEU."""
    with pytest.raises(TypeError) as caught:
        score(hypotheses, references)
    assert str(caught.value) == message


def test_a_notebook_shows_scores_in_words() -> None:
    """Both numbers first, then what makes them comparable, then the warnings that the command line prints."""
    head, bleu, chrf, note = repr(score(ZH_HYP, ZH_REF, target_language="de")).splitlines()
    scores = score(ZH_HYP, ZH_REF, "zh")
    assert head == f"BLEU {scores.bleu:.2f}, chrF {scores.chrf:.2f} (2 lines)"
    assert [bleu, chrf] == str(scores).splitlines()
    assert note.startswith("note: the target language is de, but the references are in Chinese script")


def test_scores_go_into_json() -> None:
    """The record holds plain values, the signature among them."""
    record = score(HYP, [REF], "13a").as_json()
    assert set(record) == {"bleu", "bleu_signature", "bleu_details", "chrf", "chrf_signature", "num_lines"}


def test_unequal_counts_are_refused() -> None:
    """Lines cut off by zip would be scored against the wrong ones; both counts and the reference are named."""
    with pytest.raises(DataError, match="4 translations but 3 lines in reference 2"):
        score(HYP, [REF, REF[:3]], "13a")


def test_nothing_to_score_is_refused() -> None:
    """An empty test set has no score, not even 0."""
    with pytest.raises(DataError, match="nothing to score"):
        score([], [[]], "13a")


def test_an_unknown_tokenizer_is_refused() -> None:
    """The message lists the choices."""
    with pytest.raises(UserError, match=r"unknown BLEU tokenizer '13b'; choose from .*13a.*zh"):
        score(HYP, [REF], "13b")


def test_a_fingerprint_knows_its_text() -> None:
    """Equal texts have equal fingerprints; where lines end is part of a text."""
    assert fingerprint_lines(["a", "b"]) == fingerprint_lines(["a", "b"])
    assert len({fingerprint_lines(lines) for lines in (["ab"], ["a", "b"], ["b", "a"], ["a", "b", ""], [])}) == 5


def test_a_sentencepiece_file_cuts_the_text(tmp_path: Path, tiny_tokenizers: TokenizerPair) -> None:
    """spBLEU: the score of text that is cut by hand; the signature says which file it was, by name and content."""
    path = tmp_path / "sp:m|x.model"
    path.write_bytes(tiny_tokenizers.tgt.model)
    lines, refs = ["kato miren", "solka to"], ["kato mi ren", "solka ren"]
    pieces = sentencepiece.SentencePieceProcessor(model_proto=tiny_tokenizers.tgt.model)
    cut = [[" ".join(pieces.encode(line, out_type=str)) for line in text] for text in (lines, refs)]
    scores = score(lines, refs, str(path))
    assert scores.bleu == sacrebleu.BLEU(tokenize="none", force=True).corpus_score(cut[0], [cut[1]]).score
    name = f"spm-sp_m_x.model-{checksum(tiny_tokenizers.tgt.model)[:16]}"
    assert f"|tok:{name}|" in scores.bleu_signature


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read: No such file"), (b"", "no SentencePiece model"), (b"\x0a\x0b<unk", "or a damaged one")],
)
def test_a_damaged_sentencepiece_file(content: bytes | None, problem: str, tmp_path: Path) -> None:
    """Guards against a traceback, a crash within SentencePiece, and a path that is taken for a misspelt name."""
    path = tmp_path / "flores.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=problem) as caught:
        load_tokenizer(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
