"""A template spec written as the Jinja chat template that other engines read from the tokenizer."""

import json

from swiftlite.registry.templates import BOS, EOS, TODAY, TemplateSpec
from swiftlite.template import Template
from swiftlite.template.thinking import CLOSE, NONE, OPEN
from swiftlite.template.tools import FORMATS, ToolFormat

_CALL = (
    '{{%- for call in message.tool_calls %}}'
    '{{%- set f = call.function if call.function is defined else call %}}'
    '{{{{- "\\n" if said or not loop.first else "" }}}}'
    """{{{{- {start} + '\\n{{"name": "' + f.name + '", "arguments": ' }}}}"""
    '{{{{- f.arguments if f.arguments is string else f.arguments | tojson }}}}'
    '{{{{- "}}\\n" + {end} }}}}{{%- endfor %}}'
)
# as swiftlite.template.thinking: the index of the last question, and what was thought and said in a message
_LAST_QUERY = (
    '{{%- set at = namespace(query=messages | length - 1, found=false) %}}{{%- for message in messages | reverse %}}'
    '{{%- if not at.found and message.role == "user" and not (message.content is string and '
    'message.content.startswith({start}) and message.content.endswith({end})) %}}'
    '{{%- set at.found = true %}}{{%- set at.query = loop.revindex0 %}}{{%- endif %}}{{%- endfor %}}'
)
_THOUGHTS = (
    '{{%- set thought = "" %}}{{%- if message.reasoning_content is string %}}'
    '{{%- set thought = message.reasoning_content %}}{{%- elif {close} in said %}}'
    '{{%- set thought = said.split({close})[0].rstrip("\\n").split({open})[-1].lstrip("\\n") %}}'
    '{{%- set said = said.split({close})[-1].lstrip("\\n") %}}{{%- endif %}}'
)
_WRITTEN = (
    '{{%- if loop.index0 > at.query and (thought or loop.last) %}}'
    '{{{{- {open} + "\\n" + thought.strip("\\n") + "\\n" + {close} + "\\n\\n" + said.lstrip("\\n") }}}}'
    '{{%- else %}}{{{{- said }}}}{{%- endif %}}'
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
    bos, eos = template.tokenizer.bos_token or '', template.tokenizer.eos_token or ''
    trim = ' | trim' if spec.trim else ''
    tags = {'open': _text(OPEN), 'close': _text(CLOSE)}
    parts = ['{%- if messages[0].role == "system" %}{%- set system = messages[0].content %}']
    default = 'none' if template.default_system is None else _text(template.default_system)
    parts.append(f'{{%- else %}}{{%- set system = {default} %}}{{%- endif %}}')
    if tools is not None:
        parts.append(_tools_block(tools))
    if spec.prefix:
        parts.append(f'{{{{- {_text(spec.prefix.replace(BOS, bos))} }}}}')
    parts.append(_system(spec, trim))
    if spec.thinking:
        start, end = FORMATS['hermes'].result
        parts.append(_LAST_QUERY.format(start=_text(start), end=_text(end)))
    parts.append('{%- for message in messages %}')
    parts.append('{%- if message.role == "user" %}')
    asked = '(head.text + message.content)' if spec.system_in_user else 'message.content'
    parts.append(f'{{{{- {_text(spec.user[0].replace(BOS, bos))} + {asked}{trim} + {_text(spec.user[1])} }}}}')
    if spec.system_in_user:
        parts.append('{%- set head.text = "" %}')
    elif spec.system is not None:
        parts.append('{%- elif message.role == "system" and not loop.first %}')
        parts.append(f'{{{{- {_text(spec.system[0])} + message.content{trim} + {_text(spec.system[1])} }}}}')
    parts.append('{%- elif message.role == "assistant" %}')
    parts.append(f'{{%- set said = (message.content or ""){trim} %}}')
    parts.append(_THOUGHTS.format(**tags) if spec.thinking else '')
    parts.append(f'{{{{- {_text(spec.assistant_start + spec.reply_start)} }}}}')
    parts.append(_WRITTEN.format(**tags) if spec.thinking else '{{- said }}')
    if tools is not None:
        call = _CALL.format(start=_text(tools.call[0]), end=_text(tools.call[1]))
        parts.append('{%- if message.tool_calls %}' + call + '{%- endif %}')
    parts.append(f'{{{{- {_text(spec.assistant_end.replace(EOS, eos) + spec.turn_sep)} }}}}')
    if tools is not None:
        parts.append(_results(tools, spec.user))
    parts.append('{%- endif %}{%- endfor %}')
    lead = _text(template.lead)
    if spec.thinking == 'optional' and not template.lead:
        lead = f'({_text(NONE)} if enable_thinking is defined and enable_thinking is false else "")'
    parts.append(f'{{%- if add_generation_prompt %}}{{{{- {_text(spec.assistant_start)} + {lead} }}}}{{%- endif %}}')
    return ''.join(parts)


def _system(spec: TemplateSpec, trim: str) -> str:
    """The first system turn, or `head.text`: what stands before the first user's words."""
    if spec.system is None:
        return ''
    start, end = (_text(text) for text in spec.system)
    if spec.system_in_user:
        return f'{{%- set head = namespace(text={start} + system + {end} if system is not none else "") %}}'
    intro = ' + strftime_now("%d %b %Y") + '.join(_text(text) for text in spec.system_intro.split(TODAY))
    return f'{{%- if system is not none %}}{{{{- {start} + {intro} + system{trim} + {end} }}}}{{%- endif %}}'


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
    system = [{'role': 'system', 'content': 's'}]
    for messages, prompt in ((turns, True), ([*system, *turns], True), (turns[:2], False)):
        try:
            own = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        except Exception:  # a template may raise whatever it likes on what it does not support
            return False
        if own != template.render(messages, add_generation_prompt=prompt):
            return False
    return True
