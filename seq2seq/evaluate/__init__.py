"""BLEU and chrF by sacreBLEU; how sure a score is, and whether two systems differ by more than chance."""

from seq2seq.evaluate.scores import Scores, fingerprint_lines, load_tokenizer, score, sentence_chrf, tokenizer_for

__all__ = ["Scores", "fingerprint_lines", "load_tokenizer", "score", "sentence_chrf", "tokenizer_for"]
