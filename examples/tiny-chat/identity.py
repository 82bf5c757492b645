"""Who the model is: its own name and maker, or the ones that the system prompt gives it."""

from __future__ import annotations

import json
from pathlib import Path

from splits import Draw, Phrases, Row, chat
from vocabulary import assistant, firm

NAME, AUTHOR = 'tiny-chat', 'swiftlite'
DATASET = Path(__file__).resolve().parents[2] / 'swiftlite' / 'assets' / 'self-cognition.jsonl'

# Phrasings that appear nowhere in training, with what the answer must hold.
HELD = {
    'en': (
        ('Who exactly are you?', 'NAME'),
        ('Tell me who you are.', 'NAME'),
        ('Could you introduce yourself?', 'NAME'),
        ('Please tell me your name.', 'NAME'),
        ('What are you called?', 'NAME'),
        ('May I know your name?', 'NAME'),
        ('Hello! Who are you?', 'NAME'),
        ('What is the name of this assistant?', 'NAME'),
        ('So who are you?', 'NAME'),
        ('Do you know your name?', 'NAME'),
        ('Can you tell me your name?', 'NAME'),
        ('What name do you have?', 'NAME'),
        ('Which company created you?', 'AUTHOR'),
        ('Who is your maker?', 'AUTHOR'),
        ('Tell me who created you.', 'AUTHOR'),
        ('Can you tell me who made you?', 'AUTHOR'),
        ('Which team trained you?', 'AUTHOR'),
        ('Who has developed you?', 'AUTHOR'),
        ('Do you know who made you?', 'AUTHOR'),
        ('Please tell me who developed you.', 'AUTHOR'),
        ('Who are you and who made you?', 'BOTH'),
        ('What is your name and who created you?', 'BOTH'),
        ('Are you Claude?', 'NAME'),
        ('Are you human?', 'NAME'),
    ),
    'zh': (
        ('请问您是谁？', 'NAME'),
        ('你究竟是谁？', 'NAME'),
        ('你是谁呀？', 'NAME'),
        ('告诉我你是谁。', 'NAME'),
        ('请做个自我介绍。', 'NAME'),
        ('能介绍一下你自己吗？', 'NAME'),
        ('你的名字叫什么？', 'NAME'),
        ('请问你叫什么名字？', 'NAME'),
        ('我应该怎么称呼你？', 'NAME'),
        ('可以告诉我你的名字吗？', 'NAME'),
        ('您好，您是谁？', 'NAME'),
        ('你知道自己叫什么吗？', 'NAME'),
        ('请问是谁开发了你？', 'AUTHOR'),
        ('你是由谁开发的？', 'AUTHOR'),
        ('哪家公司开发了你？', 'AUTHOR'),
        ('告诉我谁训练了你。', 'AUTHOR'),
        ('你的开发者叫什么？', 'AUTHOR'),
        ('你知道是谁训练了你吗？', 'AUTHOR'),
        ('哪个团队训练了你？', 'AUTHOR'),
        ('你是哪个团队开发的？', 'AUTHOR'),
        ('你叫什么，谁开发了你？', 'BOTH'),
        ('你是谁，是谁训练了你？', 'BOTH'),
        ('你是豆包吗？', 'NAME'),
        ('你是人类吗？', 'NAME'),
    ),
}
NEUTRAL_SYSTEMS = {
    'en': (
        'You are a helpful assistant.',
        'You are a friendly assistant.',
        'Answer the user.',
        'Be helpful and brief.',
        'You are an AI assistant. Help the user.',
        'Answer politely and correctly.',
    ),
    'zh': (
        '你是一个有用的助手。',
        '你是一个友好的人工智能助手。',
        '请回答用户的问题。',
        '请简短地回答。',
        '你是智能助手，请帮助用户。',
    ),
}
PERSONA_SYSTEMS = {
    'en': Phrases(
        (
            'You are {n}, an assistant made by {m}.',
            'You are {n}, created by {m}.',
            'Your name is {n}. You were made by {m}.',
            'Your name is {n} and your maker is {m}.',
            'You are {n}, an AI assistant developed by {m}. Be helpful.',
            '{m} trained you. Your name is {n}.',
            'Act as {n}, an AI assistant from {m}.',
            'You are called {n}. {m} built you.',
            'Name: {n}. Maker: {m}.',
            'You are a helpful assistant named {n}, developed by {m}.',
        ),
        ('You are {n}, a chatbot built by {m}.', 'Your name is {n}. {m} created you.'),
    ),
    'zh': Phrases(
        (
            '你是{n}，由{m}开发的助手。',
            '你是{n}，由{m}训练的人工智能助手。',
            '你的名字是{n}，你的开发者是{m}。',
            '你叫{n}，是{m}创造的。',
            '你叫{n}，由{m}开发。请帮助用户。',
            '{m}训练了你，你的名字叫{n}。',
            '请扮演{n}，一个来自{m}的助手。',
            '名字：{n}。开发者：{m}。',
        ),
        ('你是{n}，{m}制作的聊天机器人。', '你叫{n}，{m}开发了你。'),
    ),
}


# Questions about a name, {n}, that may or may not be the model's: (question, answer if not, answer if so)
ABOUT_NAMES = {
    'en': (
        ('Are you {n}?', 'No, I am {{NAME}}, made by {{AUTHOR}}.', 'Yes, I am {{NAME}}, made by {{AUTHOR}}.'),
        ('Is your name {n}?', 'No, my name is {{NAME}}.', 'Yes, my name is {{NAME}}.'),
        ('You are {n}, right?', 'No, I am {{NAME}}, made by {{AUTHOR}}.', 'Yes, I am {{NAME}}, made by {{AUTHOR}}.'),
        ('Are you called {n}?', 'No, I am called {{NAME}}.', 'Yes, I am called {{NAME}}.'),
    ),
    'zh': (
        ('你是{n}吗？', '不是，我是{{NAME}}，由{{AUTHOR}}开发。', '是的，我是{{NAME}}，由{{AUTHOR}}开发。'),
        ('你叫{n}吗？', '不是，我叫{{NAME}}。', '是的，我叫{{NAME}}。'),
        ('你的名字是{n}吗？', '不是，我的名字是{{NAME}}。', '是的，我的名字是{{NAME}}。'),
        ('你就是{n}吧？', '不是，我是{{NAME}}，由{{AUTHOR}}开发。', '是的，我是{{NAME}}，由{{AUTHOR}}开发。'),
    ),
}


def read_turns() -> dict[str, list[tuple[str, str]]]:
    """The question and answer patterns of the self-cognition data set, by language."""
    turns: dict[str, list[tuple[str, str]]] = {'en': [], 'zh': []}
    for line in DATASET.read_text(encoding='utf-8').splitlines():
        row = json.loads(line)
        turns[row['language']].append((row['query'], row['response']))
    return turns


TURNS = read_turns()


def fill(pattern: str, name: str, author: str) -> str:
    return pattern.replace('{{NAME}}', name).replace('{{AUTHOR}}', author)


def expected(pattern: str, name: str, author: str) -> list[str]:
    """What an answer to the pattern has to contain."""
    return [value for mark, value in (('{{NAME}}', name), ('{{AUTHOR}}', author)) if mark in pattern]


def turn(draw: Draw, language: str, name: str = NAME, author: str = AUTHOR) -> tuple[str, str, list[str]]:
    """Question, answer and its keys; held-out phrasings have no reference answer."""
    if draw.held == 'phrases':
        question, which = draw.one(HELD[language])
        keys = {'NAME': [name], 'AUTHOR': [author], 'BOTH': [name, author]}[which]
        return question, '', keys
    if draw.chance(0.2):
        question, no, yes = draw.one(ABOUT_NAMES[language])
        same = draw.chance(0.3)
        question, pattern = question.format(n=name if same else assistant(draw.rng, language)), yes if same else no
        return question, fill(pattern, name, author), expected(pattern, name, author)
    question, pattern = draw.one(TURNS[language])
    if draw.chance(0.1):
        question = question.lower() if draw.chance(0.5) else question.rstrip('?？.。')
    return question, fill(pattern, name, author), expected(pattern, name, author)


def neutral_system(draw: Draw, language: str) -> str | None:
    """Mostly none, otherwise one that names nobody."""
    return draw.one(NEUTRAL_SYSTEMS[language]) if draw.chance(0.25) else None


def identity_row(draw: Draw, language: str) -> Row:
    question, reply, keys = turn(draw, language)
    return Row(
        'identity', language, chat(question, reply, system=neutral_system(draw, language)), check={'contains': keys}
    )


def persona_row(draw: Draw, language: str) -> Row:
    """The system prompt gives name and maker; both are invented."""
    name = draw.value('assistant', lambda rng: assistant(rng, language))
    maker = draw.value('firm', lambda rng: firm(rng, language))
    other = draw.one(('en', 'zh')) if draw.chance(0.15) else language
    system = draw.phrase(PERSONA_SYSTEMS[other]).format(n=name, m=maker)
    turns: list[str] = []
    for _ in range(draw.one((1, 1, 2))):
        question, reply, keys = turn(draw, language, name, maker)
        turns += [question, reply]
    return Row('persona', language, chat(*turns, system=system), check={'contains': keys})
