"""Greetings, thanks, abilities, lists, short stories, remembered details, and what the model does not know."""

from __future__ import annotations

from questions import OPENERS, RELATIONS, ask, dress
from splits import Draw, Row, chat
from talk import (
    ABOUT_OTHERS,
    BEYOND,
    COUNTING,
    DETAILS,
    ECHO,
    EXCHANGES,
    STORIES,
    STORY_ASKS,
    UNKNOWN,
)
from vocabulary import THINGS, assistant, characters, city, digits, firm, fragment, person, syllables, word


def exchange(draw: Draw, language: str) -> tuple[str, str]:
    phrases, reply = draw.one(EXCHANGES[language])
    return draw.phrase(phrases), reply


def greeting_row(draw: Draw, language: str) -> Row:
    question, reply = exchange(draw, language)
    return Row('small talk', language, chat(question, reply), check={'equals': reply})


def story_row(draw: Draw, language: str) -> Row:
    parts = {
        'p': person(draw.rng, language),
        't': draw.one([t for t in THINGS if t[0][0] not in 'aeo'])[language == 'zh'],
        'c': city(draw.rng, language),
    }
    reply = draw.one(STORIES[language]).format(**parts)
    return Row(
        'tale',
        language,
        chat(draw.phrase(STORY_ASKS[language]).format(**parts), reply),
        check={'contains': list(parts.values())},
    )


def counting_row(draw: Draw, language: str) -> Row:
    first = draw.rng.randrange(90)
    last = min(first + draw.rng.randint(3, 12), 99)
    reply = ', '.join(str(n) for n in range(first, last + 1))
    return Row(
        'counting',
        language,
        chat(draw.phrase(COUNTING[language]).format(a=first, b=last), reply),
        check={'equals': reply},
    )


def unknown_row(draw: Draw, language: str) -> Row:
    """A question outside the closed set: off topic, or a known relation of an invented subject."""
    style = draw.rng.random()
    if style < 0.3:
        question = dress(draw, draw.phrase(BEYOND[language]), language)
    elif style < 0.6:
        parts = {
            'p': person(draw.rng, language),
            't': draw.one(THINGS)[language == 'zh'],
            'c': city(draw.rng, language),
        }
        question = dress(draw, draw.phrase(ABOUT_OTHERS[language]).format(**parts), language)
    else:
        relation = draw.one([name for name in RELATIONS if name not in ('single', 'next day', 'next month')])
        name = city(draw.rng, language) if language == 'zh' else syllables(draw.rng, draw.one((1, 2, 2, 3)))
        if language == 'en' and relation in ('capital', 'country', 'continent'):
            name = name.title()
        elif language == 'en' and relation not in ('opposite', 'symbol'):
            name = 'a ' + name
        question = ask(draw, relation, ((name, ''), (name, '')), language)
    return Row('unknown', language, chat(question, UNKNOWN[language]), check={'equals': UNKNOWN[language]})


def echo_row(draw: Draw, language: str) -> Row:
    """A text to repeat: words and parts of words, names, digits and characters in any order."""
    makers = (
        word,
        word,
        word,
        fragment,
        fragment,
        fragment,
        characters,
        characters,
        person,
        assistant,
        firm,
        city,
        digits,
    )
    pieces = [draw.one(makers)(draw.rng, language) for _ in range(draw.one((1, 1, 2, 2, 3, 4, 5, 6)))]
    if draw.chance(0.15):
        pieces = [draw.one((str.upper, str.title))(piece) for piece in pieces]
    spaced = draw.chance(0.75 if language == 'en' else 0.2)
    text = (' ' if spaced else draw.one(('', '-', '/', '. ', '"', '1')) if language == 'en' else '').join(pieces)
    return Row('echo', language, chat(draw.phrase(ECHO[language]).format(t=text), text), check={'equals': text})


def memory_row(draw: Draw, language: str) -> Row:
    """A detail told in one turn and asked for later."""
    tell, accept, question, reply, make = draw.one(DETAILS[language])
    value = draw.value('detail', lambda rng: make(rng, language))
    if draw.chance(0.2):
        tell = draw.one(OPENERS[language]) + tell
    turns = [tell.format(v=value), accept.format(v=value)]
    if draw.chance(0.5):
        turns += exchange(draw, language)
    turns += [question, reply.format(v=value)]
    return Row('memory', language, chat(*turns), check={'contains': [value]})
