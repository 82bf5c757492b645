"""Data sets that go by a name. Anything else on ``--dataset`` is a file, or the id of a data set on a hub."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetInfo:
    """A named data set: an `asset` (file under ``swiftlite/assets``), a `path`, or a repository on the hubs.

    `columns` says which standard column each of its columns is, where names differ; `roles` the same for the roles of
    its turns, whose parts stand under `role_key` and `content_key`. `subsets`: name → files of the repository.
    """

    name: str
    asset: str | None = None
    needs_names: bool = False  # rows hold {{NAME}} and {{AUTHOR}}, filled from --model_name and --model_author
    help: str = ''
    path: str | None = None
    ms_id: str | None = None  # ModelScope
    hf_id: str | None = None  # Hugging Face
    revision: str | None = None
    subsets: Mapping[str, str] = field(default_factory=dict)
    subset: str | None = None  # read where none is named
    split: str = 'train'
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    role_key: str | None = None
    content_key: str | None = None


# columns of the standard layouts, what `columns` maps to
COLUMNS = (
    *('messages', 'conversations', 'conversation', 'instruction', 'input', 'output', 'query', 'response'),
    *('history', 'system', 'tools', 'text'),
)
ROLES = ('system', 'user', 'assistant', 'tool', 'tool_call')  # what `roles` maps to
SHAREGPT = {
    'default': 'sharegpt_gpt4.jsonl',
    'V3_format': 'sharegpt_V3_format.jsonl',
    'zh_38K_format': 'sharegpt_zh_38K_format.jsonl',
}

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            'self-cognition',
            'self-cognition.jsonl',
            needs_names=True,
            help='who the model is and who made it, in English and Chinese; needs --model_name and --model_author',
        ),
        DatasetInfo(
            'alpaca-zh',
            ms_id='AI-ModelScope/alpaca-gpt4-data-zh',
            hf_id='llm-wizard/alpaca-gpt4-data-zh',
            help='49k instructions in Chinese, answered by GPT-4',
        ),
        DatasetInfo(
            'alpaca-en',
            ms_id='AI-ModelScope/alpaca-gpt4-data-en',
            hf_id='vicgalle/alpaca-gpt4',
            help='52k instructions in English, answered by GPT-4',
        ),
        DatasetInfo(
            'alpaca-cleaned',
            ms_id='AI-ModelScope/alpaca-cleaned',
            hf_id='yahma/alpaca-cleaned',
            help='52k instructions in English',
        ),
        DatasetInfo(
            'sharegpt-gpt4',
            ms_id='AI-ModelScope/sharegpt_gpt4',
            hf_id='shibing624/sharegpt_gpt4',
            subsets=SHAREGPT,
            subset='default',
            help='conversations of several turns with GPT-4',
        ),
        DatasetInfo(
            'blossom-math-zh',
            ms_id='AI-ModelScope/blossom-math-v2',
            hf_id='Azure99/blossom-math-v2',
            help='10k sums in Chinese, with the way to the result',
        ),
        DatasetInfo(
            'firefly-zh',
            ms_id='AI-ModelScope/firefly-train-1.1M',
            hf_id='YeungNLP/firefly-train-1.1M',
            columns={'input': 'query', 'target': 'response'},
            help='1.6M tasks of 23 kinds in Chinese',
        ),
        DatasetInfo(
            'codefuse-python-en',
            ms_id='codefuse-ai/CodeExercise-Python-27k',
            hf_id='codefuse-ai/CodeExercise-Python-27k',
            columns={'chat_rounds': 'messages'},
            roles={'human': 'user', 'bot': 'assistant'},
            help='27k exercises in Python',
        ),
        DatasetInfo(
            'gsm8k',
            ms_id='modelscope/gsm8k',
            hf_id='openai/gsm8k',
            subsets={'main': 'main/*', 'socratic': 'socratic/*'},
            subset='main',
            columns={'question': 'query', 'answer': 'response'},
            help='8k sums in words, for schools',
        ),
    )
}
