"""A template spec written as the Jinja chat template that other engines read from the tokenizer."""

import json

from swiftlite.registry.templates import EOS
from swiftlite.template import Template
from swiftlite.template.tools import FORMATS, ToolFormat

_CALL = (
    '{{%- for call in message.tool_calls %}}'
    '{{%- set f = call.function if call.function is defined else call %}}'
    '{{{{- "\\n" if message.content or not loop.first else "" }}}}'
    """{{{{- {start} + '\\n{{"name": "' + f.name + '", "arguments": ' }}}}"""
    '{{{{- f.arguments if f.arguments is string else f.arguments | tojson }}}}'
    '{{{{- "}}\\n" + {end} }}}}{{%- endfor %}}'
)


def chat_template(template: Template) -> str | None:
    """The Jinja text that renders as `template` does, None if the tokenizer's own already does."""
    if _renders_alike(template):
        return None
    return jinja(template)


def jinja(template: Template) -> str:
    """The Jinja chat template of a spec: system (given or default), tools, user, assistant and tool turns."""
    spec = template.spec
    tools = FORMATS[spec.tools] if spec.tools else None
    end = template.tokenizer.eos_token if spec.assistant_end == EOS else spec.assistant_end
    parts = ['{%- if messages[0].role == "system" %}{%- set system = messages[0].content %}']
    default = 'none' if template.default_system is None else _text(template.default_system)
    parts.append(f'{{%- else %}}{{%- set system = {default} %}}{{%- endif %}}')
    if tools is not None:
        parts.append(_tools_block(tools))
    if spec.system is not None:
        shown = f'{{{{- {_text(spec.system[0])} + system + {_text(spec.system[1])} }}}}'
        parts.append('{%- if system is not none %}' + shown + '{%- endif %}')
    parts.append('{%- for message in messages %}')
    parts.append('{%- if message.role == "user" %}')
    parts.append(f'{{{{- {_text(spec.user[0])} + message.content + {_text(spec.user[1])} }}}}')
    if spec.system is not None:
        parts.append('{%- elif message.role == "system" and not loop.first %}')
        parts.append(f'{{{{- {_text(spec.system[0])} + message.content + {_text(spec.system[1])} }}}}')
    parts.append('{%- elif message.role == "assistant" %}')
    parts.append(f'{{{{- {_text(spec.assistant_start)} + (message.content or "") }}}}')
    if tools is not None:
        call = _CALL.format(start=_text(tools.call[0]), end=_text(tools.call[1]))
        parts.append('{%- if message.tool_calls %}' + call + '{%- endif %}')
    parts.append(f'{{{{- {_text(end + spec.turn_sep)} }}}}')
    if tools is not None:
        parts.append(_results(tools, spec.user))
    parts.append('{%- endif %}{%- endfor %}')
    parts.append(f'{{%- if add_generation_prompt %}}{{{{- {_text(spec.assistant_start)} }}}}{{%- endif %}}')
    return ''.join(parts)


def _tools_block(tools: ToolFormat) -> str:
    return (
        f'{{%- if tools %}}{{%- set block = namespace(text={_text(tools.before_tools)}) %}}'
        '{%- for tool in tools %}{%- set block.text = block.text + "\\n" + (tool | tojson) %}{%- endfor %}'
        f'{{%- set block.text = block.text + {_text(tools.after_tools)} %}}'
        '{%- set system = (system + "\\n\\n" if system is not none else "") + block.text %}{%- endif %}'
    )


def _results(tools: ToolFormat, user: tuple[str, str]) -> str:
    """Neighbouring tool results share one user turn."""
    return (
        '{%- elif message.role == "tool" %}'
        f'{{%- if loop.first or messages[loop.index0 - 1].role != "tool" %}}{{{{- {_text(user[0])} }}}}'
        '{%- else %}{{- "\\n" }}{%- endif %}'
        f'{{{{- {_text(tools.result[0])} + "\\n" + message.content + "\\n" + {_text(tools.result[1])} }}}}'
        f'{{%- if loop.last or messages[loop.index0 + 1].role != "tool" %}}{{{{- {_text(user[1])} }}}}{{%- endif %}}'
    )


def _text(value: str) -> str:
    """A Jinja string literal."""
    return json.dumps(value, ensure_ascii=False)


def _renders_alike(template: Template) -> bool:
    tokenizer = template.tokenizer
    if not getattr(tokenizer, 'chat_template', None):
        return False
    turns = [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}, {'role': 'user', 'content': 'c'}]
    for messages in (turns, [{'role': 'system', 'content': 's'}, *turns]):
        try:
            own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception:  # a template may raise whatever it likes on what it does not support
            return False
        if own != template.render(messages):
            return False
    return True
