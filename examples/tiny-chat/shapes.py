"""Answers in a requested JSON shape: details out of a sentence, facts and sums as objects, lists."""

from __future__ import annotations

import json
from typing import Any

from arithmetic import sum_turn
from questions import RELATIONS, fact_turn, pick
from splits import Draw, Phrases, Row, chat
from vocabulary import CITIES, JOBS, THINGS, city, firm, person, word

# field → (key spellings en, key spellings zh)
KEYS = {
    'name': (('name', 'full_name', 'person', 'Name'), ('姓名', '名字', 'name')),
    'age': (('age', 'years', 'Age'), ('年龄', '岁数', 'age')),
    'city': (('city', 'town', 'location', 'home'), ('城市', '地点', 'city')),
    'job': (('job', 'work', 'occupation', 'role'), ('职业', '工作', 'job')),
    'item': (('item', 'product', 'thing'), ('商品', '物品', 'item')),
    'count': (('count', 'quantity', 'number', 'amount'), ('数量', '个数', 'count')),
    'price': (('price', 'cost', 'total'), ('价格', '总价', 'price')),
    'buyer': (('buyer', 'customer', 'client'), ('买家', '客户', 'customer')),
    'firm': (('company', 'employer', 'firm'), ('公司', '单位', 'company')),
}
# sentence with its fields
TEXTS = {
    'en': (
        ('{name} is {age} years old and lives in {city}.', ('name', 'age', 'city')),
        ('{name}, {age}, works as a {job} in {city}.', ('name', 'age', 'job', 'city')),
        ('My name is {name}, I am {age} and I live in {city}.', ('name', 'age', 'city')),
        ('{name} from {city} is a {job}.', ('name', 'city', 'job')),
        ('{name} is a {job} at {firm}.', ('name', 'job', 'firm')),
        ('{buyer} bought {count} {item}s for {price} dollars.', ('buyer', 'count', 'item', 'price')),
        ('Order of {buyer} from {city}: {count} {item}s.', ('buyer', 'city', 'count', 'item')),
        ('In {city} lives {name}, who is {age}.', ('city', 'name', 'age')),
    ),
    'zh': (
        ('{name}今年{age}岁，住在{city}。', ('name', 'age', 'city')),
        ('{name}，{age}岁，在{city}当{job}。', ('name', 'age', 'city', 'job')),
        ('我叫{name}，今年{age}岁，来自{city}。', ('name', 'age', 'city')),
        ('来自{city}的{name}是一名{job}。', ('city', 'name', 'job')),
        ('{name}在{firm}当{job}。', ('name', 'firm', 'job')),
        ('{buyer}花{price}元买了{count}个{item}。', ('buyer', 'price', 'count', 'item')),
        ('{city}的{buyer}订购了{count}个{item}。', ('city', 'buyer', 'count', 'item')),
        ('住在{city}的{name}今年{age}岁。', ('city', 'name', 'age')),
    ),
}
EXTRACT = {
    'en': Phrases(
        (
            'Extract {k} as JSON: {t}',
            'Return JSON with the keys {k} for this text: {t}',
            '{t} Give me {k} as JSON.',
            'Read the text and answer in JSON with {k}. Text: {t}',
            'JSON with {k}, please: {t}',
            '{t}\nTurn this into JSON with the keys {k}.',
            'Text: {t}\nKeys: {k}\nJSON:',
            'Make a JSON object with {k} from: {t}',
        ),
        ('Convert to JSON with the keys {k}: {t}', '{t} Answer in JSON with {k}.'),
    ),
    'zh': Phrases(
        (
            '从下面的话中提取{k}，用JSON回答：{t}',
            '{t}请用JSON给出{k}。',
            '读这段话，用JSON回答，键为{k}：{t}',
            '把这句话变成JSON，键是{k}：{t}',
            '文本：{t}\n键：{k}\nJSON：',
            '请返回包含{k}的JSON：{t}',
            '用JSON格式输出{k}：{t}',
        ),
        ('提取{k}并输出JSON：{t}', '{t}用JSON回答，键为{k}。'),
    ),
}
FACT_JSON = {
    'en': Phrases(
        (
            'Give {n} as JSON with the keys "{x}" and "{y}".',
            'What is {n}? Answer in JSON with the keys "{x}" and "{y}".',
            'JSON, keys "{x}" and "{y}": {n}',
            'Return a JSON object with "{x}" and "{y}" for {n}.',
        ),
        ('Answer in JSON with the keys "{x}" and "{y}": what is {n}?',),
    ),
    'zh': Phrases(
        (
            '用JSON给出{n}，键为“{x}”和“{y}”。',
            '{n}是什么？请用JSON回答，键为“{x}”和“{y}”。',
            '请返回JSON，键“{x}”和“{y}”：{n}',
        ),
        ('请用JSON回答，键为“{x}”和“{y}”：{n}是什么？',),
    ),
}
FACT_KEYS = {
    'capital': (('country', 'capital'), ('国家', '首都')),
    'continent': (('country', 'continent'), ('国家', '大洲')),
    'colour': (('thing', 'colour'), ('物品', '颜色')),
    'opposite': (('word', 'opposite'), ('词', '反义词')),
    'symbol': (('element', 'symbol'), ('元素', '符号')),
    'sound': (('animal', 'sound'), ('动物', '叫声')),
    'legs': (('animal', 'legs'), ('动物', '腿数')),
    'baby': (('animal', 'baby'), ('动物', '幼崽')),
}
GENERIC_KEYS = (('question', 'answer'), ('subject', 'value'), ('input', 'output'), ('key', 'result'))
WRAP = {
    'en': Phrases(
        (
            'Always reply with a JSON object with the single key "{k}".',
            'Answer in JSON: {{"{k}": "..."}}',
            'Your answers are JSON objects with the key "{k}".',
            'Reply only with JSON of the form {{"{k}": ...}}.',
            'Put every answer into JSON under the key "{k}".',
        ),
        ('Respond only with JSON that has the key "{k}".',),
    ),
    'zh': Phrases(
        (
            '总是用只有一个键“{k}”的JSON回答。',
            '用JSON回答：{{"{k}": "..."}}',
            '你的回答是带有键“{k}”的JSON对象。',
            '只回复{{"{k}": ...}}形式的JSON。',
        ),
        ('请只用带有键“{k}”的JSON回答。',),
    ),
}
WRAP_KEYS = ('answer', 'reply', 'response', 'text', 'result', 'output', 'message', 'content', 'value', 'data')
LIST = {
    'en': Phrases(
        (
            'Make a JSON list of these: {t}',
            'Write {t} as a JSON array.',
            'Turn this into a JSON list: {t}',
            'JSON array of {t}, please.',
        ),
        ('Give me a JSON array with {t}.',),
    ),
    'zh': Phrases(
        ('把这些写成JSON列表：{t}', '用JSON数组表示：{t}', '请把{t}变成JSON数组。'), ('请输出JSON数组：{t}',)
    ),
}


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def join(items: list[str], language: str) -> str:
    """'a, b and c'."""
    if len(items) == 1:
        return items[0]
    comma, last = (', ', ' and ') if language == 'en' else ('、', '和')
    return comma.join(items[:-1]) + last + items[-1]


def details(draw: Draw, language: str) -> dict[str, Any]:
    """Values for all fields of TEXTS; names, places and numbers come from the draw's side of the split."""
    zh = language == 'zh'
    return {
        'name': draw.value('person', lambda rng: person(rng, language)),
        'age': draw.value('age', lambda rng: rng.randint(5, 99)),
        'city': draw.value('city', lambda rng: city(rng, language)),
        'job': draw.one(JOBS)[zh],
        'item': draw.one(THINGS)[zh],
        'count': draw.rng.randint(2, 99),
        'price': draw.value('price', lambda rng: rng.randint(2, 999)),
        'buyer': draw.value('person', lambda rng: person(rng, language)),
        'firm': draw.value('firm', lambda rng: firm(rng, language)),
    }


def extract_row(draw: Draw, language: str) -> Row:
    text, fields = draw.one(TEXTS[language])
    values = details(draw, language)
    chosen = list(fields) if draw.chance(0.5) else draw.rng.sample(fields, draw.rng.randint(1, len(fields)))
    if draw.chance(0.3):
        draw.rng.shuffle(chosen)
    keys = [draw.one(KEYS[field][language == 'zh']) for field in chosen]
    quote = draw.one(('', '"'))
    question = draw.phrase(EXTRACT[language]).format(
        k=join([quote + key + quote for key in keys], language), t=text.format(**values)
    )
    result = {key: values[field] for key, field in zip(keys, chosen, strict=True)}
    return Row('json', language, chat(question, dump(result)), check={'json': result})


def fact_json_row(draw: Draw, language: str) -> Row:
    relation, fact = pick(draw, language)
    while relation not in FACT_KEYS:
        relation, fact = pick(draw, language)
    x, y = FACT_KEYS[relation][language == 'zh'] if draw.chance(0.7) else draw.one(GENERIC_KEYS)
    subject, key = fact[language == 'zh']
    if language == 'en':
        subject = subject.removeprefix('the ')
    noun = draw.phrase(RELATIONS[relation].nouns[language]).format(s=fact[language == 'zh'][0])
    result: dict[str, Any] = {x: subject, y: int(key) if key.isdigit() else key}
    question = draw.phrase(FACT_JSON[language]).format(n=noun, x=x, y=y)
    return Row('json', language, chat(question, dump(result)), check={'json': result})


def wrap_row(draw: Draw, language: str) -> Row:
    """The system prompt asks for every answer under one key."""
    question, reply, _ = fact_turn(draw, language) if draw.chance(0.7) else sum_turn(Draw(draw.rng), language)
    key = draw.value('key', lambda rng: rng.choice(WRAP_KEYS) if rng.random() < 0.5 else word(rng, 'en'))
    result = {key: reply}
    return Row(
        'json',
        language,
        chat(question, dump(result), system=draw.phrase(WRAP[language]).format(k=key)),
        check={'json': result},
    )


def list_row(draw: Draw, language: str) -> Row:
    kind = draw.one(('person', 'city', 'word', 'thing'))
    makers = {'person': person, 'city': city, 'word': word}
    pool = [pair[language == 'zh'] for pair in (*THINGS, *CITIES)]
    items = [
        draw.one(pool) if kind == 'thing' else draw.value(kind, lambda rng: makers[kind](rng, language))
        for _ in range(draw.rng.randint(2, 5))
    ]
    question = draw.phrase(LIST[language]).format(t=join(items, language))
    return Row('json', language, chat(question, dump(items)), check={'json': items})


def json_row(draw: Draw, language: str) -> Row:
    maker = draw.rng.choices((extract_row, fact_json_row, wrap_row, list_row), (5, 2, 3, 2))[0]
    return maker(draw, language)
