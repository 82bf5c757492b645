"""The scores against their formulas, and what must hold of them for any texts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlite.eval.choice import chosen_letter
from swiftlite.eval.metrics import (
    bleu_4,
    common_subsequence,
    exact_match,
    ngram_matches,
    perplexity,
    rouge_l,
    sentence_bleu_4,
)
from swiftlite.eval.text import tokens, words

ALPHABET = 'aAb 我你。,1\n'
texts = st.text(ALPHABET, max_size=30) | st.text(max_size=20)
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=5)
METRICS = (exact_match, rouge_l, sentence_bleu_4)


def naive_lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(texts)
def test_a_text_matches_itself(text):
    assert all(metric(text, text) == pytest.approx(100) for metric in METRICS)
    assert bleu_4([text, 'and this one is longer'], [text, 'and this one is longer']) == pytest.approx(100)


@given(pairs)
def test_bounds(given_pairs):
    answers, labels = zip(*given_pairs, strict=True)
    assert 0 <= bleu_4(answers, labels) <= 100 + 1e-9
    for answer, label in given_pairs:
        assert all(0 <= metric(answer, label) <= 100 + 1e-9 for metric in METRICS)


@given(texts, texts)
def test_symmetry(a, b):
    assert exact_match(a, b) == exact_match(b, a)
    assert rouge_l(a, b) == rouge_l(b, a)


@given(pairs)
def test_the_order_of_rows_does_not_matter(given_pairs):
    answers, labels = zip(*given_pairs, strict=True)
    assert bleu_4(answers, labels) == pytest.approx(bleu_4(answers[::-1], labels[::-1]))


@given(st.lists(st.sampled_from('abc'), max_size=80), st.lists(st.sampled_from('abcd'), max_size=80))
def test_longest_common_subsequence(a, b):
    assert common_subsequence(a, b) == naive_lcs(a, b)


def test_tokens():
    assert tokens("I'm 12 年前，去了Beijing2。") == [
        'I',
        "'",
        'm',
        '12',
        '年',
        '前',
        '，',
        '去',
        '了',
        'Beijing2',
        '。',
    ]
    assert words('The SKY, 天空!') == ['the', 'sky', '天', '空']
    assert words('?!') == ['?', '!'], 'a text of marks alone is no empty text'
    assert tokens('e\u0301') == tokens('\u00e9')


def test_rouge_l_by_hand():
    # the example of Lin 2004: "police kill the gunman" has two of the words in order, "the gunman kill police" one pair
    assert rouge_l('police kill the gunman', 'police killed the gunman') == pytest.approx(75)
    assert rouge_l('the gunman kill police', 'police killed the gunman') == pytest.approx(50)
    assert rouge_l('我是小黄', '我是小红') == pytest.approx(75)
    assert rouge_l('', 'a') == 0


def test_bleu_by_hand():
    # the clipped counts of Papineni et al. 2002: two of seven, where a plain count gives seven of seven
    assert ngram_matches(['the'] * 7, ['the', 'cat', 'is', 'on', 'the', 'mat'])[1] == (2, 7)
    answer, label = 'the cat sat on the mat', 'the cat is on the mat'
    precisions = (5 / 6, 3 / 5, 1 / 4)
    assert bleu_4([answer], [label]) == 0, 'no four words in a row'
    smoothed = 100 * math.exp((math.log(5 / 6) + math.log(4 / 6) + math.log(2 / 5) + math.log(1 / 4)) / 4)
    assert sentence_bleu_4(answer, label) == pytest.approx(smoothed)
    long = 'a b c d e'
    pooled = [(5 + 5) / 11, (3 + 4) / 9, (1 + 3) / 7, (0 + 2) / 5]
    assert precisions[0] == 5 / 6
    assert bleu_4([answer, long], [label, long]) == pytest.approx(100 * math.exp(sum(map(math.log, pooled)) / 4))
    assert bleu_4(['a b c d'], ['a b c d e']) == pytest.approx(100 * math.exp(1 - 5 / 4)), 'short answers are punished'
    assert bleu_4(['a b c d e'], ['a b c d']) < 100, 'and words too many'
    assert bleu_4([''], ['a']) == bleu_4(['a'], ['']) == 0


def test_perplexity():
    assert perplexity(4 * math.log(0.25), 4) == pytest.approx(4)
    assert perplexity(0, 0) is None
    assert perplexity(-1e6, 1) == math.inf


@pytest.mark.parametrize(
    ('answer', 'letter'),
    [
        ('B', 'B'), ('b', 'B'), (' (C) because', 'C'), ('D. 12', 'D'), ('**B**', 'B'),
        ('A\nIt is', 'A'), ('B，因为', 'B'),
        ('The answer is B.', 'B'), ('the correct answer is: (C)', 'C'), ('答案是D', 'D'),
        ('正确答案为：B。', 'B'), ('选C', 'C'),
        ('A cat has four legs', None), ('I do not know', None), ('', None), ('E', None), ('The answer is Blue', None),
        ('Both are right', None), ('option A', 'A'), ('【B】', 'B'),
        ('The answer is a cat', None), ('the answer is a.', 'A'), ('answer: c', 'C'),
        ('Option A is wrong, so the answer is B.', 'B'), ('选项A不对，答案是C。', 'C'),
    ],
)  # fmt: skip
def test_letters(answer, letter):
    assert chosen_letter(answer, ('A', 'B', 'C', 'D')) == letter
