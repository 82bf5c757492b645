"""A byte-level BPE trained here, split as Qwen's tokenizers split, with chat templates that behave as Qwen's do."""

import json

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
NO_DEFAULT = """
{%- for m in messages -%}{{ turn(m.role, m.content) }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
# thinking is kept behind the last question only, where the last answer has always a place for it
FORGETS = r"""
{%- set at = namespace(question=messages | length - 1, found=false) -%}
{%- for m in messages | reverse -%}
  {%- if not at.found and m.role == 'user'
         and not (m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) -%}
    {%- set at.found = true -%}{%- set at.question = loop.revindex0 -%}
  {%- endif -%}
{%- endfor -%}
{%- macro answer(m, i) -%}
  {%- set x = namespace(thought='', said=m.content) -%}
  {%- if m.reasoning_content is string -%}{%- set x.thought = m.reasoning_content -%}
  {%- elif '</think>' in m.content -%}
    {%- set x.thought = m.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
    {%- set x.said = m.content.split('</think>')[-1].lstrip('\n') -%}
  {%- endif -%}
  {{- '<|im_start|>assistant\n' -}}
  {%- if i > at.question and (x.thought or i == messages | length - 1) -%}
    {{- '<think>\n' + x.thought.strip('\n') + '\n</think>\n\n' + x.said.lstrip('\n') -}}
  {%- else -%}{{- x.said -}}{%- endif -%}
  {%- for call in m.tool_calls or [] -%}
    {{- '\n' if x.said or not loop.first -}}
    {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' -}}
    {{- call.function.arguments | tojson }}{{- '}\n</tool_call>' -}}
  {%- endfor -%}
  {{- '<|im_end|>\n' -}}
{%- endmacro -%}
"""
QWEN3 = (
    '{%- set default = none -%}'
    + WITH_TOOLS[: WITH_TOOLS.index("{%- elif m.role == 'assistant'")]
    + "{%- elif m.role == 'assistant' -%}{{- answer(m, loop.index0) -}}"
    + WITH_TOOLS[WITH_TOOLS.index("{%- elif m.role != 'system'") : WITH_TOOLS.index('{%- if add_generation_prompt')]
    + "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' + (PROMPT) }}{%- endif -%}"
)
LLAMA3 = """
{%- macro turn(m) -%}
{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content.strip() + '<|eot_id|>' }}
{%- endmacro -%}
{{- bos_token -}}FIRST
{%- for m in messages -%}{{ turn(m) if m.role != 'system' or not loop.first }}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}
"""
ALTERNATING = """
{%- set given = messages[0].content if messages[0].role == 'system' else none -%}
{%- set turns = messages[1:] if messages[0].role == 'system' else messages -%}
{%- for m in turns -%}
  {%- if m.role != ('user' if loop.index0 is even else 'assistant') -%}{{ raise_exception('out of turn') }}{%- endif -%}
"""
LLAMA2 = (
    ALTERNATING
    + """
  {%- set head = '<<SYS>>\\n' + given + '\\n<</SYS>>\\n\\n' if loop.first and given is not none else '' -%}
  {%- if m.role == 'user' -%}{{ bos_token + '[INST] ' + (head + m.content).strip() + ' [/INST]' }}
  {%- else -%}{{ ' ' + m.content.strip() + ' ' + eos_token }}{%- endif -%}
{%- endfor -%}
"""
)
MISTRAL = (
    '{{- bos_token -}}'
    + ALTERNATING
    + """
  {%- set head = given + '\\n\\n' if loop.first and given is not none else '' -%}
  {%- if m.role == 'user' -%}{{ ' [INST] ' + head + m.content + ' [/INST]' }}
  {%- else -%}{{ ' ' + m.content + eos_token }}{%- endif -%}
{%- endfor -%}
"""
)
# Llama 3.1 and 3.2: one call in a turn, results as JSON from a role of their own, tools in the first question
LLAMA31 = """
{%- macro turn(role, text) -%}
{{ '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' + text + '<|eot_id|>' }}
{%- endmacro -%}
{%- set turns = messages[1:] if messages[0].role == 'system' else messages -%}
{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' -}}
{{- 'Environment: ipython\\n' if tools is not none -}}
{{- 'Cutting Knowledge Date: December 2023\\nToday Date: ' + TODAY + '\\n\\n' -}}
{{- (messages[0].content.strip() if messages[0].role == 'system' else '') + '<|eot_id|>' -}}
{%- if tools is not none -%}
  {{- '<|start_header_id|>user<|end_header_id|>\\n\\nGiven the following functions, please respond with a JSON for ' -}}
  {{- 'a function call with its proper arguments that best answers the given prompt.\\n\\nRespond in the format ' -}}
  {{- '{"name": function name, "parameters": dictionary of argument name and its value}.Do not use variables.\\n\\n' -}}
  {%- for t in tools -%}{{ t | tojson(indent=4) }}{{ '\\n\\n' }}{%- endfor -%}
  {{- turns[0].content.strip() + '<|eot_id|>' -}}
  {%- set turns = turns[1:] -%}
{%- endif -%}
{%- for m in turns -%}
  {%- if m.tool_calls -%}
    {%- if m.tool_calls | length > 1 -%}{{ raise_exception('one at a time') }}{%- endif -%}
    {%- set f = m.tool_calls[0].function -%}
    {{- turn('assistant', '{"name": "' + f.name + '", "parameters": ' + (f.arguments | tojson) + '}') -}}
  {%- elif m.role == 'tool' -%}{{ turn('ipython', m.content | tojson) }}
  {%- else -%}{{ turn(m.role, m.content.strip()) }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}
"""
# Mistral 7B v0.3 (SPACE ' ') and Nemo (SPACE ''): tools before the last question, which holds the system text, too
MISTRAL3 = """
{%- set given = messages[0].content if messages[0].role == 'system' else none -%}
{%- set turns = messages[1:] if messages[0].role == 'system' else messages -%}
{%- set asked = turns | selectattr('role', 'equalto', 'user') | list -%}
{%- set n = namespace(turn=0) -%}
{%- for m in turns if m.role != 'tool' and not m.tool_calls -%}
  {%- if m.role != ('user' if n.turn is even else 'assistant') -%}{{ raise_exception('out of turn') }}{%- endif -%}
  {%- set n.turn = n.turn + 1 -%}
{%- endfor -%}
{{- bos_token -}}
{%- for m in turns -%}
  {%- if m.role == 'user' -%}
    {%- if tools and m == asked[-1] -%}
      {{- '[AVAILABLE_TOOLS]SPACE[' -}}
      {%- for tool in tools -%}
        {{- '{"type": "function", "function": {' -}}
        {%- for key, value in tool.function.items() -%}
          {{- '"' + key + '": ' -}}{{- '"' + value + '"' if value is string else value | tojson -}}
          {{- ', ' if not loop.last -}}
        {%- endfor -%}
        {{- '}}' + (', ' if not loop.last else ']') -}}
      {%- endfor -%}
      {{- '[/AVAILABLE_TOOLS]' -}}
    {%- endif -%}
    {{- '[INST]SPACE' + (given + '\\n\\n' if loop.last and given is not none else '') + m.content + '[/INST]' -}}
  {%- elif m.tool_calls -%}
    {{- '[TOOL_CALLS]SPACE[' -}}
    {%- for call in m.tool_calls -%}
      {{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + (', ' if not loop.last else ']') -}}
    {%- endfor -%}
    {{- eos_token -}}
  {%- elif m.role == 'assistant' -%}{{ ANSWER + eos_token }}
  {%- else -%}
    {{- '[TOOL_RESULTS]SPACE{"content": ' + m.content + ', "call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' -}}
  {%- endif -%}
{%- endfor -%}
"""
# the head of the answer belongs to the question
YI15 = """
{%- if messages[0].role == 'system' -%}{{ messages[0].content }}{%- endif -%}
{%- for m in messages -%}
  {%- if m.role == 'user' -%}
    {{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n<|im_start|>assistant\\n' -}}
  {%- elif m.role == 'assistant' -%}{{- m.content + '<|im_end|>' + '\\n' -}}
  {%- endif -%}
{%- endfor -%}
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
    'qwen1half': MACRO + "{%- set default = 'You are a helpful assistant' -%}" + PLAIN,
    'yi': MACRO + NO_DEFAULT,
    'qwen3': MACRO
    + FORGETS
    + QWEN3.replace('PROMPT', "'<think>\\n\\n</think>\\n\\n' if enable_thinking is false else ''"),
    'qwen3_thinking': MACRO + FORGETS + QWEN3.replace('PROMPT', "'<think>\\n'"),
    'qwen3_nothinking': MACRO + '{%- set default = none -%}' + WITH_TOOLS,
    'llama3': LLAMA3.replace('FIRST', '{{ turn(messages[0]) if messages[0].role == "system" }}'),
    'llama3_1': LLAMA31.replace('TODAY', "'26 Jul 2024'"),
    'llama3_2': LLAMA31.replace('TODAY', "strftime_now('%d %b %Y')"),
    'mistral-v3': MISTRAL3.replace('SPACE', ' ').replace('ANSWER', "' ' + m.content.strip()"),
    'mistral-nemo': MISTRAL3.replace('SPACE', '').replace('ANSWER', 'm.content'),
    'yi1_5': YI15,
    'llama': LLAMA2,
    'mistral': MISTRAL,
}


LLAMA3_SPECIAL = [
    '<|begin_of_text|>',
    '<|end_of_text|>',
    '<|start_header_id|>',
    '<|end_header_id|>',
    '<|eot_id|>',
]


def train_sentencepiece(everywhere: bool) -> Tokenizer:
    """A BPE as Llama 2's: a space before any text; before what follows a special token, too, if `everywhere`."""
    trained = Tokenizer(models.BPE(unk_token='<unk>'))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ['<unk>', '<s>', '</s>', *SPECIAL]
    alphabet = [chr(i) for i in range(33, 127)]
    trained.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=400, show_progress=False, special_tokens=special, initial_alphabet=alphabet),
    )
    model = json.loads(trained.to_str())['model']
    vocab = dict(model['vocab'])
    for i in range(256):
        vocab[f'<0x{i:02X}>'] = len(vocab)
    merges = [tuple(pair) for pair in model['merges']]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token='<unk>', byte_fallback=True, fuse_unk=True))
    if everywhere:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend('\u2581'), normalizers.Replace(' ', '\u2581')])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='first', split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace('\u2581', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


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

    def make(name: str | None, eos: str | None = '<|im_end|>', everywhere: bool = True) -> PreTrainedTokenizerFast:
        if name in ('llama', 'mistral', 'mistral-v3', 'mistral-nemo', 'yi', 'yi1_5'):
            special = {'bos_token': '<s>', 'eos_token': eos if name.startswith('yi') else '</s>', 'unk_token': '<unk>'}
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=train_sentencepiece(everywhere), **special)
            tokenizer.chat_template = UPSTREAM[name]
            return tokenizer
        if name and name.startswith('llama3'):
            trained = train_tokenizer([])
            trained.add_special_tokens(LLAMA3_SPECIAL)
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=trained, bos_token='<|begin_of_text|>', eos_token='<|eot_id|>'
            )
            tokenizer.chat_template = UPSTREAM[name]
            return tokenizer
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(TOOL_TOKENS), eos_token=eos)
        tokenizer.chat_template = UPSTREAM.get(name) if name else None
        return tokenizer

    return make
