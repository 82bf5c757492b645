"""Model families: one row for each checkpoint architecture swiftlite reads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What the networks of one ``config.json`` architecture have in common.

    `native` names the transformers architecture that trains it and the decoder that serves it; `mapping` names the
    entry in ``swiftlite.checkpoint.mappings`` that renames the tensors of a layout that is not native.
    LoRA module names are those of the native architecture.
    """

    architecture: str  # config.json architectures[0]
    native: str
    hf_model_type: str  # config.json model_type
    mapping: str | None = None
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    lora_targets: tuple[str, ...] = ('q_proj', 'k_proj', 'v_proj')  # --lora_target_modules DEFAULT
    all_linear: tuple[str, ...] = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj')  # ALL


FAMILIES: dict[str, Family] = {
    family.architecture: family
    for family in (
        Family('Qwen2ForCausalLM', native='Qwen2ForCausalLM', hf_model_type='qwen2', qkv_bias=True),
        Family('Qwen3ForCausalLM', native='Qwen3ForCausalLM', hf_model_type='qwen3', qk_norm=True),
        Family('LlamaForCausalLM', native='LlamaForCausalLM', hf_model_type='llama'),
        Family('MistralForCausalLM', native='MistralForCausalLM', hf_model_type='mistral'),
        Family('QWenLMHeadModel', native='Qwen2ForCausalLM', hf_model_type='qwen', mapping='qwen_v1', qkv_bias=True),
    )
}
