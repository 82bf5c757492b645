"""Tool calls in a growing answer: text is passed on, a call is held back until it is complete."""

from __future__ import annotations

import uuid
from typing import Any

from swiftlite.engine.detokenizer import overlap
from swiftlite.template import Template
from swiftlite.template.tools import FORMATS


class ToolCallStream:
    """Splits an answer into message deltas: {'content': …} and {'tool_calls': [one complete call]}.

    Whitespace around calls is dropped; what looks like a call but cannot be parsed comes out as text at the end. With
    `parallel` off, only the first call is kept. The template must have tools.
    """

    def __init__(self, template: Template, *, parallel: bool = True) -> None:
        assert template.spec.tools is not None
        self._open, self._close = FORMATS[template.spec.tools].call
        self._parse = template.parse_tool_calls
        self._parallel = parallel
        self._held = ''
        self._searched = 0  # no end marker before this place completes the held call
        self.calls: list[dict[str, Any]] = []

    def feed(self, text: str, final: bool) -> list[dict[str, Any]]:
        """Deltas that are certain after `text`; with `final`, all that is left."""
        self._held += text
        deltas: list[dict[str, Any]] = []
        while (start := self._held.find(self._open)) >= 0 and (call := self._complete_call(start)):
            stop, parsed = call
            deltas += self._content(self._held[:start].rstrip())
            deltas += self._calls(parsed)
            self._held, self._searched = self._held[stop:], 0
        if final:
            rest, self._held = self._held, ''
            deltas += self._calls(self._parse(rest)) if self._open in rest else self._content(rest)
        elif start < 0:
            sure = self._held[: len(self._held) - overlap(self._held, self._open)].rstrip()
            deltas += self._content(sure)
            self._held = self._held[len(sure) :]
        return deltas

    def _complete_call(self, start: int) -> tuple[int, tuple[str | None, list[dict[str, Any]]]] | None:
        """End and content of the call that begins at `start`: an end marker may also stand inside its arguments."""
        stop = max(start, self._searched)
        while (stop := self._held.find(self._close, stop)) >= 0:
            stop += len(self._close)
            parsed = self._parse(self._held[start:stop])
            if parsed[1]:
                return stop, parsed
            self._searched = stop
        return None

    def _content(self, text: str) -> list[dict[str, Any]]:
        return [{'content': text}] if text and not (self.calls and text.isspace()) else []

    def _calls(self, parsed: tuple[str | None, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        text, calls = parsed
        deltas = self._content(text or '')
        for call in calls:
            if self.calls and not self._parallel:
                break
            whole = {'id': f'call_{uuid.uuid4().hex[:24]}', 'type': 'function', 'function': call['function']}
            deltas.append({'tool_calls': [{'index': len(self.calls), **whole}]})
            self.calls.append(whole)
        return deltas
