"""Promise: text comes back as it went in (spaces aside), and sampling is a pure function of its arguments."""

import math
import pickle
import random
import re
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.config import TokenizerConfig
from seq2seq.data import subword_sampling as sampling
from seq2seq.data.symbols import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from seq2seq.data.tokenizer import Tokenizer, TokenizerPair, train_tokenizer
from seq2seq.errors import DataError

SYLLABLES = ["ka", "to", "mi", "ren", "sol", "pu", "da", "lor", "fi", "ne"]


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode_batch([ids])[0]


def made_up_text(num: int = 400, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(150)]
    return [
        " ".join(rng.choices(words, k=rng.randint(2, 10))) + rng.choice([".", "！", "，你好。"]) for _ in range(num)
    ]


def spec(kind: str, vocab_size: int = 380) -> TokenizerConfig:
    return TokenizerConfig(kind=kind, vocab_size=vocab_size)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: train_tokenizer(made_up_text(), spec(kind))[0] for kind in ("unigram", "bpe")}


@pytest.fixture(params=["unigram", "bpe"])
def tokenizer(request, tokenizers) -> Tokenizer:
    return tokenizers[request.param]


def spaces_normalised(text: str) -> str:
    for space in "\n\r\u2581":
        text = text.replace(space, " ")
    return " ".join(part for part in text.split(" ") if part)


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=40))
def test_any_text_comes_back(tokenizers, text):
    """Guards against normalisation, unknown pieces, and losses at NUL, U+2028, odd spaces or rare scripts."""
    for tokenizer in tokenizers.values():
        (ids,) = tokenizer.encode([text])
        assert not {PAD_ID, UNK_ID, BOS_ID, EOS_ID} & set(ids)
        assert decode(tokenizer, ids) == spaces_normalised(text)
        (sampled,) = tokenizer.encode_sampled([text], 0.3, seed=1)
        assert not {PAD_ID, UNK_ID, BOS_ID, EOS_ID} & set(sampled)
        assert decode(tokenizer, sampled) == spaces_normalised(text)


@pytest.mark.parametrize(
    "text",
    [
        "，。！？：；（）「」…～Ａ１",
        "a\0b\x01\x7f",
        "x\u2028y\x0c\u0085z",
        "<s> </s> <pad> <unk> <0x0A>",
        "\ufeffe\u0301é\u3000ﬁ",
    ],
)
def test_awkward_text_comes_back_exactly(tokenizer, text):
    """Guards against full-width forms turned into ASCII, and control symbols typed as text acting as such."""
    (ids,) = tokenizer.encode([text])
    assert decode(tokenizer, ids) == text
    assert not {PAD_ID, UNK_ID, BOS_ID, EOS_ID} & set(ids)


def test_space_mark_line_breaks_and_surrogates(tokenizer):
    """Guards against a typed U+2581 or a line break becoming pieces, and against a crash for a lone surrogate."""
    assert tokenizer.encode(["a\u2581\u2581b\r\nc", " \u2581 ", ""]) == [*tokenizer.encode(["a b c"]), [], []]
    assert set(decode(tokenizer, tokenizer.encode(["a\ud800b"])[0])) == {"a", "b", "\ufffd"}
    assert decode(tokenizer, tokenizer.encode_sampled(["\ud800"], 0.1, 0)[0]) == "\ufffd" * 3


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_decode_takes_any_ids(tokenizers, data):
    """Guards against a crash or a line break when a model writes arbitrary pieces, broken byte sequences included."""
    for tokenizer in tokenizers.values():
        ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
        text = decode(tokenizer, ids)
        assert "\n" not in text
        assert "\r" not in text
        assert text == text.encode("utf-8").decode("utf-8")
        plain = [i for i in ids if i not in (PAD_ID, BOS_ID, EOS_ID)]
        assert decode(tokenizer, [BOS_ID, *plain, EOS_ID, PAD_ID, PAD_ID]) == decode(tokenizer, plain) == text
        assert tokenizer.decode_batch([ids, [], plain]) == [text, "", text]
        broken = tokenizer.encode(["\u4e01"])[0]  # three bytes, the last behind ids that do not count
        assert decode(tokenizer, [*broken[:-1], EOS_ID, PAD_ID, broken[-1]]) == "\u4e01"
        with pytest.raises(IndexError):
            decode(tokenizer, [tokenizer.vocab_size])


def test_sampling_is_a_pure_function(tokenizer):
    """Guards against samples that depend on what ran before, or seeds that make no difference."""
    texts = made_up_text(50, seed=4)
    first = tokenizer.encode_sampled(texts, 0.2, seed=1)
    others = [tokenizer.encode_sampled(texts, 0.2, seed) for seed in (0, -1, 2, 2**40, 2**40 + 1)]
    tokenizer.encode_sampled(texts, 0.5, seed=1)
    tokenizer.encode(texts)
    assert tokenizer.encode_sampled(texts, 0.2, seed=1) == first
    assert pickle.loads(pickle.dumps(tokenizer)).encode_sampled(texts, 0.2, seed=1) == first
    assert len({str(sample) for sample in [first, *others]}) == 6


def test_a_process_loads_a_model_once(tokenizers):
    """Guards against workers that load the model, and fill its cache of words, with every chunk they are sent."""
    data = {kind: pickle.dumps(tokenizer) for kind, tokenizer in tokenizers.items()}
    assert pickle.loads(data["bpe"]) is pickle.loads(data["bpe"])
    assert pickle.loads(data["unigram"]).fingerprint == tokenizers["unigram"].fingerprint


def test_sampling_is_the_same_in_another_process(tokenizer, tmp_path):
    """Guards against a generator salted per process (SentencePiece's own is), which would break exact resume."""
    path = tmp_path / "model"
    path.write_bytes(tokenizer.model)
    text = "kato miren solpu dalorfi 你好 nekamito"
    program = (
        "import sys; from pathlib import Path; from seq2seq.data.tokenizer import Tokenizer\n"
        "print(Tokenizer.load(Path(sys.argv[1])).encode_sampled([sys.argv[2]] * 20, 0.2, 7))"
    )
    root = Path(sys.modules[Tokenizer.__module__].__file__).parents[2]
    command = [sys.executable, "-c", program, str(path), text]
    out = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True, encoding="utf-8")
    assert out.stdout.strip() == str(tokenizer.encode_sampled([text] * 20, 0.2, 7))


def test_sampling_without_noise_is_the_best_segmentation(tokenizers):
    """Parity with SentencePiece: no dropout, or a unigram distribution sharpened to its peak."""
    texts = [*made_up_text(200, seed=5), "\u00e9\u4e00 x\U0001f600y", "kato" * 20]
    assert tokenizers["bpe"].encode_sampled(texts, 0.0, 1) == tokenizers["bpe"].encode(texts)
    assert tokenizers["bpe"].encode_sampled(texts, 1e-12, 1) == tokenizers["bpe"].encode(texts)
    assert tokenizers["unigram"].encode_sampled(texts, 1e5, 1) == tokenizers["unigram"].encode(texts)


def test_cached_words_are_sampled_like_others(tokenizer, monkeypatch):
    """Guards against a cache that changes the samples, or how many random numbers they take."""
    texts = made_up_text(100, seed=6)
    cached = tokenizer.encode_sampled(texts, 0.1, 1)
    monkeypatch.setattr(sampling, "_CACHED_LENGTH", 0)
    assert tokenizer.encode_sampled(texts, 0.1, 1) == cached


def test_full_dropout_spells_characters(tokenizers):
    """The other end of BPE-dropout: no merge at all."""
    (ids,) = tokenizers["bpe"].encode_sampled(["kato"], 1.0, 1)
    assert len(ids) == len("\u2581kato")


@pytest.mark.parametrize("word", ["katomi", "kato" * 7])
def test_dropout_rate_of_single_merges(tokenizers, word):
    """Guards against gaps drawn with the wrong distribution: words stay whole as often as independent draws say."""
    tokenizer, p, num = tokenizers["bpe"], 0.05, 4000
    best = tokenizer.encode([word])[0]
    tokenizer.encode_sampled([word], p, 0)
    merges = tokenizer._sampler._merge("\u2581" + word, 99, iter(()))[1]
    same = sum(s == best for s in tokenizer.encode_sampled([word] * num, p, seed=3)) / num
    lower = (1 - p) ** merges  # another order of merges may lead to the same pieces, hence "at least"
    assert lower - 0.03 < same < lower + 0.15


def test_unigram_samples_follow_the_distribution(tokenizers):
    """Brute force over all segmentations of a word gives the frequencies that sampling must show."""
    tokenizer, strength, num = tokenizers["unigram"], 0.2, 20000
    tokenizer.encode_sampled([""], strength, 0)
    pieces = tokenizer._sampler

    def all_ways(rest: str) -> list[tuple[tuple[int, ...], float]]:
        if not rest:
            return [((), 0.0)]
        heads = [rest[:n] for n in range(1, len(rest) + 1) if rest[:n] in pieces.scores]
        return [
            ((pieces.ids[head], *ids), pieces.scores[head] + score)
            for head in heads
            for ids, score in all_ways(rest[len(head) :])
        ]

    words = sorted({word for line in made_up_text() for word in re.findall("[a-z]+", line) if len(word) < 9})
    word = max(words, key=lambda word: len(all_ways("\u2581" + word)))
    weights = {ids: math.exp(strength * score) for ids, score in all_ways("\u2581" + word)}
    assert len(weights) > 3
    counts = Counter(map(tuple, tokenizer.encode_sampled([word] * num, strength, seed=11)))
    for ids, weight in weights.items():
        assert counts[ids] / num == pytest.approx(weight / sum(weights.values()), abs=0.02)
    assert set(counts) <= set(weights)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_training_is_deterministic(kind, tokenizers):
    """Guards against a fingerprint that changes from run to run."""
    again, notice = train_tokenizer(iter(made_up_text()), spec(kind))
    assert again.fingerprint == tokenizers[kind].fingerprint
    assert notice is None
    assert again.vocab_size == 380


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_an_internal_error_of_the_trainer_says_what_to_do(kind, monkeypatch):
    """Guards against "INTERNAL: src/unigram_model_trainer.cc(211)", which names neither the line nor a remedy."""

    def fail(**options):
        raise RuntimeError("INTERNAL: x.cc(211)\n[std::isfinite(score)]")

    monkeypatch.setattr(sentencepiece.SentencePieceTrainer, "train", fail)
    other = {"unigram": "bpe", "bpe": "unigram"}[kind]
    with pytest.raises(DataError, match=f"set tokenizer.kind: {other}, .* longest word has 500 .* 'xxxx") as error:
        train_tokenizer(["ka to", "mi " + "x" * 500 + " sol"], spec(kind))
    assert "\n" not in str(error.value)


def test_the_source_side_alone_normalises(tokenizers, tmp_path):
    """Guards against a target that loses its no-break spaces, and a copy or worker that forgets the rule."""
    plain = TokenizerPair(tokenizers["bpe"], tokenizers["bpe"])
    made = plain.normalising()
    made.save(tmp_path)
    for pair in (made, TokenizerPair.load(tmp_path), pickle.loads(pickle.dumps(made))):
        assert pair.joint
        assert pair.fingerprint != plain.fingerprint
        assert pair.src.fingerprint != pair.tgt.fingerprint == plain.tgt.fingerprint
        odd, even = "ka\u00a0to\u202fmi\u3000re\u00adn e\u0301\u200b", "ka to mi ren é"
        assert pair.src.encode([odd]) == plain.src.encode([even])
        assert pair.src.encode_sampled([odd], 0.3, 1) == plain.src.encode_sampled([even], 0.3, 1)
        assert pair.src.encode(["\u200b \u00ad\u3000"]) == [[]]
        assert decode(pair.tgt, pair.tgt.encode([odd])[0]) == odd
        assert plain.src.encode([odd]) != plain.src.encode([even])
    plain.save(tmp_path)
    assert TokenizerPair.load(tmp_path).fingerprint == plain.fingerprint
    (tmp_path / "tokenizer.src.json").write_text('{"normalise": 9}')
    with pytest.raises(DataError, match=r"tokenizer\.src\.json: damaged, or written by another version"):
        TokenizerPair.load(tmp_path)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_vocabulary_adapts_to_a_tiny_text(kind):
    """Guards against a first try on a toy text failing for want of pieces."""
    tokenizer, notice = train_tokenizer(made_up_text(20), spec(kind, 8000))
    assert 270 < tokenizer.vocab_size < 8000
    assert notice is not None
    assert f"from 8000 to {tokenizer.vocab_size}" in notice
    text = made_up_text(20)[0]
    assert decode(tokenizer, tokenizer.encode([text])[0]) == text


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_vocabulary_too_small_tells_the_least_size(kind):
    """Guards against SentencePiece's own message; the size named must really work."""
    with pytest.raises(DataError, match=r"vocab_size 200 is too small.*at least (\d+).*byte_fallback") as error:
        train_tokenizer(made_up_text(), spec(kind, 200))
    least = int(str(error.value).split("at least ")[1].split()[0])
    assert train_tokenizer(made_up_text(), spec(kind, least))[0].vocab_size == least


@pytest.mark.parametrize("texts", [[], [""], [" ", "\u2581", "\r"]])
def test_training_on_nothing(texts):
    """Guards against SentencePiece's assertion for an empty corpus."""
    with pytest.raises(DataError, match="empty or blank"):
        train_tokenizer(texts, spec("unigram"))


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_training_takes_odd_lines(kind):
    """Guards against failures for NUL, tabs, surrogates, and against long lines silently left out."""
    long_line = "qq " * 3000 + "zwx" * 1000
    odd = ["a\0b\x01\ttab", "x\ud800y", "\u2028", "<s></s>", long_line]
    tokenizer, _ = train_tokenizer(made_up_text(50) + odd, spec(kind, 8000))
    assert min(tokenizer.encode(["qzwx"])[0]) >= 260  # letters of the long line alone: known, not spelt as bytes
    assert decode(tokenizer, tokenizer.encode(odd[:1])[0]) == odd[0]


def test_without_byte_fallback_the_unknown_is_unknown():
    """Guards against a crash where a character has no piece and there are no bytes."""
    tokenizer, _ = train_tokenizer(made_up_text(), TokenizerConfig(kind="unigram", vocab_size=100, byte_fallback=False))
    assert UNK_ID in tokenizer.encode(["ka\u4e00"])[0]
    assert UNK_ID in tokenizer.encode_sampled(["ka\u4e00"], 0.5, 1)[0]


def test_save_and_load(tokenizer, tmp_path):
    """Guards against temporary files left behind, and a model that changes on its way."""
    TokenizerPair(tokenizer, tokenizer).save(tmp_path)
    loaded = Tokenizer.load(tmp_path / "tokenizer.model")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(["kato"]) == tokenizer.encode(["kato"])
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.model"]


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x0a\x05half"])
def test_bad_model_file(tmp_path, content):
    """Guards against a traceback from SentencePiece, and against an empty model loading."""
    path = tmp_path / "bad.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.model"):
        Tokenizer.load(path)


def test_pair_saves_jointly_or_apart(tokenizers, tmp_path):
    """Guards against a stale file of the other kind being loaded."""
    joint = TokenizerPair(tokenizers["bpe"], tokenizers["bpe"])
    apart = TokenizerPair(tokenizers["bpe"], tokenizers["unigram"])
    swapped = TokenizerPair(tokenizers["unigram"], tokenizers["bpe"])
    assert joint.joint
    assert not apart.joint
    assert len({joint.fingerprint, apart.fingerprint, swapped.fingerprint}) == 3
    names = {True: ["tokenizer.model"], False: ["tokenizer.src.model", "tokenizer.tgt.model"]}
    for pair in (joint, apart, joint):
        pair.save(tmp_path / "model")
        assert sorted(path.name for path in (tmp_path / "model").iterdir()) == names[pair.joint]
        loaded = TokenizerPair.load(tmp_path / "model")
        assert loaded.fingerprint == pair.fingerprint
        assert loaded.joint == pair.joint
        assert (loaded.src is loaded.tgt) == pair.joint
    with pytest.raises(DataError, match=r"tokenizer\.model"):
        TokenizerPair.load(tmp_path)


def test_files_that_are_no_tokenizer_for_us(tmp_path, monkeypatch):
    """Guards against pieces that are not UTF-8 and scores that are not finite, found by fuzzing: SentencePiece loads
    them, and sampling broke on them; and against reading a huge file to its end."""
    model, _ = train_tokenizer(
        ["ka to mi", "to mi"] * 9,
        TokenizerConfig(kind="bpe", vocab_size=20, character_coverage=1.0, byte_fallback=False),
    )
    proto = model.model
    (tmp_path / "m").write_bytes(proto.replace("\u2581".encode(), b"\xe2\x96\xff"))
    with pytest.raises(DataError, match=r"m: not a SentencePiece model .*utf-8"):
        Tokenizer.load(tmp_path / "m")
    for score in (math.nan, math.inf):
        (tmp_path / "m").write_bytes(proto.replace(struct.pack("<f", -3), struct.pack("<f", score)))
        with pytest.raises(DataError, match="a score is not a finite number"):
            Tokenizer.load(tmp_path / "m")
    monkeypatch.setattr("seq2seq.data.tokenizer._LARGEST", len(proto) - 1)
    (tmp_path / "m").write_bytes(proto)
    with pytest.raises(DataError, match=r"m: not a SentencePiece model .it is larger"):
        Tokenizer.load(tmp_path / "m")
