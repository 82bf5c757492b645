"""The messages of Gradio's Chatbot and those of the template; a thought is a message of its own on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swiftlite.template.thinking import CLOSE, OPEN

Shown = list[dict[str, Any]]


def shown(role: str, text: str, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """A message for the Chatbot. The text stands in a part, for Gradio would dedent a plain string."""
    message: dict[str, Any] = {'role': role, 'content': [{'type': 'text', 'text': text}]}
    return message | ({'metadata': metadata} if metadata else {})


def text_of(message: dict[str, Any]) -> str:
    """The text of a message of the Chatbot."""
    content = message.get('content') or ''
    if isinstance(content, str):
        return content
    return ''.join(part.get('text') or '' for part in content if isinstance(part, dict))


def is_thought(message: dict[str, Any]) -> bool:
    return message['role'] == 'assistant' and bool((message.get('metadata') or {}).get('title'))


def split_thought(text: str) -> tuple[str | None, str, bool]:
    """(what is thought, what is said, whether the thought is over) of an answer so far; no thought: None."""
    start = text.lstrip()
    if start and start != OPEN and OPEN.startswith(start):
        return None, '', False  # half a tag
    if not start.startswith(OPEN):
        return None, text, True
    thought, mark, said = start[len(OPEN) :].partition(CLOSE)
    return thought.strip('\n'), said.lstrip('\n'), bool(mark)


def answer_messages(text: str, done: bool, title: str, title_done: str, seconds: float | None = None) -> Shown:
    """The messages that show an answer so far: its thought, folded when it is over, and what it says."""
    thought, said, over = split_thought(text)
    if done and thought is None and not said:
        said = text
    if not thought:
        return [shown('assistant', said)] if said or not done else []
    over = over or done
    metadata: dict[str, Any] = {'title': title_done if over else title, 'status': 'done' if over else 'pending'}
    if seconds is not None and over:
        metadata['duration'] = seconds
    messages = [shown('assistant', thought, metadata)]
    return [*messages, shown('assistant', said)] if said else messages


def conversation(messages: Sequence[dict[str, Any]], system: str = '') -> list[dict[str, Any]]:
    """Messages for `Template.encode`, thoughts put back before what was said. An empty `system`: the template's own."""
    found: list[dict[str, Any]] = [{'role': 'system', 'content': system}] if system.strip() else []
    thought = ''
    for message in messages:
        text = text_of(message)
        if is_thought(message):
            thought = f'{OPEN}\n{text}\n{CLOSE}\n\n'
            found.append({'role': 'assistant', 'content': thought})
        elif message['role'] == 'assistant' and thought:
            found[-1]['content'] = thought + text
            thought = ''
        else:
            found.append({'role': message['role'], 'content': text})
            thought = ''
    return found


def last_question(messages: Sequence[dict[str, Any]]) -> int | None:
    """Index of the last message of the user."""
    return next((i for i in range(len(messages) - 1, -1, -1) if messages[i]['role'] == 'user'), None)
