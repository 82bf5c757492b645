"""Which template: by name, or the one that renders as the tokenizer's own chat template does."""

from typing import Any

from swiftlite.errors import SwiftliteError
from swiftlite.registry.resolve import get_template_spec
from swiftlite.registry.templates import JINJA, TEMPLATES
from swiftlite.template.template import UNSET, Template, Unset


def get_template(
    template_type: str | None,
    tokenizer: Any,
    *,
    chat_template: str | None = None,
    default_system: str | Unset | None = UNSET,
    enable_thinking: bool | None = None,
) -> Template:
    """The template of that name; 'jinja', or a `chat_template` (Jinja text): a `JinjaTemplate`.

    None: the one that renders as the tokenizer's own chat template does, else that one itself.
    """
    options: dict[str, Any] = {'default_system': default_system, 'enable_thinking': enable_thinking}
    if chat_template is not None:
        return from_jinja(chat_template, tokenizer, **options)
    name = template_type or detect(tokenizer)
    if name == JINJA or (name is None and getattr(tokenizer, 'chat_template', None)):
        return from_jinja(None, tokenizer, **options)
    if name is None:
        raise SwiftliteError(
            'the prompt format of this model is not known: give --model_type, --chat_template or --template_type '
            f'({", ".join(TEMPLATES)})'
        )
    return Template(get_template_spec(name), tokenizer, **options)


def from_jinja(
    text: str | None,
    tokenizer: Any,
    *,
    default_system: str | Unset | None = UNSET,
    enable_thinking: bool | None = None,
) -> Template:
    """A template from Jinja text; None: the tokenizer's own."""
    from swiftlite.template.jinja import JinjaTemplate

    return JinjaTemplate(text, tokenizer, default_system=default_system, enable_thinking=enable_thinking)


def detect(tokenizer: Any) -> str | None:
    """The template that renders a few probe conversations as the tokenizer's own chat template does, or None."""
    if not getattr(tokenizer, 'chat_template', None):
        return None
    turns = [{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}, {'role': 'user', 'content': 'c'}]
    thinking = [turns[0], {'role': 'assistant', 'content': '<think>\nd\n</think>\n\nb'}, turns[2]]
    system = [{'role': 'system', 'content': 's'}]
    tool = {'type': 'function', 'function': {'name': 'f', 'parameters': {'type': 'object', 'properties': {}}}}
    # templates with tools first: those without would match a checkpoint that has them, too
    for spec in sorted(TEMPLATES.values(), key=lambda spec: spec.tools is None):
        probes: list[tuple[list[dict[str, str]], list[dict[str, Any]] | None, bool]]
        probes = [(turns, None, True), (system + turns, None, True), (turns[:2], None, False), (thinking, None, True)]
        probes += [(turns, [tool], True)] if spec.tools else []
        try:
            template = Template(spec, tokenizer)
            if all(
                template.render(messages, tools, prompt)
                == tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt)
                for messages, tools, prompt in probes
            ):
                return spec.name
        except Exception:  # the one or the other refuses a probe; a Jinja text may raise whatever it likes
            continue
    return None
