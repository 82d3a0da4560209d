"""Tables of languages: codes, scripts without spaces, and places to cut and join text.

A language that is not in the tables is allowed, too; then the script of its text decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path

# By script, which is the first word of its letters' Unicode names: languages that usually have no other script, as ISO
# 639 codes and English names ("cn" and "jp" are country codes that are often used for languages), and the script's ISO
# 15924 codes, which follow a language code as in zho_Hans or jv-Java. "tai" and "new" are Tai Le, Tai Tham, Tai Viet,
# New Tai Lue. Japanese is "kana": its text mixes kana and Chinese characters.
_SCRIPTS = {
    "han": ("zh zho chi cmn yue lzh wuu gan hsn cjy cn chinese mandarin cantonese", "hani hans hant hanb"),
    "kana": ("ja jpn jp japanese", "jpan hira kana hrkt"),
    "hangul": ("ko kor korean", "hang kore"),
    "thai": ("th tha thai", "thai"),
    "lao": ("lo lao", "laoo"),
    "khmer": ("km khm khmer", "khmr"),
    "myanmar": ("my mya bur burmese", "mymr"),
    "tibetan": ("bo bod tib dz dzo tibetan dzongkha", "tibt"),
    "javanese": ("", "java"),
    "balinese": ("", "bali"),
    "tai": ("", "lana tale tavt"),
    "new": ("", "talu"),
    "yi": ("", "yiii"),
}
UNSPACED_SCRIPTS = frozenset(_SCRIPTS) - {"hangul"}  # without spaces between words
_OF_LANGUAGE = {code: script for script, (codes, _) in _SCRIPTS.items() for code in codes.split()}
_OF_SCRIPT_CODE = {code: script for script, (_, codes) in _SCRIPTS.items() for code in codes.split()}

# The same for scripts with spaces between words. Languages that are usually written in several scripts, such as Serbian
# and Kazakh, are in neither table.
_SPACED = {
    "latin": (
        "en eng english de deu ger german fr fra fre french es spa spanish it ita italian pt por portuguese nl nld dut "
        "dutch sv swe swedish da dan danish no nor nb nob nn nno norwegian fi fin finnish is isl ice et est lv lav lt "
        "lit pl pol polish cs ces cze czech sk slk slo sl slv hr hrv hu hun hungarian ro ron rum romanian tr tur "
        "turkish vi vie vietnamese id ind indonesian ms msa may tl tgl fil sw swa ca cat eu eus baq gl glg ga gle cy "
        "cym wel mt mlt sq sqi alb af afr eo epo la lat latin yo yor",
        "latn",
    ),
    "cyrillic": ("ru rus russian uk ukr ukrainian be bel bg bul bulgarian mk mkd mac ky kir tg tgk tt tat", "cyrl"),
    "greek": ("el ell gre greek", "grek"),
    "hebrew": ("he heb iw hebrew yi yid", "hebr"),
    "arabic": ("ar ara arabic fa fas per persian ur urd urdu ps pus", "arab aran"),
    "devanagari": ("hi hin hindi mr mar ne nep", "deva"),
    "bengali": ("bn ben bengali as asm", "beng"),
    "gujarati": ("gu guj", "gujr"),
    "gurmukhi": ("", "guru"),
    "oriya": ("or ori", "orya"),
    "tamil": ("ta tam tamil", "taml"),
    "telugu": ("te tel", "telu"),
    "kannada": ("kn kan", "knda"),
    "malayalam": ("ml mal", "mlym"),
    "sinhala": ("si sin", "sinh"),
    "georgian": ("ka kat geo georgian", "geor"),
    "armenian": ("hy hye arm armenian", "armn"),
    "ethiopic": ("am amh ti tir", "ethi"),
}
_SPACED_OF_LANGUAGE = {code: script for script, (codes, _) in _SPACED.items() for code in codes.split()}
_SPACED_OF_CODE = {code: script for script, (_, codes) in _SPACED.items() for code in codes.split()}

# Two-letter codes of languages that are also known by names, by codes for libraries (ISO 639-2/B) or by their parts.
_SHORT = {
    "zh": "chi cmn yue lzh wuu gan hsn cjy cn chinese mandarin cantonese",
    "no": "nb nob nn nno norwegian",
    "ms": "may id ind indonesian zsm",
    "ar": "arb arabic",
    "fa": "per pes persian",
    "et": "ekk",
    "lv": "lvs",
    "sq": "alb als",
    "ku": "kmr ckb",
    "tl": "fil",
    "he": "iw hebrew",
    **{"cs": "cze czech", "de": "ger german", "el": "gre greek", "en": "english", "es": "spanish", "eu": "baq"},
    **{"fr": "fre french", "hy": "arm armenian", "is": "ice", "it": "italian", "ja": "jp japanese", "ka": "geo"},
    **{"ko": "korean", "nl": "dut dutch", "ro": "rum romanian", "ru": "russian", "sk": "slo", "th": "thai"},
    **{"pt": "portuguese", "pl": "polish", "sv": "swedish", "da": "danish", "fi": "finnish", "hu": "hungarian"},
    **{"tr": "turkish", "uk": "ukrainian", "vi": "vietnamese", "bg": "bulgarian", "hi": "hindi", "lo": "laotian"},
}
_SHORT_OF = {other: code for code, others in _SHORT.items() for other in others.split()}

# English names for a list of languages on a screen.
_ENGLISH = {
    **{"ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish"},
    **{"de": "German", "el": "Greek", "en": "English", "eo": "Esperanto", "es": "Spanish", "et": "Estonian"},
    **{"eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French", "ga": "Irish", "gl": "Galician"},
    **{"he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian"},
    **{"is": "Icelandic", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer"},
    **{"ko": "Korean", "ky": "Kyrgyz", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian"},
    **{"mn": "Mongolian", "ms": "Malay", "mt": "Maltese", "my": "Burmese", "nb": "Norwegian Bokmål"},
    **{"ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian"},
    **{"ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sq": "Albanian", "sr": "Serbian", "sv": "Swedish"},
    **{"sw": "Swahili", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish"},
    **{"uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese", "zh": "Chinese"},
}

# First words of Unicode names that are not names of scripts.
_LETTER_NAMES = {"cjk": "han", "ideographic": "han", "bopomofo": "han", "fullwidth": "latin"}
_LETTER_NAMES |= dict.fromkeys(("hiragana", "katakana", "katakana-hiragana", "hentaigana", "halfwidth"), "kana")

QUESTION_MARKS = "?？؟⁇⁈⁉՞፧⸮꘏꛷᥅\u037e"
_CLOSING = "[\"'”’»)\\]」』）】》〉]*"
# Marks that end a sentence (or a clause) only before a space, then marks that always end it.
SENTENCE_END = re.compile(rf"[.!?…\u037e]+{_CLOSING}\s|[。！？；…｡．؟۔।॥։።፧፨။។៕།༎᠃᠉꓿꘎꘏꛳꛷߹᭟꧉]+{_CLOSING}\s*")
CLAUSE_END = re.compile(r"[,;:]\s|[，、：､､،؛፣፤፥፦၊᠂᠈߸᭞꧈]\s*")
# Spaces; the zero width space and the marks between words or syllables of Ethiopic and Tibetan.
WORD_END = re.compile(r"[\s\u200b፡་]")
CUTS = (SENTENCE_END, CLAUSE_END, WORD_END)  # places to cut a line that is too long for the model, best first

_ENOUGH_LINES = 2000  # to find the script of a text
_LEAST_SHARE = 0.1  # of letters in the expected script
_LEAST_KANA = 0.2  # share of kana among kana and Chinese characters in Japanese text

# Endings of file names that are not languages: compression, steps of preparation, parts of a corpus.
_ENDINGS = re.compile(
    r"(\.(gz|bz2|xz|zst|txt|tok|bpe|spm?|raw|clean|tc|lc|dev|devtest|test|train|valid))+$", re.IGNORECASE
)
_CODE = re.compile(r"\.([a-z]{2,3}([-_][a-z0-9]{2,8})*)$|^([a-z]{3}_[a-z]{4})$", re.IGNORECASE)
_NO_LANGUAGE = ("src", "tgt", "trg", "ref", "hyp", "out", "tsv", "csv", "tmp", "bak", "old")


def language_of(path: Path) -> str | None:
    """The language code at the end of a file name, as written there; None if there is none.

    ``train.en.gz`` is ``en``, ``train.zh_CN.tok`` is ``zh_CN``, and ``zho_Hans.devtest`` (FLORES) is ``zho_Hans``.
    """
    found = _CODE.search(_ENDINGS.sub("", path.name))
    code = found and (found[1] or found[3])
    return code if code and code.lower() not in _NO_LANGUAGE else None


def script_of(language: str | None) -> str | None:
    """The script of a language code: a key of the tables, or None for other languages.

    The code may have any common form: ``zh``, ``zh_CN.UTF-8``, ``zh-Hans``, ``cmn``, ``zho_Hans``, ``JA``. A script
    in it decides: ``jv-Java`` is written without spaces, ``jv`` with spaces; ``zh-Latn`` is not Chinese characters.
    """
    main, *rest = re.split(r"[-_.@]", (language or "").strip().lower())
    for part in rest:
        if len(part) == 4 and part.isalpha():
            return _OF_SCRIPT_CODE.get(part)
    return _OF_LANGUAGE.get(main)


def writing_of(language: str | None) -> str | None:
    """The script of a language code, also of those with spaces between words; None for other languages.

    Languages that are written in several scripts have none, unless the code says it: ``sr`` has none, ``sr_Cyrl`` has.
    """
    main, *rest = re.split(r"[-_.@]", (language or "").strip().lower())
    for part in rest:
        if len(part) == 4 and part.isalpha():
            return _OF_SCRIPT_CODE.get(part) or _SPACED_OF_CODE.get(part)
    return _OF_LANGUAGE.get(main) or _SPACED_OF_LANGUAGE.get(main)


def short_code(language: str) -> str:
    """The language of a code in any form: ``zh_CN``, ``lzh`` and ``Chinese`` give ``zh``, ``deu_Latn`` ``deu``."""
    main = re.split(r"[-_.@]", language.strip().lower())[0]
    return _SHORT_OF.get(main, main)


def english_name(language: str) -> str:
    """The English name of a language; the code itself if it is not in the table."""
    main = re.split(r"[-_.@]", language.strip().lower())[0]
    return _ENGLISH.get(main) or _ENGLISH.get(short_code(language), language)


@lru_cache(maxsize=1 << 16)
def script_of_letter(character: str) -> str | None:
    """The script of a letter by its Unicode name ("latin", "han", "kana", ...); None for other characters."""
    if unicodedata.category(character)[0] != "L":
        return None
    name = unicodedata.name(character, "").split(" ")[0].lower()
    return _LETTER_NAMES.get(name, name) or None


def script_in(lines: Iterable[str], expected: str | None = None) -> str | None:
    """The script of a text, from its first lines; None if it has no letters.

    Args:
        expected: the script that the text should have. It is returned if 10 % of the letters belong to it, because
            technical text in Japanese may have more Latin letters than kana.
    """
    letters = Counter("".join(islice(lines, _ENOUGH_LINES)))
    found: Counter[str] = Counter()
    for character, count in letters.items():
        if script := script_of_letter(character):
            found[script] += count
    total = found.total()
    if not total:
        return None
    japanese = found["kana"] >= _LEAST_KANA * (found["kana"] + found["han"]) > 0
    if japanese:
        found["kana"] += found.pop("han", 0)
    elif found["kana"]:
        found["han"] += found.pop("kana")
    if expected and found[expected] >= _LEAST_SHARE * total:
        return expected
    return found.most_common(1)[0][0]


def joiner(language: str | None, left: str, right: str) -> str:
    """The text between two parts of a line: "" for languages without spaces between words, else a space.

    For a language that is not in the tables, the letters on both sides decide.
    """
    if script_of(language) in UNSPACED_SCRIPTS:
        return ""
    last = next(filter(None, map(script_of_letter, reversed(left))), None)
    first = next(filter(None, map(script_of_letter, right)), None)
    return "" if last in UNSPACED_SCRIPTS and first in UNSPACED_SCRIPTS else " "


def count_words(text: str) -> int:
    """The number of words between spaces; every letter of a script without spaces between words is one by itself."""
    count = 0
    for part in filter(None, WORD_END.split(text)):
        alone = sum(script_of_letter(character) in UNSPACED_SCRIPTS for character in part)
        others = any(c.isalnum() and script_of_letter(c) not in UNSPACED_SCRIPTS for c in part)
        count += alone + (others or not alone)
    return count
