"""What is trained: an adapter, over a base in full precision or in 4 bits, or the weights themselves."""

import re
from dataclasses import dataclass

from swiftlite.args.fields import Args, arg
from swiftlite.errors import UsageError, nearest

LORA = (
    'lora_target_modules',
    'target_regex',
    'modules_to_save',
    'lora_rank',
    'lora_alpha',
    'lora_dropout',
    'use_rslora',
    'use_dora',
    'init_lora_weights',
    'lora_lr_ratio',
    'quantization_bit',
)
FULL = ('freeze_parameters', 'freeze_parameters_ratio', 'trainable_parameters')
BNB = ('bnb_4bit_quant_type', 'bnb_4bit_use_double_quant', 'bnb_4bit_comp_dtype')
INITS = ('true', 'false', 'gaussian', 'orthogonal', 'olora', 'pissa', 'pissa_niter_N')
DATA_INITS = ('eva', 'corda', 'lora_ga', 'lora-ga', 'loftq')  # peft's, of which each needs a pass of its own


@dataclass(frozen=True, kw_only=True)
class TunerArgs(Args):
    """The weights that a training changes."""

    sft_type: str = arg(
        'lora',
        'lora: a small adapter beside the frozen model; full: the weights themselves',
        group='tuner',
        aliases=('train_type', 'tuner_type', 'finetuning_type'),
        choices=('lora', 'full'),
    )
    lora_target_modules: list[str] = arg(
        ['DEFAULT'],
        "linear layers that get an adapter: DEFAULT (the family's attention inputs), ALL (learns most), or names such "
        'as q_proj and layers.0.mlp.up_proj',
        group='tuner',
        aliases=('target_modules', 'lora_target'),
        split=',',
    )
    target_regex: str | None = arg(
        None,
        'instead: a pattern for whole names of linear layers, as model.layers.0.self_attn.q_proj',
        group='tuner',
        aliases=('lora_target_regex',),
    )
    modules_to_save: list[str] = arg(
        [],
        'modules trained whole and saved beside the adapter: embed_tokens, lm_head, norm (such a checkpoint is merged '
        'before it is served)',
        group='tuner',
        aliases=('lora_modules_to_save', 'additional_target'),
        split=',',
    )
    lora_rank: int = arg(
        8, 'rank of the adapter: 8 for a tone, 16 to 64 for new skills', group='tuner', low=1, high=8192
    )
    lora_alpha: float = arg(32, 'its scale: alpha / rank', group='tuner', low=0.01)
    lora_dropout: float = arg(
        0.05, 'dropout of its input', group='tuner', aliases=('lora_dropout_p',), low=0, high=0.99
    )
    use_rslora: bool = arg(False, 'scale by alpha / √rank, which keeps high ranks learning', group='tuner')
    use_dora: bool = arg(
        False,
        'DoRA: also learn the length of every row of the weights; nearer to full at low ranks, slower',
        group='tuner',
    )
    init_lora_weights: str = arg(
        'true',
        f'how it starts: {", ".join(INITS)}; pissa and olora start from the weights themselves and learn faster',
        group='tuner',
        aliases=('init_weights',),
    )
    lora_lr_ratio: float | None = arg(
        None,
        'LoRA+: learning rate of B as a multiple of that of A; 16 is usual',
        group='tuner',
        aliases=('lorap_lr_ratio', 'loraplus_lr_ratio'),
        low=0.01,
    )
    neftune_noise_alpha: float | None = arg(
        None,
        'NEFTune: noise of this size on the embeddings while training; 5 to 15 for chat',
        group='tuner',
        aliases=('neftune_alpha',),
        low=0,
    )

    quantization_bit: int = arg(
        0,
        "QLoRA: 4 keeps the frozen model in 4 bits while the adapter is trained; needs 'swiftlite[qlora]'",
        group='tuner',
        aliases=('quant_bits',),
    )
    bnb_4bit_quant_type: str = arg('nf4', 'its format', group='tuner', choices=('nf4', 'fp4'))
    bnb_4bit_use_double_quant: bool = arg(
        True, 'its scales are quantized too', group='tuner', aliases=('double_quantization',)
    )
    bnb_4bit_comp_dtype: str = arg(
        'auto',
        'its products are computed in bf16, fp16 or fp32',
        group='tuner',
        aliases=('bnb_4bit_compute_dtype',),
        choices={
            'auto': 'auto',
            'bf16': 'bf16',
            'bfloat16': 'bf16',
            'fp16': 'fp16',
            'float16': 'fp16',
            'fp32': 'fp32',
            'float32': 'fp32',
        },
        shown='--dtype',
    )

    freeze_parameters: list[str] = arg(
        [], 'full: parameters that stay, by the start of their name, as model.embed_tokens', group='tuner'
    )
    freeze_parameters_ratio: float = arg(
        0.0, 'full: this share of the parameters stays, counted from the input', group='tuner', low=0, high=1
    )
    trainable_parameters: list[str] = arg(
        [],
        'full: parameters that are trained all the same, by the start of their name',
        group='tuner',
        aliases=('additional_trainable_parameters',),
    )

    def check(self) -> None:
        super().check()
        if self.sft_type == 'full' and (name := self.changed(LORA)):
            raise UsageError(f'--{name} is for adapters: leave it out with --sft_type full')
        if self.sft_type == 'lora' and (name := self.changed(FULL)):
            raise UsageError(f'--{name} is for --sft_type full: with a LoRA every parameter of the model stays')
        if self.trainable_parameters and not self.changed(FULL[:2]):
            raise UsageError('--trainable_parameters needs --freeze_parameters or --freeze_parameters_ratio beside it')
        if self.target_regex is not None and self.changed(['lora_target_modules']):
            raise UsageError('--target_regex and --lora_target_modules both name the layers: give one of them')
        _check_init(self.init_lora_weights.lower())
        self._check_quantization()
        if self.neftune_noise_alpha == 0:
            object.__setattr__(self, 'neftune_noise_alpha', None)

    def alters_base(self) -> bool:
        """Whether the start of the adapter is taken out of the base's weights."""
        return self.init_lora_weights.lower().startswith(('pissa', 'olora'))

    def _check_quantization(self) -> None:
        if self.quantization_bit == 8:
            raise UsageError(
                "--quantization_bit 8 is refused: bitsandbytes' 8-bit layers compute in fp16, whatever --dtype is; "
                'use 4, or 0 for the model as it is'
            )
        if self.quantization_bit not in (0, 4):
            raise UsageError(f'--quantization_bit takes 4, or 0 for the model as it is, not {self.quantization_bit}')
        if not self.quantization_bit and (name := self.changed(BNB)):
            raise UsageError(f'--{name} needs --quantization_bit 4')
        init = self.init_lora_weights.lower()
        if self.quantization_bit and self.alters_base():
            raise UsageError(
                f'--init_lora_weights {init} takes a part out of the weights, which 4 bits cannot give back exactly: '
                'leave out it or --quantization_bit'
            )


def _check_init(init: str) -> None:
    if init in INITS[:-1] or re.fullmatch(r'pissa_niter_[1-9]\d*', init):
        return
    if init.startswith(DATA_INITS):
        raise UsageError(
            f'--init_lora_weights {init} is not supported: it takes a pass over data or a search before the training; '
            f'valid are {", ".join(INITS)}'
        )
    raise UsageError(f"--init_lora_weights takes {', '.join(INITS)}, not '{init}'{nearest(init, INITS)}")
