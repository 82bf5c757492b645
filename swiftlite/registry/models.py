"""Model types: a short name, where the weights are published and which template they were trained with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """One published model. `base` marks a completion model: one that was not trained on conversations."""

    model_type: str
    architecture: str
    template: str
    ms_id: str | None = None  # ModelScope
    hf_id: str | None = None  # Hugging Face
    asset: str | None = None  # folder under swiftlite/assets, for embedded models
    base: bool = False


@dataclass(frozen=True)
class Series:
    """Models that differ in size only: `repo` and `model_type` take the size in place of ``{}``."""

    model_type: str
    repo: str
    sizes: tuple[str, ...]
    architecture: str
    template: str
    base: bool = False

    def models(self) -> list[ModelInfo]:
        return [
            ModelInfo(
                self.model_type.format(size.lower().replace('.', '_')),
                self.architecture,
                self.template,
                ms_id=self.repo.format(size),
                hf_id=self.repo.format(size),
                base=self.base,
            )
            for size in self.sizes
        ]


QWEN2, QWEN1 = 'Qwen2ForCausalLM', 'QWenLMHeadModel'
SIZES_1 = ('1_8B', '7B', '14B', '72B')
SIZES_2 = ('0.5B', '1.5B', '7B', '72B')
SIZES_25 = ('0.5B', '1.5B', '3B', '7B', '14B', '32B', '72B')
SIZES_CODER = ('0.5B', '1.5B', '3B', '7B', '14B', '32B')
SIZES_MATH = ('1.5B', '7B', '72B')

SERIES: tuple[Series, ...] = (
    Series('qwen-{}', 'Qwen/Qwen-{}', SIZES_1, QWEN1, 'default-generation', base=True),
    Series('qwen-{}-chat', 'Qwen/Qwen-{}-Chat', SIZES_1, QWEN1, 'qwen'),
    Series('qwen2-{}', 'Qwen/Qwen2-{}', SIZES_2, QWEN2, 'default-generation', base=True),
    Series('qwen2-{}-instruct', 'Qwen/Qwen2-{}-Instruct', SIZES_2, QWEN2, 'qwen'),
    Series('qwen2_5-{}', 'Qwen/Qwen2.5-{}', SIZES_25, QWEN2, 'default-generation', base=True),
    Series('qwen2_5-{}-instruct', 'Qwen/Qwen2.5-{}-Instruct', SIZES_25, QWEN2, 'qwen2_5'),
    Series('qwen2_5-coder-{}', 'Qwen/Qwen2.5-Coder-{}', SIZES_CODER, QWEN2, 'default-generation', base=True),
    Series('qwen2_5-coder-{}-instruct', 'Qwen/Qwen2.5-Coder-{}-Instruct', SIZES_CODER, QWEN2, 'qwen2_5'),
    Series('qwen2_5-math-{}', 'Qwen/Qwen2.5-Math-{}', SIZES_MATH, QWEN2, 'default-generation', base=True),
    Series('qwen2_5-math-{}-instruct', 'Qwen/Qwen2.5-Math-{}-Instruct', SIZES_MATH, QWEN2, 'qwen2_5-math'),
)

MODELS: dict[str, ModelInfo] = {
    info.model_type: info
    for info in (
        ModelInfo('tiny-chat', QWEN2, 'tiny-chat', asset='tiny-chat'),
        *(info for series in SERIES for info in series.models()),
    )
}
