"""Which rows are trained on, how they are mixed and cut, and which of their tokens carry the loss."""

from dataclasses import dataclass
from pathlib import Path

from swiftlite.args.fields import arg
from swiftlite.args.groups import DataArgs
from swiftlite.errors import UsageError, nearest

TRUNCATION = {
    'delete': 'delete',
    'left': 'left',
    'right': 'right',
    'split': 'split',
    'truncation_left': 'left',
    'truncation_right': 'right',
}
EMPTY_THINK = 'ignore_empty_think'
LOSS = ('default', 'last_round', 'all', EMPTY_THINK, f'last_round+{EMPTY_THINK}')
WEIGHTED = ('react', 'hermes', 'qwen', 'agentflan', 'alpha_umi')  # ms-swift's, with weights by keyword
STOPPING = {
    'first_exhausted': 'first_exhausted',
    'all_exhausted': 'all_exhausted',
    'interleave_under': 'first_exhausted',
    'interleave_over': 'all_exhausted',
    'concat': 'concat',
}


@dataclass(frozen=True, kw_only=True)
class TrainingDataArgs(DataArgs):
    """What becomes of the rows before the first step."""

    interleave_prob: list[float] | None = arg(
        None,
        'weights of the values of --dataset: each row comes from one of them by chance; without, all rows of all',
        group='data',
        aliases=('interleave_probs',),
        low=0,
        split=',',
    )
    stopping_strategy: str | None = arg(
        None,
        'a mix ends with the first data set that is used up, or when every one is (all_exhausted; rows come again)',
        group='data',
        aliases=('mix_strategy',),
        choices=STOPPING,
        shown='first_exhausted',
    )
    max_length: int | None = arg(2048, 'longest row in tokens; -1 for no limit', group='data', low=-1)
    truncation_strategy: str = arg(
        'delete',
        'what becomes of longer rows: delete drops them, left cuts off their start, right their end; split cuts a text '
        'into rows and drops conversations',
        group='data',
        choices=TRUNCATION,
    )
    strict: bool = arg(False, 'stop at the first row that cannot be used', group='data')
    loss_scale: str = arg(
        'default',
        'what is learned: every answer (default), those behind the last question (last_round), every token (all); '
        f'with {EMPTY_THINK}, no empty thoughts',
        group='data',
    )
    train_on_prompt: bool = arg(False, 'the same as --loss_scale all', group='data')
    mask_history: bool = arg(False, 'the same as --loss_scale last_round', group='data')
    streaming: bool = arg(False, 'read the rows while training, a few at a time; needs --max_steps', group='data')
    shuffle_buffer_size: int = arg(
        16384,
        'with --streaming: each row is drawn from so many that are read ahead',
        group='data',
        aliases=('streaming_buffer_size', 'buffer_size'),
        low=1,
    )
    data_cache: str | None = arg(
        None,
        "folder of encoded data, where a later run finds its own; 'none': encode in every run",
        group='data',
        shown='encoded/ in $SWIFTLITE_CACHE or ~/.cache/swiftlite',
    )
    data_cache_limit: float = arg(
        64,
        'GiB that folder may take: whoever adds to it removes what was used longest ago; 0: no limit',
        group='data',
        low=0,
    )
    new_special_tokens: list[str] = arg(
        [],
        'tokens that the model does not have, or a .txt file with one a line; a LoRA trains all embeddings with them',
        group='data',
        aliases=('add_special_tokens',),
        split=',',
    )
    dump_prompt: int = arg(0, 'print so many encoded rows, with what is learned of them, and stop', group='data', low=0)

    def check(self) -> None:
        super().check()
        object.__setattr__(self, 'loss_scale', _loss(self.loss_scale))
        for name, scale in (('train_on_prompt', 'all'), ('mask_history', 'last_round')):
            if getattr(self, name) and self.loss_scale not in ('default', scale):
                raise UsageError(f'--{name} is --loss_scale {scale}, and --loss_scale is {self.loss_scale}: give one')
            if getattr(self, name):
                object.__setattr__(self, 'loss_scale', scale)
        object.__setattr__(self, 'new_special_tokens', _tokens(self.new_special_tokens))
        if self.max_length == 0:
            raise UsageError('--max_length 0 leaves no rows: give more, or -1 for no limit')
        if self.max_length is not None and self.max_length < 0:
            object.__setattr__(self, 'max_length', None)
        if (self.data_cache or '').lower() == 'none' and self.changed(['data_cache_limit']):
            raise UsageError('--data_cache_limit is about the folder of --data_cache, which is none')
        if self.interleave_prob is None:
            if self.stopping_strategy not in (None, 'concat'):
                raise UsageError('--stopping_strategy says when a mix ends: give the weights with --interleave_prob')
            return
        if self.stopping_strategy == 'concat':
            raise UsageError('--stopping_strategy concat takes all rows, and --interleave_prob draws them: give one')
        if len(self.interleave_prob) != len(self.dataset):
            raise UsageError(
                f'--interleave_prob has {len(self.interleave_prob)} weights for {len(self.dataset)} values of --dataset'
            )
        if not all(0 < weight < float('inf') for weight in self.interleave_prob):
            raise UsageError('--interleave_prob takes weights above 0: leave out a data set that shall not be drawn')


def _tokens(given: list[str]) -> list[str]:
    """The tokens, those in files too. UsageError for a file that cannot be read, and for one that is given twice."""
    tokens: list[str] = []
    for text in given:
        if not text.endswith('.txt'):
            tokens.append(text)
            continue
        try:
            lines = Path(text).expanduser().read_text(encoding='utf-8').splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--new_special_tokens: the file '{text}' cannot be read ({error})") from None
        tokens += [line.strip() for line in lines if line.strip()]
    for token in tokens:
        if tokens.count(token) > 1 or not token.strip():
            why = 'is there twice' if token.strip() else 'is empty'
            raise UsageError(f"--new_special_tokens: '{token}' {why}")
    return tokens


def _loss(given: str) -> str:
    """One of LOSS. UsageError for what is none of them, and for ms-swift's weights by keyword."""
    parts = sorted(given.lower().split('+'), reverse=True)
    if weighted := next((part for part in parts if part in WEIGHTED), None):
        raise UsageError(
            f'--loss_scale {weighted} gives words weights of their own, but here a token is learned or it is '
            f'not: valid are {", ".join(LOSS)}'
        )
    if '+'.join(parts) not in LOSS:
        raise UsageError(f"--loss_scale takes {', '.join(LOSS)}, not '{given}'{nearest(given, LOSS)}")
    return '+'.join(parts)
