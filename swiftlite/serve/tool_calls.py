"""Tool calls in a growing answer: text is passed on, a call is held back until it is complete."""

from __future__ import annotations

import uuid
from typing import Any

from swiftlite.template import Template


class ToolCallStream:
    """Splits an answer into message deltas: {'content': …} and {'tool_calls': [one complete call]}.

    Whitespace around calls is dropped; what looks like a call but cannot be parsed comes out as text at the end. With
    `parallel` off, only the first call is kept. The template must have tools.
    """

    def __init__(self, template: Template, *, parallel: bool = True) -> None:
        assert template.tool_format is not None
        self._format = template.tool_format
        self._parallel = parallel
        self._held = ''
        self._said = False
        self.calls: list[dict[str, Any]] = []

    def feed(self, text: str, final: bool) -> list[dict[str, Any]]:
        """Deltas that are certain after `text`; with `final`, all that is left."""
        self._held += text
        deltas: list[dict[str, Any]] = []
        while (start := self._format.find(self._held, not self._said)) >= 0:
            if (call := self._format.complete(self._held, start)) is None:
                break
            deltas += self._content(self._held[:start].rstrip())
            deltas += self._calls(None, call[1])
            self._held = self._held[call[0] :]
        if final:
            rest, self._held = self._held, ''
            deltas += self._calls(*self._format.parse(rest)) if start >= 0 else self._content(rest)
        elif start < 0:
            sure = self._held[: self._format.sure(self._held, not self._said)].rstrip()
            deltas += self._content(sure)
            self._held = self._held[len(sure) :]
        return deltas

    def _content(self, text: str) -> list[dict[str, Any]]:
        if not text or (self.calls and text.isspace()):
            return []
        self._said = self._said or not text.isspace()
        return [{'content': text}]

    def _calls(self, text: str | None, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        deltas = self._content(text or '')
        for call in calls:
            if self.calls and not self._parallel:
                break
            whole = {'id': f'call_{uuid.uuid4().hex[:24]}', 'type': 'function', 'function': call['function']}
            deltas.append({'tool_calls': [{'index': len(self.calls), **whole}]})
            self.calls.append(whole)
        return deltas
