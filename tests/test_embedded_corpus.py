"""The corpus in data/: what its files, its grammar and its splits promise."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

DATA = Path(__file__).parent.parent / "data"
sys.path.insert(0, str(DATA))

import generate as gen  # noqa: E402
from grammar import (  # noqa: E402
    GAP,
    NP,
    Act,
    Be,
    Complex,
    Describe,
    Embed,
    Meaning,
    Pivot,
    Spot,
    chinese,
    english,
    ing,
    past_forms,
    third_person,
)
from lexicon import FRAMES, NOUNS, Frame  # noqa: E402
from sampler import Sampler  # noqa: E402

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[gen.Example]]:
    return gen.build(1)


def read(split: str, side: str) -> list[str]:
    return (DATA / f"{split}.{side}").read_bytes().decode("utf-8").split("\n")[:-1]


def test_committed_files_are_the_generators_output(
    corpus: dict[str, list[gen.Example]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text in the repository and the generator never drift apart: regenerated files are equal byte for byte."""
    monkeypatch.setattr(gen, "build", lambda seed: corpus)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--output", str(tmp_path)])
    gen.main()
    for split in SPLITS:
        for side in ("en", "zh"):
            assert (tmp_path / f"{split}.{side}").read_bytes() == (DATA / f"{split}.{side}").read_bytes()


def test_counts_and_overlap() -> None:
    """Splits have their sizes, and no sentence of either language occurs twice, so test is never seen in training."""
    for side in ("en", "zh"):
        lines = {split: read(split, side) for split in SPLITS}
        assert {split: len(found) for split, found in lines.items()} == gen.SIZES
        normalised = [re.sub(r"\W+", " ", line).strip().lower() for split in SPLITS for line in lines[split]]
        assert len(set(normalised)) == len(normalised)
    assert sum((DATA / f"{split}.{side}").stat().st_size for split in SPLITS for side in ("en", "zh")) < 3_000_000


def test_one_translation_for_every_sentence() -> None:
    """Drawing anew never gives a known English sentence a second translation (``build`` checks every draw)."""
    known = {en: zh for split in SPLITS for en, zh in zip(read(split, "en"), read(split, "zh"), strict=True)}
    assert len(known) == sum(gen.SIZES.values())
    sampler = Sampler(Random(2))
    for _ in range(2000):
        meaning = sampler.sentence()
        assert known.setdefault(english(meaning), chinese(meaning)) == chinese(meaning)


@pytest.mark.parametrize(("split", "least"), [("train", 60), ("test", 2)])
def test_every_phenomenon_is_attested(corpus: dict[str, list[gen.Example]], split: str, least: int) -> None:
    """The corpus teaches, and the test set asks for, everything its README names."""
    counts = gen.phenomena(corpus[split])
    assert {name: count for name, count in counts.items() if count < least} == {}


def test_held_out_combinations(corpus: dict[str, list[gen.Example]]) -> None:
    """Combinations kept for test are absent from train and valid and present in test, in the documented numbers."""
    for split in ("train", "valid"):
        assert not [c for e in corpus[split] for c in gen.combinations(e.meaning) if c in gen.HELD_OUT]
        assert max(len(e.en.split()) for e in corpus[split]) <= gen.MAX_WORDS
    tested = {c for e in corpus["test"] for c in gen.combinations(e.meaning) if c in gen.HELD_OUT}
    for kind, least in (("object", 60), ("adjective", 30), ("relative", 10), ("within", 3)):
        assert sum(c[0] == kind for c in tested) >= least, kind
    categories = [e.category for e in corpus["test"]]
    assert {name: categories.count(name) for name in gen.TEST_QUOTAS} == gen.TEST_QUOTAS
    assert all((len(e.en.split()) > gen.MAX_WORDS) == (e.category == "long") for e in corpus["test"])


def test_held_out_words_are_known(corpus: dict[str, list[gen.Example]]) -> None:
    """Test asks for new combinations of known words: every Chinese character of test is in train."""
    train = {char for e in corpus["train"] for char in e.zh}
    assert {char for e in corpus["test"] for char in e.zh} <= train


def test_chinese_side() -> None:
    """Chinese has no letters, digits or spaces, full-width punctuation, and one sign at the end."""
    for split in SPLITS:
        for line in read(split, "zh"):
            assert re.fullmatch(r"[\u4e00-\u9fff]+(，[\u4e00-\u9fff]+)*[。？]", line), line
            assert not re.search("的的|了了|在在", line), line


def test_english_side() -> None:
    """English has a capital, one sign at the end, single spaces, a and an right, do-support, agreement and case."""
    nouns = {"watches", "rings", "answers"}
    third = "|".join(sorted({third_person(f.verb.split()[0]) for f in FRAMES} - nouns | {"wants", "thinks", "says"}))
    plain = "am|are|were|have|do|want|need|think|know|hope|say|play|buy"
    wrong = {
        "article": re.compile(r"\b(a [aeiou]|an [^aeiou])", re.I),
        "he, she and names": re.compile(rf"^(he|she|tom|mary|anna|peter|lucy|jack|david|linda) ({plain})\b", re.I),
        "other pronouns": re.compile(rf"^(i|you|we|they) (is|has|does|{third})\b", re.I),
        "do-support": re.compile(rf"\b(do|does|did|can|must|should|will) (not )?({third})\b", re.I),
        "be without do": re.compile(r"\b(do|does|did) not (am|is|are|was|were)\b"),
        "case": re.compile(r"\b(by|with|than) (I|he|she|we|they)[.?, ]"),
    }
    for split in SPLITS:
        for line in read(split, "en"):
            assert re.fullmatch(r"[A-Z][A-Za-z',]*( [A-Za-z',]+)*[.?]", line), line
            for rule, pattern in wrong.items():
                assert not pattern.search(line), (rule, line)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (third_person, "play plays, go goes, have has, watch watches, fly flies, cry cries, fix fixes"),
        (lambda verb: past_forms(verb)[0], "study studied, play played, chat chatted, close closed, buy bought"),
        (ing, "run running, write writing, put putting, see seeing, play playing"),
    ],
)
def test_verb_forms(form: Callable[[str], str], words: str) -> None:
    """Regular spelling rules and irregular verbs."""
    for pair in words.split(", "):
        verb, expected = pair.split()
        assert form(verb) == expected


def frame(verb: str, zh: str = "") -> Frame:
    return next(f for f in FRAMES if f.verb == verb and zh in ("", f.zh))


def act(subject: str | NP, verb: str, tense: str, obj: str | NP | None = None, zh: str = "", **more: Any) -> Act:
    who = NP(subject) if isinstance(subject, str) else subject
    return Act(who, frame(verb, zh), tense, NP(obj) if isinstance(obj, str) else obj, **more)


THE_BOOK, THE_BOY = NP("book", "the"), NP("boy", "the")
BUYER = NP("boy", "the", rel=Act(GAP, frame("buy"), "past", THE_BOOK, time="yesterday"))
BY_THE_BOY = act(NP("window", "the"), "break", "past", THE_BOY, "打", passive=True)
TABLE: list[tuple[Meaning, str, str]] = [
    (Describe(BUYER, "tall"), "The boy who bought the book yesterday is tall.", "昨天买了书的男孩很高。"),
    (act("he", "play", "habit", "=football", time="every day"), "He plays football every day.", "他每天踢足球。"),
    (act("she", "play", "prog", "=the_violin", "拉"), "She is playing the violin.", "她正在拉小提琴。"),
    (act("Tom", "play", "skill", "=the_piano", "弹"), "Tom can play the piano.", "汤姆会弹钢琴。"),
    (act("I", "buy", "past", NP("cat", number="two")), "I bought two cats.", "我买了两只猫。"),
    (act("I", "buy", "past", NP("car", number="three")), "I bought three cars.", "我买了三辆车。"),
    (act("we", "buy", "past", NP("book", "any", True), negative=True), "We did not buy any books.", "我们没买书。"),
    (act("they", "like", "state", NP("cat", plural=True), negative=True), "They do not like cats.", "他们不喜欢猫。"),
    (act("he", "close", "past", NP("door", "the")), "He closed the door.", "他把那扇门关上了。"),
    (act("he", "break", "past", NP("cup", "a"), "打"), "He broke a cup.", "他打破了一个杯子。"),
    (BY_THE_BOY, "The window was broken by the boy.", "那扇窗户被那个男孩打破了。"),
    (
        act("she", "put", "past", THE_BOOK, goal=Spot("on", "table")),
        "She put the book on the table.",
        "她把那本书放在桌子上了。",
    ),
    (
        act("Anna", "wear", "prog", NP("hat", "a", adj="red"), "戴"),
        "Anna is wearing a red hat.",
        "安娜戴着一顶红帽子。",
    ),
    (act("I", "be to", "ever", "=Paris", negative=True), "I have never been to Paris.", "我从来没去过巴黎。"),
    (
        act("you", "visit", "ever", NP("museum", "this"), "参观", question=True),
        "Have you ever visited this museum?",
        "你参观过这座博物馆吗？",
    ),
    (act("who", "buy", "past", THE_BOOK, question=True), "Who bought the book?", "谁买了那本书？"),
    (act("Lucy", "eat", "want", "what", question=True), "What does Lucy want to eat?", "露西想吃什么？"),
    (
        act("they", "go to", "past", "=Beijing", question=True, wh="how"),
        "How did they go to Beijing?",
        "他们是怎么去北京的？",
    ),
    (
        Embed(NP("I"), "know", act("she", "work", "habit", wh="where"), True),
        "I do not know where she works.",
        "我不知道她在哪里工作。",
    ),
    (act("I", "know", "state", THE_BOY), "I know the boy.", "我认识那个男孩。"),
    (act("he", "fish", "past", place="on the bank"), "He fished on the bank.", "他在河岸上钓鱼了。"),
    (
        act("he", "work", "habit", adverb="often", place="at the bank"),
        "He often works at the bank.",
        "他经常在银行工作。",
    ),
    (Describe(NP("Tom"), "happy", degree="more", other=NP("I")), "Tom is happier than me.", "汤姆比我高兴。"),
    (
        Describe(NP("car", "this"), "old", degree="less", other=NP("car", "my")),
        "This car is not as old as my car.",
        "这辆车没有我的车旧。",
    ),
    (Be(NP("I"), NP("doctor", "a", adj="old"), True), "I am not an old doctor.", "我不是老医生。"),
    (
        Be(NP("apple", number="five"), Spot("under", "chair"), exists=True),
        "There are five apples under the chair.",
        "椅子下面有五个苹果。",
    ),
    (
        Complex("if", act("it", "rain", "if", time="tomorrow"), act("we", "sleep", "future", place="at home")),
        "If it rains tomorrow, we will sleep at home.",
        "如果明天下雨，我们就会在家睡觉。",
    ),
    (
        Complex("when", act("I", "go home", "when"), act(NP("mother", "my"), "cook", "was prog", "=dinner"), True),
        "My mother was cooking dinner when I went home.",
        "我回家的时候，我妈妈正在做晚饭。",
    ),
    (
        Pivot(NP("teacher", "the"), "tell", NP("we"), act("we", "smoke", "imperative", negative=True)),
        "The teacher told us not to smoke.",
        "那位老师让我们不要抽烟。",
    ),
    (
        act(NP("child", "the", True), "give", "past", NP("gift", "a"), recipient=NP("I")),
        "The children gave me a gift.",
        "那些孩子给了我一件礼物。",
    ),
]


@pytest.mark.parametrize(("meaning", "en", "zh"), TABLE, ids=[row[1] for row in TABLE])
def test_written_by_hand(meaning: Meaning, en: str, zh: str) -> None:
    """The realisers say what a person wrote down for the meaning."""
    assert (english(meaning), chinese(meaning)) == (en, zh)


def test_lexicon_names_only_known_nouns() -> None:
    """No verb is listed with an object that is not in the lexicon."""
    assert [(f.verb, noun) for f in FRAMES for noun in f.objects if noun not in NOUNS] == []
