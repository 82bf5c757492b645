"""Model types: a short name, where the weights are published and which template they were trained with."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """One published model. `base` marks a completion model: one that was not trained on conversations."""

    model_type: str
    architecture: str
    template: str | None  # None: whichever renders as the checkpoint's own chat template does (revisions differ)
    ms_id: str | None = None  # ModelScope
    hf_id: str | None = None  # Hugging Face
    asset: str | None = None  # folder under swiftlite/assets, for embedded models
    path: str | None = None  # folder of the weights, for models of one's own
    base: bool = False
    parameters: str | None = None  # how many, where the name does not say it

    @property
    def size(self) -> str:
        """The number of parameters as '7B', '' where it is not known."""
        names = ' '.join(name for name in (self.hf_id, self.ms_id, self.model_type) if name)
        found = re.search(r'(\d+(?:[._]\d+)?)[bB](?![a-z])', names)
        return self.parameters or (f'{found.group(1).replace("_", ".")}B' if found else '')


@dataclass(frozen=True)
class Series:
    """Models that differ in size only: `repo`, `ms_repo` and `model_type` take the size in place of ``{}``."""

    model_type: str
    repo: str
    sizes: tuple[str, ...]
    architecture: str
    template: str | None
    ms_repo: str | None = None  # ModelScope's, where it is not named as on Hugging Face
    parameters: str | None = None

    def models(self) -> list[ModelInfo]:
        return [
            ModelInfo(
                self.model_type.format(size.lower().replace('.', '_')),
                self.architecture,
                self.template,
                ms_id=(self.ms_repo or self.repo).format(size),
                hf_id=self.repo.format(size),
                base=self.template == BASE,
                parameters=self.parameters,
            )
            for size in self.sizes
        ]


QWEN2, QWEN1, QWEN3 = 'Qwen2ForCausalLM', 'QWenLMHeadModel', 'Qwen3ForCausalLM'
LLAMA, MISTRAL = 'LlamaForCausalLM', 'MistralForCausalLM'
BASE = 'default-generation'
SIZES_1 = ('1_8B', '7B', '14B', '72B')
SIZES_15 = ('0.5B', '1.8B', '4B', '7B', '14B', '32B', '72B', '110B')
SIZES_2 = ('0.5B', '1.5B', '7B', '72B')
SIZES_25 = ('0.5B', '1.5B', '3B', '7B', '14B', '32B', '72B')
SIZES_CODER = ('0.5B', '1.5B', '3B', '7B', '14B', '32B')
SIZES_MATH = ('1.5B', '7B', '72B')
SIZES_3 = ('0.6B', '1.7B', '4B', '8B', '14B')
SIZES_YI15 = ('6B', '9B', '34B', '9B-32K', '34B-32K')
SIZES_LLAMA31 = ('8B', '70B', '405B')

SERIES: tuple[Series, ...] = (
    Series('qwen-{}', 'Qwen/Qwen-{}', SIZES_1, QWEN1, BASE),
    Series('qwen-{}-chat', 'Qwen/Qwen-{}-Chat', SIZES_1, QWEN1, 'qwen'),
    Series('qwen1half-{}', 'Qwen/Qwen1.5-{}', SIZES_15, QWEN2, BASE),
    Series('qwen1half-{}-chat', 'Qwen/Qwen1.5-{}-Chat', SIZES_15, QWEN2, None),
    Series('qwen2-{}', 'Qwen/Qwen2-{}', SIZES_2, QWEN2, BASE),
    Series('qwen2-{}-instruct', 'Qwen/Qwen2-{}-Instruct', SIZES_2, QWEN2, 'qwen'),
    Series('qwen2_5-{}', 'Qwen/Qwen2.5-{}', SIZES_25, QWEN2, BASE),
    Series('qwen2_5-{}-instruct', 'Qwen/Qwen2.5-{}-Instruct', SIZES_25, QWEN2, 'qwen2_5'),
    Series('qwen2_5-coder-{}', 'Qwen/Qwen2.5-Coder-{}', SIZES_CODER, QWEN2, BASE),
    Series('qwen2_5-coder-{}-instruct', 'Qwen/Qwen2.5-Coder-{}-Instruct', SIZES_CODER, QWEN2, 'qwen2_5'),
    Series('qwen2_5-math-{}', 'Qwen/Qwen2.5-Math-{}', SIZES_MATH, QWEN2, BASE),
    Series('qwen2_5-math-{}-instruct', 'Qwen/Qwen2.5-Math-{}-Instruct', SIZES_MATH, QWEN2, 'qwen2_5-math'),
    Series('qwen3-{}-base', 'Qwen/Qwen3-{}-Base', SIZES_3, QWEN3, BASE),
    Series('qwen3-{}', 'Qwen/Qwen3-{}', (*SIZES_3, '32B'), QWEN3, 'qwen3'),
    Series('qwen3-{}-instruct-2507', 'Qwen/Qwen3-{}-Instruct-2507', ('4B',), QWEN3, 'qwen3_nothinking'),
    Series('qwen3-{}-thinking-2507', 'Qwen/Qwen3-{}-Thinking-2507', ('4B',), QWEN3, 'qwen3_thinking'),
    Series('llama2-{}', 'meta-llama/Llama-2-{}-hf', ('7b', '13b', '70b'), LLAMA, BASE, 'modelscope/Llama-2-{}-ms'),
    Series(
        'llama2-{}-chat',
        'meta-llama/Llama-2-{}-chat-hf',
        ('7b', '13b', '70b'),
        LLAMA,
        'llama',
        'modelscope/Llama-2-{}-chat-ms',
    ),
    Series('llama3-{}', 'meta-llama/Meta-Llama-3-{}', ('8B', '70B'), LLAMA, BASE, 'LLM-Research/Meta-Llama-3-{}'),
    Series(
        'llama3-{}-instruct',
        'meta-llama/Meta-Llama-3-{}-Instruct',
        ('8B', '70B'),
        LLAMA,
        'llama3',
        'LLM-Research/Meta-Llama-3-{}-Instruct',
    ),
    Series('llama3_1-{}', 'meta-llama/Meta-Llama-3.1-{}', SIZES_LLAMA31, LLAMA, BASE, 'LLM-Research/Meta-Llama-3.1-{}'),
    Series(
        'llama3_1-{}-instruct',
        'meta-llama/Meta-Llama-3.1-{}-Instruct',
        SIZES_LLAMA31,
        LLAMA,
        'llama3_1',
        'LLM-Research/Meta-Llama-3.1-{}-Instruct',
    ),
    Series('llama3_2-{}', 'meta-llama/Llama-3.2-{}', ('1B', '3B'), LLAMA, BASE, 'LLM-Research/Llama-3.2-{}'),
    Series(
        'llama3_2-{}-instruct',
        'meta-llama/Llama-3.2-{}-Instruct',
        ('1B', '3B'),
        LLAMA,
        'llama3_2',
        'LLM-Research/Llama-3.2-{}-Instruct',
    ),
    Series(
        'llama3_3-{}-instruct',
        'meta-llama/Llama-3.3-{}-Instruct',
        ('70B',),
        LLAMA,
        'llama3_1',
        'LLM-Research/Llama-3.3-{}-Instruct',
    ),
    Series('yi-{}', '01-ai/Yi-{}', ('6B', '9B', '34B', '6B-200K', '9B-200K', '34B-200K'), LLAMA, BASE, '01ai/Yi-{}'),
    Series('yi-{}-chat', '01-ai/Yi-{}-Chat', ('6B', '34B'), LLAMA, 'yi', '01ai/Yi-{}-Chat'),
    Series('yi-1_5-{}', '01-ai/Yi-1.5-{}', SIZES_YI15, LLAMA, BASE, '01ai/Yi-1.5-{}'),
    Series('yi-1_5-{}-chat', '01-ai/Yi-1.5-{}-Chat', ('6B', '9B', '34B'), LLAMA, 'yi1_5', '01ai/Yi-1.5-{}-Chat'),
    Series(
        'yi-1_5-{}-chat-16k',
        '01-ai/Yi-1.5-{}-Chat-16K',
        ('9B', '34B'),
        LLAMA,
        'yi1_5',
        '01ai/Yi-1.5-{}-Chat-16K',
    ),
    Series('mistral-7b', 'mistralai/Mistral-7B-v{}', ('0.1',), MISTRAL, BASE, 'AI-ModelScope/Mistral-7B-v{}'),
    Series('mistral-7b-v2', 'alpindale/Mistral-7B-v{}-hf', ('0.2',), MISTRAL, BASE, 'AI-ModelScope/Mistral-7B-v{}-hf'),
    Series(
        'mistral-7b-instruct',
        'mistralai/Mistral-7B-Instruct-v{}',
        ('0.1',),
        MISTRAL,
        None,
        'AI-ModelScope/Mistral-7B-Instruct-v{}',
    ),
    Series(
        'mistral-7b-instruct-v2',
        'mistralai/Mistral-7B-Instruct-v{}',
        ('0.2',),
        MISTRAL,
        None,
        'AI-ModelScope/Mistral-7B-Instruct-v{}',
    ),
    Series('mistral-7b-v3', 'mistralai/Mistral-7B-v{}', ('0.3',), MISTRAL, BASE, 'LLM-Research/Mistral-7B-v{}'),
    Series(
        'mistral-7b-instruct-v3',
        'mistralai/Mistral-7B-Instruct-v{}',
        ('0.3',),
        MISTRAL,
        'mistral-v3',
        'LLM-Research/Mistral-7B-Instruct-v{}',
    ),
    Series(
        'mistral-nemo-base-{}',
        'mistralai/Mistral-Nemo-Base-{}',
        ('2407',),
        MISTRAL,
        BASE,
        'AI-ModelScope/Mistral-Nemo-Base-{}',
        '12B',
    ),
    Series(
        'mistral-nemo-instruct-{}',
        'mistralai/Mistral-Nemo-Instruct-{}',
        ('2407',),
        MISTRAL,
        'mistral-nemo',
        'AI-ModelScope/Mistral-Nemo-Instruct-{}',
        '12B',
    ),
)
# how the names of quantized forms end
# how the names of quantized forms end
QUANTIZED = (
    r'[-_.](gptq([-_.]?int)?[-_.]?[2348]?(bit)?|awq([-_.]?int4)?|int[48]|[48]bits?|fp8|gguf|bnb[-_.]4bit|aqlm.*|hqq.*)'
)

MODELS: dict[str, ModelInfo] = {
    info.model_type: info
    for info in (
        ModelInfo('tiny-chat', QWEN2, 'tiny-chat', asset='tiny-chat', parameters='7M'),
        *(info for series in SERIES for info in series.models()),
    )
}
