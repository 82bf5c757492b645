"""How the facts are asked and answered: noun phrases put into frames, and direct questions."""

from __future__ import annotations

from dataclasses import dataclass

from facts import FACTS, Fact
from splits import Draw, Phrases, Row, chat, sentence

# {n} is a noun phrase such as 'the capital of France'; {w} the Chinese question word of its relation.
FRAMES = {
    'en': Phrases(
        (
            'What is {n}?',
            'Tell me {n}.',
            'Do you know {n}?',
            'Can you tell me {n}?',
            'Could you tell me what {n} is?',
            '{n}?',
            'I want to know {n}.',
            'Please name {n}.',
            "What's {n}?",
            'Do you know what {n} is?',
            'Give me {n}.',
            'Please tell me {n}.',
            'I am looking for {n}.',
            'My question is: what is {n}?',
            'Name {n}.',
            'Any idea what {n} is?',
            'I forgot {n}. Can you help?',
            'Help me, what is {n}?',
            '{n} is what?',
            'Would you say what {n} is?',
            'What would {n} be, exactly?',
            'I would like you to name {n}.',
        ),
        (
            'I would like to know {n}.',
            'Can you name {n}?',
            'Would you tell me what {n} is?',
            'What exactly is {n}?',
            'Please, what is {n}?',
        ),
    ),
    'zh': Phrases(
        (
            '{n}是{w}？',
            '请问{n}是{w}？',
            '你知道{n}是{w}吗？',
            '告诉我{n}是{w}。',
            '我想知道{n}。',
            '{n}？',
            '说说{n}。',
            '{n}是{w}呀？',
            '能告诉我{n}吗？',
            '请告诉我{n}。',
            '我忘了{n}，你能帮我吗？',
            '我的问题是：{n}是{w}？',
            '你知道{n}吗？',
            '帮我看看{n}是{w}。',
            '{n}是{w}呢？',
            '可以说一下{n}吗？',
            '我在找{n}。',
            '请说出{n}。',
            '到底什么是{n}？',
            '麻烦问一下{n}。',
            '你能说一下{n}吗？',
            '我想问{n}是{w}。',
        ),
        (
            '你能说出{n}是{w}吗？',
            '麻烦告诉我{n}是{w}。',
            '我想问一下，{n}是{w}？',
            '{n}到底是{w}？',
            '请你告诉我{n}是{w}。',
        ),
    ),
}
OPENERS = {
    'en': (
        'Hi, ',
        'Hello! ',
        'Hey, ',
        'Quick question: ',
        'Please, ',
        'Well, ',
        'So, ',
        'Okay. ',
        'One more: ',
        'Listen, ',
    ),
    'zh': ('你好，', '嗨，', '请教一下，', '那么，', '好的。', '再问一个：', '问你，', '对了，', '您好，', '嗯，'),
}


@dataclass(frozen=True)
class Relation:
    """Per language: noun phrases, direct questions ({s} = subject) and the answer sentence ({a} = answer)."""

    nouns: dict[str, Phrases]
    direct: dict[str, Phrases]
    say: dict[str, str]
    wh: str
    follow: bool = True  # 'And Japan?' makes sense


RELATIONS = {
    'capital': Relation(
        {
            'en': Phrases(('the capital of {s}', "{s}'s capital", 'the capital city of {s}'), ("{s}'s capital city",)),
            'zh': Phrases(('{s}的首都', '{s}首都', '{s}的首都城市'), ('{s}这个国家的首都',)),
        },
        {
            'en': Phrases(
                (
                    'Which city is the capital of {s}?',
                    'What city is the capital of {s}?',
                    '{s} has which capital?',
                    'What is the name of the capital of {s}?',
                    'What capital does {s} have?',
                ),
                ('Which city serves as the capital of {s}?', 'What do you call the capital of {s}?'),
            ),
            'zh': Phrases(
                ('哪座城市是{s}的首都？', '{s}的首都叫什么？', '{s}的首都在哪里？', '{s}首都叫什么名字？'),
                ('哪个城市是{s}的首都？', '{s}的首都叫什么名字？'),
            ),
        },
        {'en': 'The capital of {s} is {a}.', 'zh': '{s}的首都是{a}。'},
        '哪里',
    ),
    'country': Relation(
        {
            'en': Phrases(
                ('the country whose capital is {s}', 'the country with the capital {s}'),
                ('the country that has {s} as its capital',),
            ),
            'zh': Phrases(('首都是{s}的国家', '以{s}为首都的国家'), ('把{s}作为首都的国家',)),
        },
        {
            'en': Phrases(
                (
                    'Which country has {s} as its capital?',
                    '{s} is the capital of which country?',
                    'Whose capital is {s}?',
                    'What country is {s} the capital of?',
                    '{s} is the capital of what?',
                ),
                ('{s} is the capital city of which country?', 'Of which country is {s} the capital?'),
            ),
            'zh': Phrases(
                ('{s}是哪个国家的首都？', '哪个国家的首都是{s}？', '{s}是谁的首都？', '{s}是什么国家的首都？'),
                ('{s}是哪国的首都？', '请问哪个国家以{s}为首都？'),
            ),
        },
        {'en': '{s} is the capital of {a}.', 'zh': '{s}是{a}的首都。'},
        '哪个',
    ),
    'continent': Relation(
        {
            'en': Phrases(('the continent of {s}', 'the continent {s} is on'), ('the continent that {s} is on',)),
            'zh': Phrases(('{s}所在的洲', '{s}所在的大洲'), ('{s}所属的大洲',)),
        },
        {
            'en': Phrases(
                (
                    'Which continent is {s} in?',
                    'On which continent is {s}?',
                    'What continent is {s} on?',
                    '{s} is on which continent?',
                    'In which part of the world is {s}?',
                    '{s} belongs to which continent?',
                ),
                ('To which continent does {s} belong?', '{s} is in which continent?'),
            ),
            'zh': Phrases(
                ('{s}在哪个洲？', '{s}属于哪个洲？', '{s}位于哪个大洲？', '{s}是哪个洲的国家？'),
                ('{s}在哪个大洲？', '{s}属于什么洲？'),
            ),
        },
        {'en': '{s} is in {a}.', 'zh': '{s}在{a}。'},
        '哪个',
    ),
    'sound': Relation(
        {
            'en': Phrases(('the sound of {s}', 'the sound {s} makes'), ('the sound that {s} makes',)),
            'zh': Phrases(('{s}的叫声', '{s}叫的声音'), ('{s}发出的叫声',)),
        },
        {
            'en': Phrases(
                (
                    'What sound does {s} make?',
                    'What does {s} say?',
                    'How does {s} sound?',
                    'Which sound does {s} make?',
                    'What sound is made by {s}?',
                    'What do you hear from {s}?',
                ),
                ('Which sound is made by {s}?', 'What sound do you hear from {s}?'),
            ),
            'zh': Phrases(
                ('{s}怎么叫？', '{s}是怎么叫的？', '{s}发出什么声音？', '{s}会怎么叫？', '{s}叫是什么声音？'),
                ('{s}叫的时候是什么声音？', '{s}是怎么叫的呢？'),
            ),
        },
        {'en': '{s} says "{a}".', 'zh': '{s}的叫声是“{a}”。'},
        '什么',
    ),
    'baby': Relation(
        {
            'en': Phrases(
                ('the baby of {s}', 'the young of {s}', 'the name for the baby of {s}'),
                ('the name of the baby of {s}',),
            ),
            'zh': Phrases(('{s}的宝宝', '{s}的幼崽', '{s}的孩子'), ('{s}的幼崽名称',)),
        },
        {
            'en': Phrases(
                (
                    'What is the baby of {s} called?',
                    'What do you call the baby of {s}?',
                    'How is the young of {s} called?',
                ),
                ('What is the young of {s} called?', 'The baby of {s} is called what?'),
            ),
            'zh': Phrases(
                ('{s}的宝宝叫什么？', '{s}的幼崽叫什么？', '怎么称呼{s}的宝宝？'),
                ('{s}的孩子叫什么？', '怎么称呼{s}的幼崽？'),
            ),
        },
        {'en': 'The baby of {s} is called a {a}.', 'zh': '{s}的宝宝叫{a}。'},
        '什么',
    ),
    'legs': Relation(
        {
            'en': Phrases(
                ('the number of legs of {s}', 'the number of legs {s} has'), ('the number of legs that {s} has',)
            ),
            'zh': Phrases(('{s}的腿数', '{s}腿的数量'), ('{s}的腿的数量',)),
        },
        {
            'en': Phrases(
                (
                    'How many legs does {s} have?',
                    '{s} has how many legs?',
                    'How many legs are there on {s}?',
                    'On how many legs does {s} walk?',
                ),
                ('How many legs has {s} got?', 'Count the legs of {s}. How many?'),
            ),
            'zh': Phrases(
                ('{s}有几条腿？', '{s}有多少条腿？', '一只{s}有几条腿？', '{s}几条腿？', '{s}总共有多少条腿？'),
                ('{s}一共有几条腿？', '一只{s}有多少条腿？'),
            ),
        },
        {'en': '{s} has {a} legs.', 'zh': '{s}有{a}条腿。'},
        '多少',
    ),
    'colour': Relation(
        {
            'en': Phrases(
                ('the colour of {s}', 'the color of {s}', 'the usual colour of {s}'), ('the typical colour of {s}',)
            ),
            'zh': Phrases(('{s}的颜色', '{s}通常的颜色'), ('{s}一般的颜色',)),
        },
        {
            'en': Phrases(
                (
                    'What colour is {s}?',
                    'What color is {s}?',
                    'Which colour is {s}?',
                    'Which color does {s} have?',
                    '{s} is what colour?',
                ),
                ('What colour does {s} have?', '{s} has which colour?'),
            ),
            'zh': Phrases(
                ('{s}是什么颜色？', '{s}什么颜色？', '{s}是什么颜色的？', '{s}是哪种颜色？'),
                ('{s}一般是什么颜色？', '{s}是哪种颜色的？'),
            ),
        },
        {'en': '{s} is {a}.', 'zh': '{s}是{a}的。'},
        '什么',
    ),
    'opposite': Relation(
        {
            'en': Phrases(
                ('the opposite of "{s}"', 'the opposite of {s}', 'the antonym of "{s}"'),
                ('the word opposite to "{s}"',),
            ),
            'zh': Phrases(('“{s}”的反义词', '{s}的反义词', '“{s}”的相反词'), ('“{s}”这个词的反义词',)),
        },
        {
            'en': Phrases(
                (
                    'Which word is the opposite of "{s}"?',
                    'What word means the opposite of "{s}"?',
                    '"{s}" is the opposite of what?',
                    'If it is not {s}, what is the opposite?',
                ),
                ('Which word means the opposite of "{s}"?', 'What is the opposite word of "{s}"?'),
            ),
            'zh': Phrases(
                ('和“{s}”相反的词是什么？', '“{s}”的反面是什么？', '哪个词和“{s}”相反？', '哪个词的意思与“{s}”相反？'),
                ('什么词和“{s}”意思相反？', '与“{s}”相反的词是什么？'),
            ),
        },
        {'en': 'The opposite of "{s}" is "{a}".', 'zh': '“{s}”的反义词是“{a}”。'},
        '什么',
    ),
    'symbol': Relation(
        {
            'en': Phrases(
                ('the symbol of {s}', 'the chemical symbol of {s}', 'the symbol for {s}'),
                ('the chemical symbol for {s}',),
            ),
            'zh': Phrases(('{s}的元素符号', '{s}的化学符号', '{s}元素的符号'), ('{s}元素的化学符号',)),
        },
        {
            'en': Phrases(
                ('Which symbol stands for {s}?', 'How do chemists write {s}?', 'What symbol does {s} have?'),
                ('Which chemical symbol does {s} have?', 'Which symbol do chemists use for {s}?'),
            ),
            'zh': Phrases(
                ('哪个符号表示{s}？', '{s}用什么符号表示？', '化学里{s}怎么写？'),
                ('化学上{s}用什么符号表示？', '哪个元素符号表示{s}？'),
            ),
        },
        {'en': 'The symbol of {s} is {a}.', 'zh': '{s}的元素符号是{a}。'},
        '什么',
    ),
    'sides': Relation(
        {
            'en': Phrases(
                ('the number of sides of {s}', 'the number of sides {s} has'), ('the number of sides that {s} has',)
            ),
            'zh': Phrases(('{s}的边数', '{s}边的数量'), ('{s}的边的数量',)),
        },
        {
            'en': Phrases(
                ('How many sides does {s} have?', '{s} has how many sides?', 'How many sides are there in {s}?'),
                ('How many sides has {s} got?', 'Count the sides of {s}. How many?'),
            ),
            'zh': Phrases(
                ('{s}有几条边？', '{s}有多少条边？', '一个{s}有几条边？'), ('{s}一共有几条边？', '{s}几条边？')
            ),
        },
        {'en': '{s} has {a} sides.', 'zh': '{s}有{a}条边。'},
        '多少',
    ),
    'next day': Relation(
        {
            'en': Phrases(
                ('the day after {s}', 'the day that follows {s}', 'the next day after {s}'), ('the day following {s}',)
            ),
            'zh': Phrases(('{s}的后一天', '{s}的第二天', '{s}之后的一天'), ('{s}后面的一天',)),
        },
        {
            'en': Phrases(
                (
                    'What day comes after {s}?',
                    'Which day follows {s}?',
                    'What day is it after {s}?',
                    'Today is {s}. What day is tomorrow?',
                ),
                ('Which day comes after {s}?', 'If today is {s}, what day is tomorrow?'),
            ),
            'zh': Phrases(
                ('{s}后面是星期几？', '{s}之后是星期几？', '今天是{s}，明天是星期几？'),
                ('{s}的下一天是星期几？', '如果今天是{s}，明天是星期几？'),
            ),
        },
        {'en': 'The day after {s} is {a}.', 'zh': '{s}的后一天是{a}。'},
        '星期几',
    ),
    'next month': Relation(
        {
            'en': Phrases(
                ('the month after {s}', 'the month that follows {s}', 'the next month after {s}'),
                ('the month following {s}',),
            ),
            'zh': Phrases(('{s}的下个月', '{s}之后的月份', '{s}的后一个月'), ('{s}后面的月份',)),
        },
        {
            'en': Phrases(
                ('What month comes after {s}?', 'Which month follows {s}?', 'What month is it after {s}?'),
                ('Which month comes after {s}?', 'If it is {s} now, what month is next?'),
            ),
            'zh': Phrases(
                ('{s}后面是几月？', '{s}之后是几月？', '{s}过完是几月？'),
                ('{s}的下一个月是几月？', '如果现在是{s}，下个月是几月？'),
            ),
        },
        {'en': 'The month after {s} is {a}.', 'zh': '{s}的下个月是{a}。'},
        '几月',
    ),
    'single': Relation(
        {'en': Phrases(('{s}',), ('{s}',)), 'zh': Phrases(('{s}',), ('{s}',))},
        {
            'en': Phrases(
                ('Which one is {s}?', 'What would you say is {s}?'), ('Which is {s}?', 'What do we call {s}?')
            ),
            'zh': Phrases(('哪个是{s}？', '{s}是哪个？'), ('什么是{s}？', '{s}是什么呢？')),
        },
        {'en': '{s} is {a}.', 'zh': '{s}是{a}。'},
        '什么',
        follow=False,
    ),
}
COUNT = sum(len(facts) for facts in FACTS.values())


def ask(draw: Draw, relation: str, fact: Fact, language: str) -> str:
    """A question for the fact."""
    subject, kind = fact[language == 'zh'][0], RELATIONS[relation]
    if draw.chance(0.5):
        text = draw.phrase(kind.direct[language]).format(s=subject)
    else:
        noun = draw.phrase(kind.nouns[language]).format(s=subject)
        text = draw.phrase(FRAMES[language]).format(n=noun, w=kind.wh)
    return dress(draw, sentence(text), language)


def dress(draw: Draw, question: str, language: str) -> str:
    """The question as people type it: sometimes with an opener, in lower case or without its last mark."""
    if draw.chance(0.2):
        question = draw.one(OPENERS[language]) + (question[0].lower() + question[1:] if draw.chance(0.6) else question)
    if language == 'en' and draw.chance(0.15):
        question = question.lower()
    if draw.chance(0.15):
        question = question.rstrip('?？.。')
    return question


def answer(relation: str, fact: Fact, language: str) -> str:
    """The full-sentence answer of the fact."""
    subject, value = fact[language == 'zh']
    return sentence(RELATIONS[relation].say[language].format(s=subject, a=value))


def pick(draw: Draw, language: str) -> tuple[str, Fact]:
    """A relation and one of its facts, every fact equally likely."""
    index = draw.rng.randrange(COUNT)
    for relation, facts in FACTS.items():
        if index < len(facts):
            return relation, facts[index]
        index -= len(facts)
    raise AssertionError('index beyond the facts')


def fact_turn(draw: Draw, language: str) -> tuple[str, str, str]:
    """Question, full answer and key of a random fact."""
    relation, fact = pick(draw, language)
    return ask(draw, relation, fact, language), answer(relation, fact, language), fact[language == 'zh'][1]


def fact_row(draw: Draw, language: str) -> Row:
    question, reply, key = fact_turn(draw, language)
    return Row('fact', language, chat(question, reply), check={'contains': [key], 'equals': reply})


FOLLOW_UPS = {
    'en': Phrases(
        ('And {s}?', 'What about {s}?', 'And what about {s}?', 'Okay, and {s}?'),
        ('Then what about {s}?', 'So, and {s}?'),
    ),
    'zh': Phrases(
        ('{s}呢？', '那{s}呢？', '还有{s}呢？', '那么{s}是什么？', '好，{s}呢？'), ('那么{s}呢？', '好的，那{s}呢？')
    ),
}


def follow_up_row(draw: Draw, language: str) -> Row:
    """Two facts of one relation, the second asked by its subject alone."""
    relation = draw.one([name for name, kind in RELATIONS.items() if kind.follow])
    first, second = draw.rng.sample(FACTS[relation], 2)
    subject, key = second[language == 'zh']
    reply = answer(relation, second, language)
    turns = (
        ask(draw, relation, first, language),
        answer(relation, first, language),
        draw.phrase(FOLLOW_UPS[language]).format(s=subject),
        reply,
    )
    return Row('follow-up', language, chat(*turns), check={'contains': [key], 'equals': reply})
