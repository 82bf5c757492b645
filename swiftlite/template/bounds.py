"""What a chat template in Jinja may take at most: steps, seconds and text, counted while it is rendered.

Jinja's sandbox keeps a template from other objects, but not from loops within loops or text that doubles. Here the
tree of a template gets a call into each loop and macro, and around what makes text large; what it renders is the same.
Counting works in any thread and ends a template in the middle of its work, without a process or a signal.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, lru_cache, partial
from typing import Any

from swiftlite.errors import SwiftliteError

STEPS = 10_000_000  # of loops and calls of macros
SECONDS = 5.0
TEXT = 1 << 25  # characters, and elements of a list
LOOK = 256  # steps between two looks at the clock
DIGITS = 100_000  # bits of a whole number

counts = threading.local()  # of what is rendered in this thread: steps, text, end


class RunawayTemplateError(SwiftliteError):
    """A template was stopped in the middle of its work."""


def render(tokenizer: Any, messages: Sequence[Any], template: str | None = None, **options: Any) -> str:
    """`tokenizer.apply_chat_template` as text, within the limits.

    Raises:
        RunawayTemplateError: it was stopped; else whatever apply_chat_template raises.
    """
    bound(template or tokenizer.get_chat_template(None, options.get('tools')))
    counts.steps, counts.text, counts.end = 0, 0, time.monotonic() + SECONDS
    try:
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
    finally:
        counts.end = None


def bound(source: str) -> None:
    """Put the counting into the compiled template that transformers keeps for `source`."""
    from jinja2 import Template, pass_context

    compiled = compiled_template(source)
    env = compiled.environment
    if hasattr(compiled, 'counted'):
        return
    for name, filter_ in GUARDED.items():
        if name in env.filters:
            env.filters[name] = guarded(env.filters[name], filter_)
    tree = tree_visitor()().visit(env.parse(source))
    env.filters |= {
        'counted_step': pass_context(step),
        'counted_text': text,
        'guarded_call': partial(guarded_call, env),
        'guarded_product': product,
        'guarded_power': power,
        'guarded_format': formatted,
        'guarded_sum': total,
        'guarded_join': joined,
    }
    found = Template.from_code(env, env.compile(tree), env.make_globals(None))
    compiled.root_render_func, compiled.blocks = found.root_render_func, found.blocks
    compiled._debug_info, compiled.counted = found._debug_info, True


def compiled_template(source: str) -> Any:
    """What transformers makes of a template. TemplateSyntaxError for a text that is none."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    check_constants(source, _compile_jinja_template('').environment)
    return _compile_jinja_template(source)


@lru_cache
def check_constants(source: str, env: Any) -> None:
    """Refuse numbers and texts that Jinja would compute while it compiles."""
    from jinja2 import nodes

    ops: dict[Any, Callable[[Any, Any], Any]] = {
        nodes.Mul: product,
        nodes.Pow: power,
        nodes.Mod: formatted,
        nodes.Add: total,
    }

    def value(node: nodes.Node) -> Any:
        if type(node) in ops:
            return ops[type(node)](value(node.left), value(node.right))  # type: ignore[attr-defined]
        return node.as_const()  # type: ignore[attr-defined]

    for node in env.parse(source).find_all(tuple(ops)):
        with suppress(nodes.Impossible, TypeError, ValueError, ArithmeticError):
            value(node)


@cache
def tree_visitor() -> type:
    """Puts calls into a template's tree; made on use, since importing this needs no jinja2."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    def call(name: str, first: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(first, name, list(args), [], None, None)  # the sandbox would look at each call

    def stepping(node: Any) -> list[nodes.Node]:
        written = sum(len(part.data) for part in node.find_all(nodes.TemplateData))
        return [nodes.ExprStmt(call('counted_step', nodes.Const(written)), lineno=node.lineno), *node.body]

    class Counting(NodeTransformer):
        def visit_For(self, node: nodes.For) -> nodes.Node:
            self.generic_visit(node)
            node.body = stepping(node)
            if node.test is not None:
                node.test = nodes.And(call('counted_step', nodes.Const(0)), node.test)
            return node

        def visit_Macro(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
            self.generic_visit(node)
            node.body = stepping(node)
            return node

        visit_CallBlock = visit_Macro

        def visit_Output(self, node: nodes.Output) -> nodes.Node:
            self.generic_visit(node)
            plain = nodes.TemplateData
            node.nodes = [part if isinstance(part, plain) else call('counted_text', part) for part in node.nodes]
            return node

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
            self.generic_visit(node)
            return call('guarded_join', nodes.List(node.nodes))

        def visit_Mul(self, node: nodes.BinExpr) -> nodes.Node:
            self.generic_visit(node)
            names = {nodes.Mul: 'product', nodes.Pow: 'power', nodes.Mod: 'format', nodes.Add: 'sum'}
            return call(f'guarded_{names[type(node)]}', node.left, node.right)

        visit_Pow = visit_Mod = visit_Add = visit_Mul

        def visit_Call(self, node: nodes.Call) -> nodes.Node:
            self.generic_visit(node)
            if isinstance(node.node, nodes.Getattr) and node.node.attr in GUARDED:
                args = [nodes.Const(node.node.attr), *node.args]
                return nodes.Filter(node.node.node, 'guarded_call', args, node.kwargs, node.dyn_args, node.dyn_kwargs)
            return node

    return Counting


def stop(why: str) -> None:
    raise RunawayTemplateError(f'the chat template does not come to an end: {why}')


def step(context: Any, written: int) -> bool:
    """One more round of a loop or call of a macro, which writes so many characters of its own; always true."""
    if (end := getattr(counts, 'end', None)) is None:  # rendered by somebody else
        return True
    counts.steps += 1
    counts.text += written
    if counts.text > TEXT:
        large()
    if counts.steps > STEPS:
        stop(f'it was stopped after {STEPS:,} steps')
    if counts.steps % LOOK == 0 and time.monotonic() > end:
        stop(f'it was stopped after {SECONDS:g} s')
    return True


def large() -> None:
    stop(f'it makes more than {TEXT:,} characters')


def checked(size: int) -> None:
    if size > TEXT:
        large()


def text(value: Any) -> Any:
    """What is written, counted."""
    if getattr(counts, 'end', None) is not None:
        counts.text += len(value if isinstance(value, str) else str(value))
        checked(counts.text)
    return value


def product(left: Any, right: Any) -> Any:
    for many, count in ((left, right), (right, left)):
        if isinstance(count, int) and isinstance(many, str | bytes | list | tuple):
            checked(len(many) * count)
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > DIGITS:
        stop('it makes too large a number')
    return left * right


def power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > DIGITS:
        stop('it makes too large a number')
    return left**right


def formatted(left: Any, right: Any) -> Any:
    checked(filled_in(left, *(right if isinstance(right, tuple) else ())))
    return left % right


def total(left: Any, right: Any) -> Any:
    if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        checked(len(left) + len(right))
    return left + right


def joined(parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    checked(sum(map(len, texts)))
    return ''.join(texts)


def width(value: Any, size: Any = 0, *_: Any, **__: Any) -> int:
    return size if isinstance(size, int) else 0


def replaced(value: Any, old: Any = '', new: Any = '', *_: Any, **__: Any) -> int:
    return len(value) + value.count(old) * len(new) if all(isinstance(x, str) for x in (value, old, new)) else 0


def indented(value: Any, size: Any = 4, *_: Any, **__: Any) -> int:
    by = len(size) if isinstance(size, str) else size if isinstance(size, int) else 0
    return len(value) + by * (value.count('\n') + 1) if isinstance(value, str) else 0


def put_together(value: Any, between: Any = '', *_: Any, **__: Any) -> int:
    if isinstance(value, str) and not isinstance(between, str):  # the method, not the filter
        value, between = between, value
    if not isinstance(value, list | tuple) or not isinstance(between, str):
        return 0
    return sum(len(part) + len(between) for part in value if isinstance(part, str))


def filled_in(value: Any, *args: Any, **kwargs: Any) -> int:
    """Of a format: the largest number in it, or given to it."""
    numbers = [int(digits[:20]) for digits in re.findall(r'\d+', value)] if isinstance(value, str) else []
    if isinstance(value, str) and ('*' in value or value.count('{') > 1):
        numbers += [arg for arg in (*args, *kwargs.values()) if isinstance(arg, int)]
    return max(numbers, default=0)


# methods and filters that make long text of short: how long
GUARDED: dict[str, Callable[..., int]] = {
    **dict.fromkeys(('center', 'ljust', 'rjust', 'zfill'), width),
    'expandtabs': lambda value, size=8, *_, **__: value.count('\t') * size if isinstance(value, str) else 0,
    'replace': replaced,
    'indent': indented,
    'join': put_together,
    'format': filled_in,
}


def guarded_call(env: Any, value: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """A method with such a name; `env` looks at what may be called."""
    if isinstance(value, str):
        checked(GUARDED[name](value, *args, **kwargs))
    method = env.getattr(value, name)
    if not env.is_safe_callable(method):
        raise TypeError(f"'{name}' may not be called")
    return method(*args, **kwargs)


def guarded(filter_: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
    """The filter, whose first argument may be Jinja's context."""
    leading = hasattr(filter_, 'jinja_pass_arg')

    def run(*args: Any, **kwargs: Any) -> Any:
        checked(size(*(args[1:] if leading else args), **kwargs))
        return filter_(*args, **kwargs)

    if leading:
        run.jinja_pass_arg = filter_.jinja_pass_arg  # type: ignore[attr-defined]
    return run
