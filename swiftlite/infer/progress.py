"""The bar that shows how far a run over data is."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress() -> Progress:
    """A bar for the terminal, with a task's field ``speed`` as text; nothing where the output is no terminal."""
    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TextColumn('{task.fields[speed]}')]
    console = Console()
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
