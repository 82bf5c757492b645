"""Scores of an answer against a label, 0 to 100, written from their formulas."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from swiftlite.eval.text import normal, tokens, words

ORDERS = 4


def exact_match(answer: str, label: str) -> float:
    """100 if both are the same text, apart from white space and Unicode's composed forms; else 0."""
    return 100.0 if normal(answer) == normal(label) else 0.0


def rouge_l(answer: str, label: str) -> float:
    """F1 of the longest common subsequence, in words (characters of Chinese), without case and punctuation.

    P = LCS / |answer|, R = LCS / |label|, F1 = 2PR / (P + R) = 2 LCS / (|answer| + |label|): Lin, ROUGE: A Package for
    Automatic Evaluation of Summaries, ACL 2004, with β = 1. Two texts without any token are the same: 100.
    """
    a, b = words(answer), words(label)
    return 200.0 * common_subsequence(a, b) / (len(a) + len(b)) if a or b else 100.0


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, in O(|a| |b| / word) bit operations.

    Crochemore et al., A fast and practical bit-vector algorithm for the longest common subsequence problem, IPL 2001:
    a bit of `row` is 0 where the length grows along `b`.
    """
    where: dict[str, int] = {}
    for index, token in enumerate(b):
        where[token] = where.get(token, 0) | 1 << index
    full = (1 << len(b)) - 1
    row = full
    for token in a:
        matches = row & where.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(b) - row.bit_count()


def bleu_4(answers: Sequence[str], labels: Sequence[str]) -> float:
    """BLEU of all answers together, each with one label, in words, punctuation marks and characters of Chinese.

    100 · min(1, exp(1 - r/c)) · exp(mean over n = 1..4 of ln p_n), where p_n is the share of the answers' n-grams that
    occur in their labels, counted at most as often as there, and c and r are the lengths of all answers and labels:
    Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, ACL 2002. An order n that no answer
    is long enough for is left out, so that short answers can be right.
    """
    counts = [ngram_matches(tokens(answer), tokens(label)) for answer, label in zip(answers, labels, strict=True)]
    return _bleu(counts)


def sentence_bleu_4(answer: str, label: str) -> float:
    """BLEU of one answer; from n = 2 on, one is added to matches and n-grams, so that a missing 4-gram is not all.

    Lin and Och, ORANGE: a Method for Evaluating Automatic Evaluation Metrics for Machine Translation, COLING 2004.
    """
    return _bleu([ngram_matches(tokens(answer), tokens(label))], smooth=1)


def ngram_matches(answer: Sequence[str], label: Sequence[str]) -> list[tuple[int, int]]:
    """[(tokens of the answer, tokens of the label)] + [(matches, n-grams of the answer) for n = 1..4]."""
    found = [(len(answer), len(label))]
    for n in range(1, ORDERS + 1):
        mine, theirs = _ngrams(answer, n), _ngrams(label, n)
        found.append(((mine & theirs).total(), mine.total()))
    return found


def perplexity(logprob: float, count: int) -> float | None:
    """exp of the mean negative log-likelihood of `count` tokens whose log-probabilities sum to `logprob`."""
    if not count:
        return None
    mean = -logprob / count
    return math.exp(mean) if mean < 700 else math.inf


def _ngrams(items: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def _bleu(counts: Iterable[Sequence[tuple[int, int]]], smooth: int = 0) -> float:
    (mine, theirs), *orders = (tuple(map(sum, zip(*column, strict=True))) for column in zip(*counts, strict=True))
    if not mine or not theirs:
        return 100.0 if mine == theirs else 0.0
    logs = []
    for n, (matches, total) in enumerate(orders, 1):
        extra = smooth if n > 1 else 0
        if total and not matches + extra:
            return 0.0
        if total:
            logs.append(math.log((matches + extra) / (total + extra)))
    return 100.0 * min(1.0, math.exp(1 - theirs / mine)) * math.exp(sum(logs) / len(logs))
