"""What a run says when it has ended."""

import json
from pathlib import Path
from typing import Any

from swiftlite.train.output import LOG_FILE, next_commands
from swiftlite.train.scale.ranks import is_main, say
from swiftlite.train.trainer import SftTrainer
from swiftlite.train.watching import plots


def finish(trainer: SftTrainer, folder: Path, lora: bool) -> dict[str, Any]:
    """Write the summary and the pictures, print the next commands."""
    state, tokens = trainer.state, trainer.all_tokens_seen()
    last = folder / f'checkpoint-{state.global_step}'
    best = state.best_model_checkpoint
    best = best if best and Path(best).is_dir() else None
    metrics: dict[str, Any] = next((entry for entry in reversed(state.log_history) if 'train_runtime' in entry), {})
    summary = {
        'train_loss': trainer.mean_loss(),
        'train_runtime': metrics.get('train_runtime'),
        'tokens': tokens,
        'global_step': state.global_step,
        'best_metric': state.best_metric,
        'best_model_checkpoint': best,
        'last_model_checkpoint': str(last),
    }
    if not is_main():
        return summary
    with (folder / LOG_FILE).open('a', encoding='utf-8') as stream:
        stream.write(json.dumps(summary) + '\n')
    try:
        plots.draw(folder / LOG_FILE, folder / 'images')
        say(f'loss curve: {folder / "images" / "train_loss.png"}')
    except ImportError:
        say("note: no loss curve is drawn; pip install 'swiftlite[plots]' for it")
    runtime = summary['train_runtime'] or 0
    say(f'trained {tokens:,} tokens in {runtime:.1f} s, loss {summary["train_loss"]:.4f}')
    say(f'last checkpoint: {last}')
    if best and best != str(last):
        figure = trainer.held_out(best)  # None where nothing is held out any more
        shown = '' if figure is None else f' (held-out {trainer.args.metric_for_best_model} {figure:.4f})'
        say(f'best checkpoint: {best}{shown}')
    say('next:')
    for command in next_commands(best or str(last), lora):
        say(f'  {command}')
    return summary
