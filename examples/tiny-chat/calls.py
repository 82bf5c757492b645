"""Hermes-style tool calls: offered functions, the call, the result and the answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from functions import FUNCTIONS, Function, make
from identity import turn as identity_turn
from instructions import any_turn
from smalltalk import exchange
from splits import Draw, Row
from talk import UNKNOWN


@dataclass(frozen=True)
class Offer:
    """A function as offered in one conversation, with the names drawn for it."""

    function: Function
    name: str
    keys: tuple[str, ...]
    schema: dict[str, Any]


def offer(draw: Draw, function: Function) -> Offer:
    name, keys = draw.one(function.names), tuple(draw.one(param.names) for param in function.params)
    properties = {
        key: {'type': param.type, 'description': param.about} if draw.chance(0.8) else {'type': param.type}
        for key, param in zip(keys, function.params, strict=True)
    }
    parameters = {'type': 'object', 'properties': properties, 'required': list(keys)}
    schema = {
        'type': 'function',
        'function': {'name': name, 'description': draw.one(function.about), 'parameters': parameters},
    }
    return Offer(function, name, keys, schema)


def offers(draw: Draw, count: int) -> list[Offer]:
    """Different functions under different names."""
    chosen = [offer(draw, function) for function in draw.rng.sample(FUNCTIONS, count)]
    return chosen if len({one.name for one in chosen}) == count else offers(draw, count)


def call(one: Offer, values: list[Any]) -> dict[str, Any]:
    return {'type': 'function', 'function': {'name': one.name, 'arguments': dict(zip(one.keys, values, strict=True))}}


def respond(draw: Draw, function: Function, language: str) -> tuple[Any, str]:
    """A result value of the function and the tool message that carries it."""
    key, kind = function.result
    value = kind[1:] if kind.startswith('=') else make(draw, kind, language)
    content = json.dumps({key: value}, ensure_ascii=False)
    return value, content if draw.chance(0.85) else str(value)


def call_row(draw: Draw, language: str) -> Row:
    """A request that an offered function serves: the calls and, in some rows, the answer after their results."""
    available = offers(draw, draw.one((1, 1, 2, 2, 3)))
    one = draw.one(available)
    function = one.function
    request = draw.one(function.asks[language])
    values = [
        [make(draw, param.kind, language) for param in function.params] for _ in range(2 if draw.chance(0.1) else 1)
    ]
    joiner = ' ' if language == 'en' else ''
    question = joiner.join(request.format(*each) for each in values)
    calls = [call(one, each) for each in values]
    messages: list[dict[str, Any]] = [
        {'role': 'user', 'content': question},
        {'role': 'assistant', 'content': '', 'tool_calls': calls},
    ]
    check: dict[str, Any] = {'calls': [each['function'] for each in calls]}
    task = 'tool call'
    if draw.chance(0.4):
        task, replies, results = 'tool answer', [], []
        for each in values:
            result, content = respond(draw, function, language)
            messages.append({'role': 'tool', 'content': content})
            replies.append(function.says[language].format(*each, r=result))
            results.append(str(result))
        messages.append({'role': 'assistant', 'content': joiner.join(replies)})
        check = {'equals': joiner.join(replies)}
    return Row(task, language, messages, [each.schema for each in available], check)


def bystander_row(draw: Draw, language: str) -> Row:
    """Functions are offered but the question does not need them, or needs one that is not there."""
    available = offers(draw, draw.one((1, 2, 3)))
    style = draw.rng.random()
    if style < 0.45:
        question, reply, _ = any_turn(draw, language)
    elif style < 0.6:
        question, reply, _ = identity_turn(Draw(draw.rng), language)
    elif style < 0.75:
        question, reply = exchange(draw, language)
    else:
        absent = draw.one([f for f in FUNCTIONS if f not in [one.function for one in available]])
        question = draw.one(absent.asks[language]).format(
            *(make(draw, param.kind, language) for param in absent.params)
        )
        reply = UNKNOWN[language]
    messages = [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': reply}]
    return Row('no tool', language, messages, [one.schema for one in available], {'equals': reply})
