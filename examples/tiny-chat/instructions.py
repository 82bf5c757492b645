"""Following the system prompt: form, language, given words, given information."""

from __future__ import annotations

from arithmetic import sum_turn
from questions import answer, ask, fact_turn, pick
from smalltalk import exchange
from splits import Draw, Phrases, Row, chat
from talk import UNKNOWN
from vocabulary import clock, person, word

UPPER = Phrases(
    (
        'Answer only in upper case.',
        'Reply in capital letters.',
        'Write everything in upper case.',
        'You always answer in upper case letters.',
        'Use only capital letters.',
        'Please answer in capitals.',
        'You are a helpful assistant. Answer in upper case.',
        'SHOUT: every answer is in upper case.',
    ),
    ('Reply only in upper case.', 'Always use capital letters.'),
)
LOWER = Phrases(
    (
        'Answer only in lower case.',
        'Reply in small letters.',
        'Write everything in lower case.',
        'You always answer in lower case letters.',
        'Use only lower case letters.',
        'You are a helpful assistant. Answer in lower case.',
    ),
    ('Reply only in lower case.', 'Always use small letters.'),
)
SHORT = {
    'en': Phrases(
        (
            'Answer with the bare answer only.',
            'Reply with one word or number.',
            'No sentences: only the answer itself.',
            'Give only the answer.',
            'Answer as briefly as possible.',
        ),
        ('Reply only with the answer itself.',),
    ),
    'zh': Phrases(
        ('只回答答案本身。', '用一个词或数字回答。', '不要写句子，只写答案。', '只给出答案。', '请用最短的方式回答。'),
        ('只写答案本身。',),
    ),
}
TONGUE = {
    'en': Phrases(
        (
            'Always answer in English.',
            'Reply in English.',
            'You only speak English.',
            'Answer in English, please.',
            '请用英文回答。',
            '只用英语回答。',
            '无论用户说什么语言，都用英文回答。',
        ),
        ('Answer only in English.', '总是用英语回答。'),
    ),
    'zh': Phrases(
        (
            'Always answer in Chinese.',
            'Reply in Chinese.',
            'You only speak Chinese.',
            'Answer in Chinese, please.',
            '请用中文回答。',
            '只用汉语回答。',
            '无论用户说什么语言，都用中文回答。',
        ),
        ('Answer only in Chinese.', '总是用中文回答。'),
    ),
}
ONLY = {
    'en': Phrases(
        (
            'Whatever the user says, reply only with "{w}".',
            'Always answer with the word "{w}".',
            'Your only answer is "{w}".',
            'Reply "{w}" to every message.',
            'Answer every question with {w}.',
            'Say nothing but "{w}".',
            'Just reply with {w}.',
            'You can only say "{w}".',
        ),
        ('Always reply with the word "{w}".', 'Answer everything with "{w}".'),
    ),
    'zh': Phrases(
        (
            '无论用户说什么，只回答“{w}”。',
            '总是回答“{w}”。',
            '你的回答只有“{w}”。',
            '对每条消息都回复“{w}”。',
            '所有问题都回答{w}。',
            '除了“{w}”什么都不说。',
            '只回复{w}。',
            '你只会说“{w}”。',
        ),
        ('总是只回复“{w}”。', '所有消息都回答“{w}”。'),
    ),
}
ENDING = {
    'en': Phrases(
        (
            'End every answer with "{w}".',
            'Finish each reply with the word "{w}".',
            'Put "{w}" at the end of every answer.',
            'Always close with {w}.',
        ),
        ('Every reply ends with "{w}".',),
    ),
    'zh': Phrases(
        ('每个回答都以“{w}”结尾。', '回答的最后加上“{w}”。', '每次回复的结尾都写“{w}”。', '回答后面总要加{w}。'),
        ('每个回复的最后都写“{w}”。',),
    ),
}
OPENING = {
    'en': Phrases(
        (
            'Start every answer with "{w}".',
            'Begin each reply with the word "{w}".',
            'Put "{w}" in front of every answer.',
            'Always open with {w}.',
        ),
        ('Every reply starts with "{w}".',),
    ),
    'zh': Phrases(
        ('每个回答都以“{w}”开头。', '回答的最前面加上“{w}”。', '每次回复的开头都写“{w}”。', '回答前面总要加{w}。'),
        ('每个回复的最前面都写“{w}”。',),
    ),
}
NOTES = {
    'en': (
        ('wifi password', 'The {k} is {v}.', 'What is the {k}?'),
        ('room number', 'The {k} is {v}.', 'Tell me the {k}.'),
        ('opening time', 'The {k} is {v}.', 'What is the {k}?'),
        ('name of the manager', 'The {k} is {v}.', 'What is the {k}?'),
        ('secret word', 'The {k} is {v}.', 'Do you know the {k}?'),
        ('door code', 'The {k} is {v}.', 'Can you tell me the {k}?'),
        ('name of the user', 'The {k} is {v}.', 'What is my name?'),
        ('project name', 'The {k} is {v}.', 'What is the {k}?'),
        ('dish of the day', 'The {k} is {v}.', 'What is the {k}?'),
        ('meeting time', 'The {k} is {v}.', 'Tell me the {k}, please.'),
    ),
    'zh': (
        ('无线网密码', '{k}是{v}。', '{k}是什么？'),
        ('房间号', '{k}是{v}。', '告诉我{k}。'),
        ('开门时间', '{k}是{v}。', '{k}是什么？'),
        ('经理的名字', '{k}是{v}。', '{k}是什么？'),
        ('暗号', '{k}是{v}。', '你知道{k}吗？'),
        ('门锁密码', '{k}是{v}。', '能告诉我{k}吗？'),
        ('用户的名字', '{k}是{v}。', '我叫什么名字？'),
        ('项目名称', '{k}是{v}。', '{k}是什么？'),
        ('今日菜品', '{k}是{v}。', '{k}是什么？'),
        ('会议时间', '{k}是{v}。', '请告诉我{k}。'),
    ),
}


def any_turn(draw: Draw, language: str) -> tuple[str, str, str]:
    """Question, full answer and bare answer of a fact or a sum."""
    if draw.chance(0.7):
        return fact_turn(draw, language)
    return sum_turn(Draw(draw.rng), language)


def given_word(draw: Draw, language: str) -> str:
    return draw.value('word', lambda rng: word(rng, language))


def case_row(draw: Draw, language: str) -> Row:
    """English only: upper or lower case on demand."""
    upper = draw.chance(0.7)
    question, reply, _ = any_turn(draw, 'en') if draw.chance(0.85) else (*exchange(draw, 'en'), '')
    reply = reply.upper() if upper else reply.lower()
    return Row(
        'system', 'en', chat(question, reply, system=draw.phrase(UPPER if upper else LOWER)), check={'equals': reply}
    )


def short_row(draw: Draw, language: str) -> Row:
    question, _, key = fact_turn(draw, language)
    return Row('system', language, chat(question, key, system=draw.phrase(SHORT[language])), check={'equals': key})


def tongue_row(draw: Draw, language: str) -> Row:
    """The question is in one language, the answer in the one the system prompt names."""
    relation, fact = pick(draw, language)
    reply = answer(relation, fact, language)
    question = ask(draw, relation, fact, {'en': 'zh', 'zh': 'en'}[language] if draw.chance(0.8) else language)
    return Row('system', language, chat(question, reply, system=draw.phrase(TONGUE[language])), check={'equals': reply})


def only_row(draw: Draw, language: str) -> Row:
    value = given_word(draw, language)
    turns = [any_turn(draw, language)[0] if draw.chance(0.6) else exchange(draw, language)[0], value]
    if draw.chance(0.3):
        turns += [any_turn(draw, language)[0], value]
    return Row(
        'system', language, chat(*turns, system=draw.phrase(ONLY[language]).format(w=value)), check={'equals': value}
    )


def edge_row(draw: Draw, language: str) -> Row:
    """A given word before or after the ordinary answer."""
    value, (question, reply, _) = given_word(draw, language), any_turn(draw, language)
    first = draw.chance(0.5)
    system = draw.phrase((OPENING if first else ENDING)[language]).format(w=value)
    text = f'{value} {reply}' if first else f'{reply} {value}'
    return Row('system', language, chat(question, text, system=system), check={'equals': text})


def note_value(draw: Draw, language: str, kind: str) -> str:
    if kind.startswith('name') or kind.endswith('名字'):
        return draw.value('person', lambda rng: person(rng, language))
    if kind.endswith(('time', '时间')):
        return draw.value('time', clock)
    if kind.endswith(('number', 'code', 'password', '号', '密码')):
        return draw.value('number', lambda rng: str(rng.randint(10, 99999)))
    return draw.value('word', lambda rng: word(rng, language))


def note_row(draw: Draw, language: str) -> Row:
    """One to three pieces of information in the system prompt; one of them, or none, answers the question."""
    notes = draw.rng.sample(NOTES[language], draw.one((2, 2, 3, 4)))
    values = [note_value(draw, language, kind) for kind, _, _ in notes]
    told = [say.format(k=kind, v=value) for (kind, say, _), value in zip(notes, values, strict=True)]
    asked = draw.rng.randrange(len(notes))
    kind, say, question = notes[asked]
    reply, check = say.format(k=kind, v=values[asked]), {'contains': [values[asked]]}
    if draw.chance(0.12):
        told.pop(asked)
        reply, check = UNKNOWN[language], {'contains': [UNKNOWN[language]]}
    system = (' ' if language == 'en' else '').join(told)
    return Row('system', language, chat(question.format(k=kind), reply, system=system), check=check)


KINDS = ((case_row, 4), (short_row, 2), (tongue_row, 3), (only_row, 4), (edge_row, 3), (note_row, 4))


def system_row(draw: Draw, language: str) -> Row:
    makers, weights = zip(*KINDS, strict=True)
    return draw.rng.choices(makers, weights)[0](draw, language)
