"""Chat templates as data: the text around each turn. `swiftlite.template` turns it into token ids and loss labels."""

from dataclasses import dataclass, replace
from typing import Literal

BOS = '{bos}'  # stands for the tokenizer's start-of-sequence token, in `prefix` and `user`
JINJA = 'jinja'  # the template type of a checkpoint's own chat template, or of --chat_template
TODAY = '{today}'  # stands for the date as '26 Jul 2024', in `system_intro`
ALL = ('system', 'user', 'assistant')
EOS = '{eos}'  # stands for the tokenizer's end-of-sequence token


@dataclass(frozen=True)
class TemplateSpec:
    """The text that a template puts before and after what each role says.

    The model writes `reply_start`, what an assistant says and `assistant_end` (all carry the loss); `turn_sep` follows
    in a history. Where `default_system` is None, a conversation without a system message has no system turn.
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
    prefix: str = ''  # starts every conversation
    trim: tuple[str, ...] = ()  # roles around whose words white space is left out
    system_intro: str = ''  # starts the first system turn
    # the system turn is the head of a user's turn, 'last': of the one that is answered; user and assistant alternate
    system_in_user: Literal['first', 'last'] | None = None
    system_first: bool = False  # a system turn elsewhere than at the start is refused
    reply_start: str = ''
    thinking: Literal['optional', 'always'] | None = None  # Qwen3's: see swiftlite.template.thinking


CHATML = TemplateSpec(
    'chatml',
    user=('<|im_start|>user\n', '<|im_end|>\n'),
    assistant_start='<|im_start|>assistant\n',
    assistant_end='<|im_end|>',
    turn_sep='\n',
    system=('<|im_start|>system\n', '<|im_end|>\n'),
    stop_words=('<|endoftext|>',),
)
LLAMA2 = TemplateSpec(
    'llama',
    user=(BOS + '[INST] ', ' [/INST]'),
    assistant_start='',
    reply_start=' ',
    assistant_end=' ' + EOS,
    turn_sep='',
    system=('<<SYS>>\n', '\n<</SYS>>\n\n'),
    system_in_user='first',
    trim=ALL,
)
MISTRAL3 = TemplateSpec(
    'mistral-v3',
    prefix=BOS,
    user=('[INST] ', '[/INST]'),
    assistant_start='',
    reply_start=' ',
    assistant_end=EOS,
    turn_sep='',
    system=('', '\n\n'),
    system_in_user='last',
    trim=('assistant',),
    tools='mistral',
)
LLAMA3 = TemplateSpec(
    'llama3',
    prefix=BOS,
    user=('<|start_header_id|>user<|end_header_id|>\n\n', '<|eot_id|>'),
    assistant_start='<|start_header_id|>assistant<|end_header_id|>\n\n',
    assistant_end='<|eot_id|>',
    turn_sep='',
    system=('<|start_header_id|>system<|end_header_id|>\n\n', '<|eot_id|>'),
    stop_words=('<|end_of_text|>',),
    trim=ALL,
)
LLAMA31 = replace(LLAMA3, default_system='', tools='llama3', stop_words=('<|end_of_text|>', '<|eom_id|>'))
LLAMA_KNOWLEDGE = 'Cutting Knowledge Date: December 2023\nToday Date: '
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
        replace(CHATML, name='yi'),
        replace(
            CHATML,
            name='yi1_5',
            system=('', ''),
            system_first=True,
            user=('<|im_start|>user\n', '<|im_end|>\n<|im_start|>assistant\n'),
            assistant_start='',
        ),
        # as 'qwen', less the full stop
        replace(CHATML, name='qwen1half', default_system='You are a helpful assistant'),
        replace(CHATML, name='qwen3', tools='hermes', thinking='optional'),
        replace(CHATML, name='qwen3_thinking', tools='hermes', thinking='always'),
        replace(CHATML, name='qwen3_nothinking', tools='hermes'),
        LLAMA3,
        replace(LLAMA31, name='llama3_1', system_intro=LLAMA_KNOWLEDGE + '26 Jul 2024\n\n'),
        replace(LLAMA31, name='llama3_2', system_intro=LLAMA_KNOWLEDGE + TODAY + '\n\n'),
        LLAMA2,
        replace(
            LLAMA2,
            name='mistral',
            prefix=BOS,
            user=(' [INST] ', ' [/INST]'),
            assistant_end=EOS,
            system=('', '\n\n'),
            trim=(),
        ),
        MISTRAL3,
        replace(
            MISTRAL3,
            name='mistral-nemo',
            user=('[INST]', '[/INST]'),
            reply_start='',
            trim=(),
            tools='mistral-nemo',
        ),
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
