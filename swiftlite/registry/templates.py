"""Chat templates as data: the text around each turn. `swiftlite.template` turns it into token ids and loss labels."""

from dataclasses import dataclass, replace

EOS = '{eos}'  # stands for the tokenizer's end-of-sequence token


@dataclass(frozen=True)
class TemplateSpec:
    """The text that a template puts before and after what each role says.

    The model writes what an assistant says and then `assistant_end` (both carry the loss); `turn_sep` follows it in
    a history. Where `default_system` is None, a conversation without a system message has no system turn.
    """

    name: str
    user: tuple[str, str]
    assistant_start: str
    assistant_end: str
    turn_sep: str
    system: tuple[str, str] | None = None  # None: the template has no place for one
    default_system: str | None = None
    stop_words: tuple[str, ...] = ()  # end a reply too, beside assistant_end and the tokenizer's own EOS
    tools: str | None = None  # entry in swiftlite.template.tools.FORMATS
    single_turn: bool = False
    special_tokens: bool = False  # the tokenizer adds its own BOS, as for a plain prompt


CHATML = TemplateSpec(
    'chatml',
    user=('<|im_start|>user\n', '<|im_end|>\n'),
    assistant_start='<|im_start|>assistant\n',
    assistant_end='<|im_end|>',
    turn_sep='\n',
    system=('<|im_start|>system\n', '<|im_end|>\n'),
    stop_words=('<|endoftext|>',),
)
QWEN_SYSTEM = 'You are a helpful assistant.'
QWEN25_SYSTEM = 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.'
MATH_SYSTEM = 'Please reason step by step, and put your final answer within \\boxed{}.'

TEMPLATES: dict[str, TemplateSpec] = {
    spec.name: spec
    for spec in (
        CHATML,
        replace(CHATML, name='tiny-chat', tools='hermes'),
        replace(CHATML, name='qwen', default_system=QWEN_SYSTEM),
        replace(CHATML, name='qwen2_5', default_system=QWEN25_SYSTEM, tools='hermes'),
        replace(CHATML, name='qwen2_5-math', default_system=MATH_SYSTEM, tools='hermes'),
        TemplateSpec(
            'default',
            user=('### Human:\n', '\n\n'),
            assistant_start='### Assistant:\n',
            assistant_end=EOS,
            turn_sep='\n\n',
            system=('', '\n\n'),
            special_tokens=True,
        ),
        TemplateSpec(
            'default-generation',
            user=('', ''),
            assistant_start='',
            assistant_end=EOS,
            turn_sep='',
            single_turn=True,
            special_tokens=True,
        ),
    )
}
