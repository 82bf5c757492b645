"""What a training measures, writes and goes on from."""

from dataclasses import dataclass

from swiftlite.args.fields import Args, arg
from swiftlite.errors import UsageError

REPORTS = ('tensorboard', 'wandb', 'swanlab', 'none')
METRICS = {
    'loss': 'loss',
    'eval_loss': 'loss',
    'token_acc': 'token_acc',
    'eval_token_acc': 'token_acc',
    'acc': 'token_acc',
}


@dataclass(frozen=True, kw_only=True)
class ResultArgs(Args):
    """Logs, held-out losses, checkpoints, samples."""

    eval_steps: int = arg(
        None, 'steps between held-out losses', group='results', low=1, shown='50 for a LoRA, 200 for full'
    )
    save_steps: int = arg(None, 'steps between checkpoints', group='results', low=1, shown='--eval_steps')
    save_total_limit: int | None = arg(2, 'checkpoints kept: the best and the last', group='results', low=1)
    metric_for_best_model: str = arg(
        'loss', 'held-out figure that says which checkpoint is best', group='results', choices=METRICS
    )
    greater_is_better: bool | None = arg(
        None, 'whether more of it is better', group='results', shown='false for loss, true for token_acc'
    )
    early_stop_interval: int | None = arg(
        None,
        'end when so many held-out losses in a row were no better than the best',
        group='results',
        aliases=('early_stopping_patience',),
        low=1,
        shown='never',
    )
    logging_steps: int = arg(5, 'steps between lines of the log', group='results', low=1)
    report_to: list[str] = arg(
        ['tensorboard'],
        'tensorboard, wandb, swanlab: where figures go beside logging.jsonl; none',
        group='results',
        choices=REPORTS,
    )
    run_name: str | None = arg(None, 'name of the run in wandb and swanlab', group='results', shown="the run's folder")
    sample_prompts: list[str] = arg(
        [],
        'questions that the model answers while it is trained, or files with one in each line; into samples.jsonl',
        group='results',
    )
    sample_steps: int | None = arg(None, 'steps between such answers', group='results', low=1, shown='--eval_steps')
    sample_tokens: int = arg(128, 'tokens of such an answer at most', group='results', low=1)
    resume_from_checkpoint: str | None = arg(
        None,
        'checkpoint folder to go on from; last (or true): the newest one in --output_dir, in whose folder the run goes '
        'on; auto: the same, or from the start where there is none',
        group='results',
    )
    resume_only_model: bool = arg(
        False, 'take the weights of that checkpoint only, and start anew otherwise', group='results'
    )

    def check(self) -> None:
        super().check()
        self.fill('greater_is_better', self.metric_for_best_model == 'token_acc')
        if self.resume_only_model and self.resume_from_checkpoint is None:
            raise UsageError('--resume_only_model needs --resume_from_checkpoint')
        if self.sample_steps is not None and not self.sample_prompts:
            raise UsageError('--sample_steps needs --sample_prompts')
