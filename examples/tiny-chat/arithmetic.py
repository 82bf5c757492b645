"""Adding and subtracting numbers below 100; 20 % of the unordered pairs are held out."""

from __future__ import annotations

import random

from splits import Draw, Phrases, Row, chat
from vocabulary import THINGS, person

LIMIT = 100
ASK = {
    ('+', 'en'): Phrases(
        (
            'What is {a} + {b}?',
            '{a} + {b}',
            '{a}+{b}',
            '{a} + {b} =',
            '{a}+{b}=?',
            'What is {a} plus {b}?',
            '{a} plus {b}',
            'Calculate {a} + {b}.',
            'Add {a} and {b}.',
            'How much is {a} + {b}?',
            'What is the sum of {a} and {b}?',
            'Compute {a} + {b}.',
            'Please add {a} and {b}.',
            'How much is {a} plus {b}?',
            'Tell me {a} + {b}.',
            "What's {a}+{b}?",
            'Can you add {a} and {b}?',
            'Solve {a} + {b}.',
            'Do you know what {a} + {b} is?',
            'I need {a} plus {b}.',
        ),
        ('Work out {a} + {b}.', 'Give me the sum of {a} and {b}.', 'What does {a} + {b} make?'),
    ),
    ('-', 'en'): Phrases(
        (
            'What is {a} - {b}?',
            '{a} - {b}',
            '{a}-{b}',
            '{a} - {b} =',
            '{a}-{b}=?',
            'What is {a} minus {b}?',
            '{a} minus {b}',
            'Calculate {a} - {b}.',
            'Subtract {b} from {a}.',
            'How much is {a} - {b}?',
            'Take {b} away from {a}.',
            'Compute {a} - {b}.',
            'Please subtract {b} from {a}.',
            'How much is {a} minus {b}?',
            'Tell me {a} - {b}.',
            "What's {a}-{b}?",
            'Can you subtract {b} from {a}?',
            'Solve {a} - {b}.',
            'Do you know what {a} - {b} is?',
            'I need {a} minus {b}.',
        ),
        ('Work out {a} - {b}.', 'Give me {a} minus {b}.', 'What does {a} - {b} make?'),
    ),
    ('+', 'zh'): Phrases(
        (
            '{a} + {b} 等于多少？',
            '{a}+{b}',
            '{a}+{b}=',
            '{a}+{b}=？',
            '{a}加{b}等于多少？',
            '{a}加{b}是多少？',
            '{a}加{b}等于几？',
            '请计算{a}+{b}。',
            '计算 {a} + {b}',
            '算一下{a}加{b}。',
            '{a}和{b}的和是多少？',
            '{a}加上{b}是多少？',
            '请问{a}加{b}得多少？',
            '帮我算{a}+{b}。',
            '你知道{a}加{b}是多少吗？',
            '{a}与{b}相加是多少？',
        ),
        ('求{a}+{b}。', '告诉我{a}加{b}是多少。', '{a}加{b}一共是多少？'),
    ),
    ('-', 'zh'): Phrases(
        (
            '{a} - {b} 等于多少？',
            '{a}-{b}',
            '{a}-{b}=',
            '{a}-{b}=？',
            '{a}减{b}等于多少？',
            '{a}减{b}是多少？',
            '{a}减{b}等于几？',
            '请计算{a}-{b}。',
            '计算 {a} - {b}',
            '算一下{a}减{b}。',
            '{a}减去{b}是多少？',
            '从{a}里减去{b}是多少？',
            '请问{a}减{b}得多少？',
            '帮我算{a}-{b}。',
            '你知道{a}减{b}是多少吗？',
            '{a}与{b}的差是多少？',
        ),
        ('求{a}-{b}。', '告诉我{a}减{b}是多少。', '{a}减掉{b}是多少？'),
    ),
}
STORIES = {
    ('+', 'en'): (
        '{p} has {a} {t}s and gets {b} more. How many {t}s does {p} have now?',
        '{p} buys {a} {t}s today and {b} {t}s tomorrow. How many {t}s is that?',
    ),
    ('-', 'en'): (
        '{p} has {a} {t}s and gives away {b}. How many {t}s are left?',
        'There are {a} {t}s. {p} takes {b} of them. How many {t}s remain?',
    ),
    ('+', 'zh'): ('{p}有{a}个{t}，又得到{b}个，现在有多少个{t}？', '{p}今天买了{a}个{t}，明天买{b}个，一共多少个{t}？'),
    ('-', 'zh'): ('{p}有{a}个{t}，送出{b}个，还剩多少个{t}？', '这里有{a}个{t}，{p}拿走{b}个，还剩多少个？'),
}


def pair(rng: random.Random) -> tuple[int, int]:
    """An unordered pair, written with its smaller number first."""
    a, b = rng.randrange(LIMIT), rng.randrange(LIMIT)
    return min(a, b), max(a, b)


def equation(a: int, b: int, sign: str) -> str:
    """'12 - 30 = -18': the operands are repeated, the result follows."""
    return f'{a} {sign} {b} = {a + b if sign == "+" else a - b}'


def operands(draw: Draw) -> tuple[int, int]:
    a, b = draw.value('sum', pair)
    return (b, a) if draw.chance(0.5) else (a, b)


def sum_turn(draw: Draw, language: str) -> tuple[str, str, str]:
    """Question, answer and the number to find in it."""
    (a, b), sign = operands(draw), draw.one('+-')
    reply = equation(a, b, sign)
    return draw.phrase(ASK[sign, language]).format(a=a, b=b), reply, reply.split('= ')[1]


def sum_row(draw: Draw, language: str) -> Row:
    question, reply, result = sum_turn(draw, language)
    return Row('arithmetic', language, chat(question, reply), check={'number': int(result)})


def story_row(draw: Draw, language: str) -> Row:
    """A one-step word problem; the answer shows the equation."""
    (a, b), sign = operands(draw), draw.one('+-')
    while min(a, b) < 2:
        a, b = operands(draw)
    if sign == '-':
        a, b = max(a, b), min(a, b)
    thing = draw.one(THINGS)[language == 'zh']
    question = draw.one(STORIES[sign, language]).format(p=person(draw.rng, language), a=a, b=b, t=thing)
    result = a + b if sign == '+' else a - b
    return Row('story', language, chat(question, equation(a, b, sign)), check={'number': result})
