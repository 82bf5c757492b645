"""Where the figures of a run go beside logging.jsonl: TensorBoard, wandb, swanlab."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from swiftlite.args.sft import SftArgs
from swiftlite.errors import UsageError
from swiftlite.train.scale.ranks import is_main, say

PROJECT = 'swiftlite'


class Report(Protocol):
    """Takes figures by name: train/loss, eval/loss, …"""

    def add(self, figures: dict[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files under <run>/runs. Raises ImportError where tensorboard is not installed."""

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / 'runs'))

    def add(self, figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A run of wandb, which takes WANDB_PROJECT, WANDB_MODE and its other variables itself."""

    def __init__(self, folder: Path, name: str, record: dict[str, Any]):
        import wandb

        project = os.environ.get('WANDB_PROJECT', PROJECT)
        self.run = wandb.init(project=project, name=name, dir=str(folder), config=record)

    def add(self, figures: dict[str, float], step: int) -> None:
        self.run.log(figures, step=step)

    def close(self) -> None:
        self.run.finish()


class Swanlab:
    """A run of swanlab."""

    def __init__(self, folder: Path, name: str, record: dict[str, Any]):
        import swanlab

        project = os.environ.get('SWANLAB_PROJ_NAME', PROJECT)
        self.run = swanlab.init(project=project, experiment_name=name, logdir=str(folder / 'swanlab'), config=record)

    def add(self, figures: dict[str, float], step: int) -> None:
        self.run.log(figures, step=step)

    def close(self) -> None:
        self.run.finish()


SERVICES: dict[str, Any] = {'wandb': Wandb, 'swanlab': Swanlab}


def check_reports(args: SftArgs) -> None:
    """UsageError where what --report_to names is not installed (TensorBoard, the default, may be absent)."""
    for name in args.report_to:
        if name in SERVICES and find_spec(name) is None:
            raise UsageError(f'--report_to {name} needs it: pip install {name}, or leave it out')


def open_reports(args: SftArgs, folder: Path, record: dict[str, Any]) -> list[Report]:
    """Those of --report_to, in the first process."""
    found: list[Report] = []
    if not is_main():
        return found
    for name in dict.fromkeys(args.report_to):
        if name in SERVICES:
            found.append(SERVICES[name](folder, args.run_name or folder.name, record))
        elif name == 'tensorboard':
            try:
                found.append(TensorBoard(folder))
            except ImportError:
                say("note: no TensorBoard files are written; pip install 'swiftlite[plots]' for them")
    return found


def figures_of(entry: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log by the names that reports give them."""
    found = {}
    for name, value in entry.items():
        if isinstance(value, int | float):
            group = 'eval' if name.startswith('eval_') else 'train'
            found[f'{group}/{name.removeprefix("eval_")}'] = value
    return found
