"""A byte-level BPE trained here, split as Qwen's tokenizers split, with chat templates that behave as Qwen's do."""

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
TOOL_TOKENS = ['<tool_call>', '</tool_call>']
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)
TEXT = [
    'system user assistant You are a helpful assistant. You are Qwen, created by Alibaba Cloud.',
    'Hello there!\n\nHow are you?\n\n\nI am fine, thank you. 12345 你好，你是谁？我是小黄。',
    '# Tools\n\n{"name": "add", "arguments": {"a": 1, "b": [2, 3]}}\n  indented\n\tcode = {}\r\n',
] * 20

PLAIN = """
{%- if messages[0].role != 'system' -%}{{ turn('system', default) }}{%- endif -%}
{%- for m in messages -%}{{ turn(m.role, m.content) }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""
MACRO = """
{%- macro turn(role, text) -%}{{ '<|im_start|>' + role + '\n' + text + '<|im_end|>\n' }}{%- endmacro -%}
"""
WITH_TOOLS = r"""
{%- set first = messages[0].content if messages[0].role == 'system' else default -%}
{%- if tools -%}
  {%- set lines = namespace(text='') -%}
  {%- for tool in tools -%}{%- set lines.text = lines.text + '\n' + (tool | tojson) -%}{%- endfor -%}
  {%- set about = '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n'
        'You are provided with function signatures within <tools></tools> XML tags:\n<tools>' + lines.text
        + '\n</tools>\n\nFor each function call, return a json object with function name and arguments within '
        '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}'
        '\n</tool_call>' -%}
  {{- turn('system', about if first is none else first + '\n\n' + about) -}}
{%- elif first is not none -%}
  {{- turn('system', first) -}}
{%- endif -%}
{%- for m in messages -%}
  {%- if m.role == 'tool' -%}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{ '<|im_start|>user' }}{%- endif -%}
    {{- '\n<tool_response>\n' + m.content + '\n</tool_response>' -}}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{ '<|im_end|>\n' }}{%- endif -%}
  {%- elif m.role == 'assistant' and m.tool_calls -%}
    {{- '<|im_start|>assistant' + ('\n' + m.content if m.content else '') -}}
    {%- for call in m.tool_calls -%}
      {{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' -}}
      {{- call.function.arguments | tojson -}}{{- '}\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\n' -}}
  {%- elif m.role != 'system' or not loop.first -%}
    {{- turn(m.role, m.content) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""
# what each template's checkpoints ship
UPSTREAM = {
    'qwen': MACRO + "{%- set default = 'You are a helpful assistant.' -%}" + PLAIN,
    'qwen2_5': MACRO
    + "{%- set default = 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' -%}"
    + WITH_TOOLS,
    'qwen2_5-math': MACRO
    + "{%- set default = 'Please reason step by step, and put your final answer within \\\\boxed{}.' -%}"
    + WITH_TOOLS,
    'tiny-chat': MACRO + '{%- set default = none -%}' + WITH_TOOLS,
}


def train_tokenizer(extra: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior='isolated'),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens(extra)
    return tokenizer


@pytest.fixture(scope='session')
def make_tokenizer():
    """make_tokenizer(template name or None) → a tokenizer with that template's upstream chat template."""

    def make(name: str | None, eos: str | None = '<|im_end|>') -> PreTrainedTokenizerFast:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(TOOL_TOKENS), eos_token=eos)
        tokenizer.chat_template = UPSTREAM.get(name) if name else None
        return tokenizer

    return make
