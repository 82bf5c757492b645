"""A template written as the Jinja chat template that other engines read from the tokenizer."""

from typing import Any

from swiftlite.registry.templates import BOS, EOS, TODAY, TemplateSpec
from swiftlite.template.jinja import JinjaTemplate
from swiftlite.template.template import Template
from swiftlite.template.thinking import CLOSE, NONE, OPEN
from swiftlite.template.tools import FORMATS, Hermes
from swiftlite.template.writer_tools import ToolText, literal, tool_text

# as swiftlite.template.thinking: the index of the last question, and what was thought and said in a message
_LAST_QUERY = (
    '{{%- set asked = namespace(query=messages | length - 1, found=false) %}}{{%- for message in messages | reverse %}}'
    '{{%- if not asked.found and message.role == "user" and not (message.content is string and '
    'message.content.startswith({start}) and message.content.endswith({end})) %}}'
    '{{%- set asked.found = true %}}{{%- set asked.query = loop.revindex0 %}}{{%- endif %}}{{%- endfor %}}'
)
_THOUGHTS = (
    '{{%- set thought = "" %}}{{%- if message.reasoning_content is string %}}'
    '{{%- set thought = message.reasoning_content %}}{{%- elif {close} in said %}}'
    '{{%- set thought = said.split({close})[0].rstrip("\\n").split({open})[-1].lstrip("\\n") %}}'
    '{{%- set said = said.split({close})[-1].lstrip("\\n") %}}{{%- endif %}}'
)
_WRITTEN = (
    '{{%- if loop.index0 > asked.query and (thought or loop.last) %}}'
    '{{{{- {open} + "\\n" + thought.strip("\\n") + "\\n" + {close} + "\\n\\n" + said.lstrip("\\n") }}}}'
    '{{%- else %}}{{{{- said }}}}{{%- endif %}}'
)
_PLACES = (
    '{%- set at = namespace(first=-1, last=-1, made=[], taken=0, id="", short="") %}'
    '{%- for message in messages %}{%- if message.role == "user" %}{%- set at.last = loop.index0 %}'
    '{%- if at.first < 0 %}{%- set at.first = loop.index0 %}{%- endif %}{%- endif %}{%- endfor %}'
)


def chat_template(template: Template) -> str | None:
    """The Jinja text that renders as `template` does, None if the tokenizer's own already does.

    Where only the default system prompt or the default of thinking differs, the tokenizer's own with that default.
    """
    own = getattr(template.tokenizer, 'chat_template', None)
    if isinstance(template, JinjaTemplate):
        text = template.text or own
        return None if not isinstance(text, str) or (text := _defaults(template) + text) == own else text
    if own is not None and renders_alike(template, None):
        return None
    if isinstance(own, str) and renders_alike(template, given := _defaults(template) + own):
        return given
    return jinja(template)


def _defaults(template: Template) -> str:
    """What stands before a chat template to change its defaults."""
    text = ''
    if template.default_system:
        text += (
            '{%- if not messages or messages[0].role != "system" %}'
            f'{{%- set messages = [{{"role": "system", "content": {literal(template.default_system)}}}] + messages %}}'
            '{%- endif %}'
        )
    if template.enable_thinking is not None:
        switch = 'true' if template.enable_thinking else 'false'
        text += f'{{%- if enable_thinking is not defined %}}{{%- set enable_thinking = {switch} %}}{{%- endif %}}'
    return text


def jinja(template: Template) -> str:
    """The Jinja chat template of a spec: system (given or default), tools, user, assistant and tool turns."""
    spec = template.spec
    bos, eos = template.tokenizer.bos_token or '', template.tokenizer.eos_token or ''
    user = spec.user[0].replace(BOS, bos), spec.user[1]
    tools = tool_text(spec.tools, user)
    tags = {'open': literal(OPEN), 'close': literal(CLOSE)}
    parts = ['{%- if messages[0].role == "system" %}{%- set system = messages[0].content %}']
    default = 'none' if template.default_system is None else literal(template.default_system)
    parts += [f'{{%- else %}}{{%- set system = {default} %}}{{%- endif %}}', tools.system, _PLACES]
    if spec.prefix:
        parts.append(f'{{{{- {literal(spec.prefix.replace(BOS, bos))} }}}}')
    parts.append(_system(spec, tools))
    if spec.thinking:
        parts.append(_LAST_QUERY.format(start=literal(Hermes.result[0]), end=literal(Hermes.result[1])))
    parts.append('{%- for message in messages %}')
    parts.append('{%- if message.role == "user" %}' + _user(spec, user, tools))
    if spec.system is not None and not spec.system_in_user and not spec.system_first:
        said = f'message.content{_trim(spec, "system")}'
        parts.append('{%- elif message.role == "system" and not loop.first %}')
        parts.append(f'{{{{- {literal(spec.system[0])} + {said} + {literal(spec.system[1])} }}}}')
    parts.append('{%- elif message.role == "assistant" %}')
    parts.append(f'{{%- set said = (message.content or ""){_trim(spec, "assistant")} %}}')
    parts.append(_THOUGHTS.format(**tags) if spec.thinking else '')
    parts.append(f'{{{{- {literal(spec.assistant_start)} }}}}')
    said = _WRITTEN.format(**tags) if spec.thinking else f'{{{{- {literal(spec.reply_start)} + said }}}}'
    if not spec.tools:
        parts.append(said)
    elif FORMATS[spec.tools].silent:
        parts.append('{%- if message.tool_calls %}' + tools.calls + '{%- else %}' + said + '{%- endif %}')
    else:
        parts.append(said + '{%- if message.tool_calls %}' + tools.calls + '{%- endif %}')
    parts.append(f'{{{{- {literal(spec.assistant_end.replace(EOS, eos) + spec.turn_sep)} }}}}')
    if tools.results:
        parts.append('{%- elif message.role == "tool" %}' + tools.results)
    parts.append('{%- endif %}{%- endfor %}')
    lead = literal(template.lead)
    if spec.thinking == 'optional':
        now = 'false' if template.lead else 'true'
        switch = f'(enable_thinking if enable_thinking is defined else {now})'
        lead = f'({literal(NONE)} if {switch} is false else "")'
    parts.append(f'{{%- if add_generation_prompt %}}{{{{- {literal(spec.assistant_start)} + {lead} }}}}{{%- endif %}}')
    return ''.join(parts)


def _system(spec: TemplateSpec, tools: ToolText) -> str:
    """The first system turn, or `head.text`: what stands before a user's words."""
    if spec.system is None:
        return ''
    start, end = (literal(text) for text in spec.system)
    if spec.system_in_user:
        return f'{{%- set head = namespace(text={start} + system + {end} if system is not none else "") %}}'
    intro = ' + strftime_now("%d %b %Y") + '.join(literal(text) for text in spec.system_intro.split(TODAY))
    said = f'system{_trim(spec, "system")}'
    return (
        f'{{%- if system is not none %}}{{{{- {start} }}}}{tools.intro}'
        f'{{{{- {intro} + {said} + {end} }}}}{{%- endif %}}'
    )


def _user(spec: TemplateSpec, user: tuple[str, str], tools: ToolText) -> str:
    head = {
        None: '""',
        'first': '(head.text if loop.index0 == at.first else "")',
        'last': '(head.text if loop.last else "")',
    }[spec.system_in_user]
    said = f'({head} + message.content){_trim(spec, "user")}'
    return f'{tools.before_user}{{{{- {literal(user[0])} }}}}{tools.in_user}{{{{- {said} + {literal(user[1])} }}}}'


def _trim(spec: TemplateSpec, role: str) -> str:
    return ' | trim' if role in spec.trim else ''


def renders_alike(template: Template, text: str | None) -> bool:
    """Whether a chat template, None: the tokenizer's own, renders what is typical as `template` does."""
    turns: list[dict[str, Any]] = [
        {'role': 'user', 'content': 'a'},
        {'role': 'assistant', 'content': 'b'},
        {'role': 'user', 'content': 'c'},
    ]
    system = {'role': 'system', 'content': 's'}
    tool = {'type': 'function', 'function': {'name': 'f', 'parameters': {'type': 'object', 'properties': {}}}}
    call = {'type': 'function', 'id': 'abcdef012', 'function': {'name': 'f', 'arguments': {'x': 1}}}
    probes: list[tuple[list[dict[str, Any]], bool, bool]] = [
        (turns, False, True),
        ([system, *turns], False, True),
        (turns[:2], False, False),
    ]
    if template.spec.tools:
        called = [turns[0], {'role': 'assistant', 'content': '', 'tool_calls': [call]}]
        result = {'role': 'tool', 'content': '1', 'tool_call_id': 'abcdef012'}
        probes += [(turns, True, True), ([*called, result], True, True)]
    try:
        for messages, with_tools, prompt in probes:
            tools = [tool] if with_tools else None
            found = template.tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=text, tokenize=False, add_generation_prompt=prompt
            )
            if found != template.render(messages, tools, prompt):
                return False
    except Exception:  # a template may raise whatever it likes on what it does not support
        return False
    return True
