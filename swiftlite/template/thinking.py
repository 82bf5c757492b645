"""How Qwen3's templates treat what a model thinks before it answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from swiftlite.template.tools import Hermes

OPEN, CLOSE = '<think>', '</think>'
NONE = f'{OPEN}\n\n{CLOSE}\n\n'  # what stands before an answer without thinking


def thoughts(message: Mapping[str, Any], content: str) -> tuple[str, str]:
    """(what was thought, what was said) in an assistant's message: a `reasoning_content`, or tags in its content."""
    if isinstance(message.get('reasoning_content'), str):
        return message['reasoning_content'], content
    if CLOSE not in content:
        return '', content
    before, after = content.split(CLOSE)[0], content.split(CLOSE)[-1]
    return before.rstrip('\n').split(OPEN)[-1].lstrip('\n'), after.lstrip('\n')


def written(thought: str, said: str) -> str:
    """An answer with its thinking, as the model writes it."""
    return f'{OPEN}\n' + thought.strip('\n') + f'\n{CLOSE}\n\n' + said.lstrip('\n')


def last_query(messages: Sequence[Mapping[str, Any]]) -> int:
    """Index of the last question of a user: thinking before it is forgotten. Tool results are no question."""
    start, end = Hermes.result
    for index in range(len(messages) - 1, -1, -1):
        text = messages[index].get('content')
        if messages[index]['role'] == 'user' and not (
            isinstance(text, str) and text.startswith(start) and text.endswith(end)
        ):
            return index
    return len(messages) - 1
