"""The tool formats as parts of a Jinja chat template, one class beside each of `swiftlite.template.tools`."""

import json

from swiftlite.template.tools import FORMATS, Hermes, Llama3, Mistral

_FUNCTION = '{%- set f = call.function if call.function is defined else call %}'
_ARGUMENTS = '{{- f.arguments if f.arguments is string else f.arguments | tojson }}'


class ToolText:
    """What a format adds to the template; '' where it adds nothing. `message`, `tools`, `at` and `system` are set."""

    system = ''  # before any turn: may extend `system`
    intro = ''  # starts the first system turn
    before_user = ''
    in_user = ''
    calls = ''
    results = ''


class HermesText(ToolText):
    def __init__(self, tools: Hermes, user: tuple[str, str]) -> None:
        start, end = map(literal, tools.call)
        self.system = (
            f'{{%- if tools %}}{{%- set block = namespace(text={literal(tools.before_tools)}) %}}'
            '{%- for tool in tools %}{%- set block.text = block.text + "\\n" + (tool | tojson) %}{%- endfor %}'
            f'{{%- set block.text = block.text + {literal(tools.after_tools)} %}}'
            '{%- set system = (system + "\\n\\n" if system is not none else "") + block.text %}{%- endif %}'
        )
        self.calls = (
            '{%- for call in message.tool_calls %}' + _FUNCTION + '{{- "\\n" if said or not loop.first else "" }}'
            f"""{{{{- {start} + '\\n{{"name": "' + f.name + '", "arguments": ' }}}}"""
            + _ARGUMENTS
            + f'{{{{- "}}\\n" + {end} }}}}{{%- endfor %}}'
        )
        told, done = map(literal, tools.result)
        self.results = (
            f'{{%- if loop.first or messages[loop.index0 - 1].role != "tool" %}}{{{{- {literal(user[0])} }}}}'
            '{%- else %}{{- "\\n" }}{%- endif %}'
            f'{{{{- {told} + "\\n" + message.content + "\\n" + {done} }}}}'
            f'{{%- if loop.last or messages[loop.index0 + 1].role != "tool" %}}{{{{- {literal(user[1])} }}}}'
            '{%- endif %}'
        )


class Llama3Text(ToolText):
    def __init__(self, tools: Llama3) -> None:
        self.intro = f'{{%- if tools %}}{{{{- {literal(tools.intro())} }}}}{{%- endif %}}'
        self.in_user = (
            f'{{%- if tools and loop.index0 == at.first %}}{{{{- {literal(tools.before_tools)} }}}}'
            '{%- for tool in tools %}{{- (tool | tojson(indent=4)) + "\\n\\n" }}{%- endfor %}{%- endif %}'
        )
        self.calls = (
            '{%- if message.tool_calls | length > 1 %}{{- raise_exception("one tool call in a turn") }}{%- endif %}'
            '{%- for call in message.tool_calls %}'
            + _FUNCTION
            + """{{- '{"name": "' + f.name + '", "parameters": ' }}"""
            + _ARGUMENTS
            + '{{- "}" }}{%- endfor %}'
        )
        start, end = map(literal, tools.result)
        self.results = f'{{{{- {start} + (message.content | tojson) + {end} }}}}'


class MistralText(ToolText):
    def __init__(self, tools: Mistral) -> None:
        space = tools.space
        self.before_user = (
            '{%- if tools and message.content == messages[at.last].content %}'
            + f'{{{{- {literal(f"[AVAILABLE_TOOLS]{space}[")} }}}}'
            + '{%- for tool in tools %}{%- set f = tool.function if tool.function is defined else tool %}'
            + """{{- '{"type": "function", "function": {' }}"""
            + '{%- for key, value in f.items() if key != "return" %}'
            + """{{- '"' + key + '": ' + ('"' + value + '"' if value is string else value | tojson) }}"""
            + '{{- "" if loop.last else ", " }}{%- endfor %}{{- "}}" if loop.last else "}}, " }}{%- endfor %}'
            + '{{- "][/AVAILABLE_TOOLS]" }}{%- endif %}'
        )
        self.calls = (
            '{%- set at.made = [] %}{%- set at.taken = 0 %}{%- set turn = loop.index0 %}'
            + f'{{{{- {literal(tools.call[0] + space + "[")} }}}}'
            + '{%- for call in message.tool_calls %}'
            + _FUNCTION
            + '{%- set at.id = call.id or "%05d%04d" | format(turn, loop.index0) %}'
            + '{%- set at.made = at.made + [at.id] %}'
            + """{{- '{"name": ' + (f.name | tojson) + ', "arguments": ' }}"""
            + _ARGUMENTS
            + """{{- ', "id": "' }}"""
            + _SHORT
            + """{{- '"}' if loop.last else '"}, ' }}{%- endfor %}{{- "]" }}"""
        )
        self.results = (
            '{%- set at.id = message.tool_call_id or (at.made[at.taken] if at.taken < at.made | length '
            'else "%09d" | format(loop.index0)) %}{%- set at.taken = at.taken + 1 %}'
            f"""{{{{- '[TOOL_RESULTS]{space}{{"content": ' + message.content + ', "call_id": "' }}}}"""
            + _SHORT
            + """{{- '"}[/TOOL_RESULTS]' }}"""
        )


# as swiftlite.template.tools.short_id
_SHORT = (
    '{%- set at.short = "000000000" %}{%- for c in at.id %}{%- if c.isascii() and c.isalnum() %}'
    '{%- set at.short = at.short + c %}{%- endif %}{%- endfor %}{{- at.short[-9:] }}'
)


def tool_text(name: str | None, user: tuple[str, str]) -> ToolText:
    """The parts of the format called `name`; `user` is the text around a user's turn."""
    match FORMATS.get(name or ''):
        case Hermes() as tools:
            return HermesText(tools, user)
        case Llama3() as tools:
            return Llama3Text(tools)
        case Mistral() as tools:
            return MistralText(tools)
        case _:
            return ToolText()


def literal(value: str) -> str:
    """A Jinja string literal."""
    return json.dumps(value, ensure_ascii=False)
