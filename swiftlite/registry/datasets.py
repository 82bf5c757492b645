"""Data sets that go by a name. Anything else on ``--dataset`` is the path of a jsonl, json or csv file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """A named data set; `asset` is its file under ``swiftlite/assets``."""

    name: str
    asset: str
    needs_names: bool = False  # rows hold {{NAME}} and {{AUTHOR}}, filled from --model_name and --model_author
    help: str = ''


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            'self-cognition',
            'self-cognition.jsonl',
            needs_names=True,
            help='who the model is and who made it, in English and Chinese; needs --model_name and --model_author',
        ),
    )
}
