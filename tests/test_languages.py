"""Promise: a language is recognised however its code is written, and text without spaces is treated as such."""

from itertools import pairwise
from pathlib import Path

import pytest

from seq2seq.languages import CLAUSE_END, SENTENCE_END, WORD_END, joiner, language_of, script_in, script_of

CODES = {
    "han": "zh ZH zh_CN zh-Hans zh_Hant_TW zh-TW zh_CN.UTF-8 zho zho_Hans chi cmn cmn_Hant yue yue_Hant lzh Chinese cn",
    "kana": "ja JA ja_JP jpn jpn_Jpan jp",
    "hangul": "ko ko-KR kor kor_Hang",
    "thai": "th tha tha_Thai th_TH xx-Thai",
    "khmer": "km khm khm_Khmr",
    "lao": "lo lao lao_Laoo",
    "myanmar": "my mya bur mya_Mymr shn_Mymr",
    "tibetan": "bo bod tib bod_Tibt dz dzo_Tibt",
    "javanese": "jv-Java jav_Java",
}


@pytest.mark.parametrize(
    ("script", "code"), [(script, code) for script, codes in CODES.items() for code in codes.split()]
)
def test_a_code_is_understood_in_every_form(script: str, code: str) -> None:
    """Guards against zh_CN or zho_Hans scored, joined and cut as if it had spaces, where zh was not."""
    assert script_of(code) == script


@pytest.mark.parametrize("code", [None, "", "en", "eng", "deu_Latn", "jv", "zh-Latn-pinyin", "xx", "la", "kr", "pt-BR"])
def test_other_codes_say_nothing(code: str | None) -> None:
    """Guards against languages with spaces, romanised ones and unknown ones (all are allowed) taken for others."""
    assert script_of(code) is None


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("train.zh_CN.gz", "zh_CN"),
        ("train.zho_Hans", "zho_Hans"),
        ("zho_Hans.devtest", "zho_Hans"),  # as FLORES names its files
        ("tha_Thai.dev", "tha_Thai"),
        ("train.EN", "EN"),
        ("corpus.ja.tok.gz", "ja"),
        ("corpus.tok.ja.TXT", "ja"),
        ("europarl.de-en.en", "en"),
        ("news.dev", None),
        ("new.ref", None),
        ("tha", None),
    ],
)
def test_a_file_name_ends_in_a_language(name: str, language: str | None) -> None:
    """Guards against codes that are missed behind steps of preparation, and parts of a corpus taken for languages."""
    assert language_of(Path(name)) == language


@pytest.mark.parametrize(
    ("text", "expected", "script"),
    [
        ("Hello, world", None, "latin"),
        ("我们喜欢猫。", None, "han"),
        ("猫が好きです。", None, "kana"),
        (
            "我们喜欢ドラえもん，也喜欢看别的漫画和小说，还有许多有名的电影和电视剧，都非常好看，大家都知道这一点",
            None,
            "han",
        ),
        ("Python 3 と NumPy を使う", "kana", "kana"),  # a share of it suffices, where it is expected
        ("Python 3 と NumPy を使う", None, "latin"),
        ("我们喜欢猫。", "kana", "han"),
        ("ฉันกินข้าว", None, "thai"),
        ("나는 고양이를 좋아한다", None, "hangul"),
        ("ｆｕｌｌ ｗｉｄｔｈ", None, "latin"),
        ("12 + 3 = 15!", None, None),
        ("", None, None),
    ],
)
def test_a_text_shows_its_script(text: str, expected: str | None, script: str | None) -> None:
    """Guards against Chinese taken for Japanese, or the other way round, and against technical text misjudged."""
    assert script_in([text], expected) == script


@pytest.mark.parametrize(
    ("language", "left", "right", "between"),
    [
        ("zho_Hans", "a", "b", ""),
        ("ja_JP", "a", "b", ""),
        (None, "我们喜欢猫。", "“他们”也是", ""),
        ("xx", "ฉันกินข้าว 5", "ปลา", ""),
        (None, "One.", "Two.", " "),
        (None, "我们喜欢 Python", "我们", " "),
        ("ko", "좋아한다.", "나는", " "),
        (None, "", "", " "),
        ("en", "12", "13", " "),
    ],
)
def test_parts_are_joined_as_the_language_is_written(language: str | None, left: str, right: str, between: str) -> None:
    """Guards against spaces in Chinese text, and words run together where no language is known."""
    assert joiner(language, left, right) == between


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("One. Two! Three", ["One. ", "Two! ", "Three"]),
        ("At 3.14 e.g.x it ends", ["At 3.14 e.g.x it ends"]),
        ("他说：“好。”我们走吧！走", ["他说：“好。”", "我们走吧！", "走"]),
        ("यह एक है।वह दो है। तीन", ["यह एक है।", "वह दो है। ", "तीन"]),
        ("كيف حالك؟ أنا بخير", ["كيف حالك؟ ", "أنا بخير"]),
        ("یہ ایک ہے۔ وہ دو", ["یہ ایک ہے۔ ", "وہ دو"]),
        ("Սա մեկն է։ Երկու", ["Սա մեկն է։ ", "Երկու"]),
        ("ይህ አንድ ነው።ሁለት", ["ይህ አንድ ነው።", "ሁለት"]),
        ("ဒါက တစ်ခု။ နှစ်ခု", ["ဒါက တစ်ခု။ ", "နှစ်ခု"]),
        ("នេះជាមួយ។ពីរ", ["នេះជាមួយ។", "ពីរ"]),
        ("འདི་གཅིག་རེད། གཉིས", ["འདི་གཅིག་རེད། ", "གཉིས"]),
    ],
)
def test_sentences_end_in_every_script(line: str, parts: list[str]) -> None:
    """Guards against long lines cut in the middle of a sentence wherever it does not end as in English or Chinese."""
    ends = [0, *(match.end() for match in SENTENCE_END.finditer(line)), len(line)]
    assert [line[a:b] for a, b in pairwise(ends) if line[a:b]] == parts


def test_clauses_and_words_end_in_every_script() -> None:
    """Guards against cuts inside words where a comma or a mark between words is near."""
    assert all(CLAUSE_END.search(text) for text in ("a, b", "，", "و، ", "አንድ፣", "တစ်၊", "a; b"))
    assert not CLAUSE_END.search("1,000 12:30")
    assert all(WORD_END.search(text) for text in ("a b", "ខ្មែរ\u200bខ្មែរ", "བོད་ཡིག", "ሰላም፡ለዓለም"))
