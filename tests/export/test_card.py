"""The model card says what a model is, what it learnt from, and how good it is."""

import json
import shutil
from pathlib import Path

from seq2seq.data.extended_vocabulary import extended
from seq2seq.data.tokenizer import TokenizerPair
from seq2seq.export.card import write_cards


def test_the_cards_of_a_run(tagged: Path, tmp_path: Path) -> None:
    """Guards against scores of another step, a vocabulary as it was asked for and not as it is, and against a licence
    that the next training takes away."""
    run = tmp_path / "run"
    shutil.copytree(tagged, run)
    test = {"bleu": 12.345, "bleu_signature": "nrefs:1|tok:13a", "chrf": 40.0, "chrf_signature": "nc:6", "num_lines": 5}
    (run / "test.json").write_text(json.dumps(test), encoding="utf-8")
    old = TokenizerPair.load(run / "best")
    pair = TokenizerPair(extended(old.src, None, ("later",), bpe=True), old.tgt)
    pair.save(run / "best")
    write_cards(run, 12345, [50, 60])
    card = (run / "best/README.md").read_text(encoding="utf-8")
    for part in (
        "# Translation from xx to yy\n",
        "Licence: *fill in",
        "model of 12,345 parameters: 1 encoder and 1 decoder layers, 16 wide, 60 training steps.",
        f"{pair.src.vocab_size} source and {pair.tgt.vocab_size} target pieces",
        "tag one | 50 |",
        "tag other | 60 |",
        "- validation: BLEU ",
        "- test, 5 lines: BLEU 12.35 (`nrefs:1|tok:13a`), chrF 40.00 (`nc:6`)",
        "Beam search with 2 hypotheses, length penalty 1, at most 1 x source tokens + 3 tokens.",
        "how to translate: one, other.",
        "seq2seq translate . --input new.txt",
    ):
        assert part in card, part
    assert "- test" not in (run / "last/README.md").read_text(encoding="utf-8")  # the best model was tested
    assert str(tmp_path) not in card
    (run / "best/README.md").write_text(card.replace("*fill in", "CC0 *not"), encoding="utf-8")
    write_cards(run, 12345, [50, 60])
    assert "Licence: CC0" in (run / "best/README.md").read_text(encoding="utf-8")


def test_a_damaged_test_record_is_left_out(tagged: Path, tmp_path: Path) -> None:
    """Guards against a traceback at the end of a long run."""
    shutil.copytree(tagged, tmp_path / "run")
    for text in ("{", "[]", '{"bleu": "high"}'):
        (tmp_path / "run/test.json").write_text(text, encoding="utf-8")
        write_cards(tmp_path / "run", 1, [50, 60])
        assert "- test" not in (tmp_path / "run/best/README.md").read_text(encoding="utf-8")
