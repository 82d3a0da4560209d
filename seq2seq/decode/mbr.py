"""Minimum Bayes risk: of several candidates, the one that is most like the others (Kumar and Byrne 2004).

The utility is sentence-level chrF (Popović 2015), and the candidates stand in for the references: samples each as often
as it was drawn (Eikema and Aziz 2022), hypotheses of a beam with their probabilities. chrF is sacreBLEU's, computed for
all pairs of candidates at once.

Shapes: ``N`` candidates, ``U`` different texts among them, ``G`` different n-grams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_ORDER = 6  # characters in the longest n-grams
_BETA = 2  # weight of recall
_BLOCK = 1 << 22  # counts in memory at once
_DIGITS = 9  # of a utility; smaller differences come from the order of additions


def expected_chrf(candidates: Sequence[str], weights: Sequence[float]) -> NDArray[np.float64]:
    """The mean chrF of each candidate against all candidates, itself included, [N], 0 to 100.

    Args:
        weights: of the candidates as references; 1 for each sample, the probability for each hypothesis of a beam.
            Equal texts stand in for the same reference, and their weights add up.
    """
    shares: dict[str, float] = {}  # in the order of first occurrences
    for text, weight in zip(candidates, weights, strict=True):
        shares[text] = shares.get(text, 0.0) + weight
    weighted = pairwise_chrf(list(shares)) @ np.array([*shares.values()], np.float64)
    mean = dict(zip(shares, (weighted / sum(weights)).round(_DIGITS).tolist(), strict=True))
    return np.array([mean[text] for text in candidates])


def pairwise_chrf(texts: Sequence[str]) -> NDArray[np.float64]:
    """The sentence-level chrF of each text with each text as its reference, [U, U], 0 to 100.

    Equals ``sacrebleu.sentence_chrf(text, [reference])``: n-grams of 1 to 6 characters without white space, beta 2, the
    means of precision and recall over the orders that both texts have.
    """
    size = len(texts)
    precision, recall, orders = (np.zeros((size, size)) for _ in range(3))
    for total, matches in _matches(["".join(text.split()) for text in texts]):
        both = (total[:, None] > 0) & (total > 0)
        precision += np.divide(matches, total[:, None], out=np.zeros((size, size)), where=both)
        recall += np.divide(matches, total, out=np.zeros((size, size)), where=both)
        orders += both
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    weighted, factor = precision + recall, _BETA**2
    below = np.where(weighted > 0, factor * precision + recall, 1)
    return 100 * (1 + factor) * precision * recall / below


def _matches(texts: Sequence[str]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each order: the number of n-grams of each text [U], and of those that two texts share [U, U]."""
    letters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
    lengths = np.array([len(text) for text in texts], np.int64)
    text = np.repeat(np.arange(len(texts)), lengths)  # of each letter
    left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(letters))  # letters up to the end of its text
    _, letters = np.unique(letters, return_inverse=True)
    grams = letters  # the number of the n-gram that starts at each letter
    for order in range(1, _ORDER + 1):
        if order > 1:  # an (n+1)-gram is an n-gram and a letter
            following = np.concatenate([letters[order - 1 :], np.zeros(min(order - 1, len(letters)), np.int64)])
            _, grams = np.unique(grams * (letters.max(initial=0) + 1) + following, return_inverse=True)
        whole = left >= order  # does not run into the next text
        yield np.maximum(lengths - order + 1, 0).astype(np.float64), _overlap(text[whole], grams[whole], len(texts))


def _overlap(text: NDArray[np.int64], grams: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """The number of n-grams that two texts share, [U, U]: the sum over all n-grams of the smaller count.

    min(a, b) is the number of k with k <= a and k <= b, so the sum is one matrix product for each k.
    """
    shared = np.zeros((size, size))
    num_grams = int(grams.max(initial=-1)) + 1
    width = max(1, min(num_grams, _BLOCK // max(1, size)))
    for start in range(0, num_grams, width):
        inside = (grams >= start) & (grams < start + width)
        flat = text[inside] * width + grams[inside] - start
        counts = np.bincount(flat, minlength=size * width).reshape(size, width)
        k = 1
        while (often := counts.max(axis=0) >= k).any():
            counts = counts[:, often]
            at_least = (counts >= k).astype(np.float32)
            shared += at_least @ at_least.T
            k += 1
    return shared
