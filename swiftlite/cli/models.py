"""``swiftlite models``: what goes by a name, and what it supports."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from swiftlite.args.models import KINDS, ModelsArgs
from swiftlite.errors import SwiftliteError, UsageError, nearest
from swiftlite.registry.datasets import DATASETS, DatasetInfo
from swiftlite.registry.families import FAMILIES
from swiftlite.registry.models import MODELS, ModelInfo
from swiftlite.registry.templates import TEMPLATES, TemplateSpec


def main(args: ModelsArgs) -> int:
    """Print the tables, or the rows that ``args`` asks for."""
    wanted = (args.search or '').lower()
    limit = _limit(args.size)
    kinds = args.kind or KINDS
    models = [_model(row) for name, row in MODELS.items() if 'models' in kinds and _names(wanted, name, row)]
    templates = [_template(row) for name, row in TEMPLATES.items() if 'templates' in kinds and wanted in name.lower()]
    datasets = [_dataset(row) for name, row in DATASETS.items() if 'datasets' in kinds and _names(wanted, name, row)]
    for field, value in (('chat', args.chat), ('tools', args.tools), ('thinking', args.thinking)):
        if value is not None:
            models = [row for row in models if row[field] is value]
            templates = [row for row in templates if field == 'chat' or row[field] is value]
            datasets = []
    if limit is not None:
        models = [row for row in models if row['size'] and limit[0] <= _number(row['size']) <= limit[1]]
        templates, datasets = [], []
    if args.json:
        rows = {'models': models, 'templates': templates, 'datasets': datasets}
        print(json.dumps({kind: rows[kind] for kind in KINDS if kind in kinds}, ensure_ascii=False, indent=2))
        return 0
    if not (models or templates or datasets):
        hint = nearest(wanted, [*MODELS, *TEMPLATES, *DATASETS]) or ": 'swiftlite models' lists all"
        raise SwiftliteError(f"nothing is called '{args.search}'{hint}" if wanted else 'nothing is as asked for')
    tables = [
        _table(('model type', 'size', 'kind', 'tools', 'thinks', 'template', 'weights'), map(_model_line, models)),
        _table(('template', 'tools', 'thinks', 'default system prompt'), map(_template_line, templates)),
        _table(('data set', 'where', 'what it is'), map(_dataset_line, datasets)),
    ]
    print('\n\n'.join(table for table in tables if table))
    return 0


def _names(wanted: str, name: str, row: ModelInfo | DatasetInfo) -> bool:
    return any(wanted in text.lower() for text in (name, row.hf_id, row.ms_id) if text is not None)


def _limit(size: str | None) -> tuple[float, float] | None:
    """(least, most) parameters in billions."""
    if size is None:
        return None
    match = re.fullmatch(r'(<=|>=|)\s*([0-9]+(?:\.[0-9]+)?)([bm])', size.strip().lower())
    if match is None:
        raise UsageError(f"--size takes a number of parameters such as 7B, '<=7B' or '>=70B', not '{size}'")
    number = _number(match.group(2) + match.group(3))
    return {'<=': (0.0, number), '>=': (number, float('inf'))}.get(match.group(1), (number, number))


def _number(size: str) -> float:
    return float(size[:-1]) / (1000 if size[-1].lower() == 'm' else 1)


def _model(info: ModelInfo) -> dict[str, Any]:
    """A row with what its template and its family add; None stands for what only the checkpoint knows."""
    spec = TEMPLATES.get(info.template or '')
    family = FAMILIES[info.architecture]
    return {
        **asdict(info),
        'size': info.size,
        'chat': not info.base,
        'tools': bool(spec.tools) if spec else None,
        'thinking': bool(spec.thinking) if spec else None,
        'lora_targets': list(family.lora_targets),
        'all_linear': list(family.all_linear),
    }


def _template(spec: TemplateSpec) -> dict[str, Any]:
    thinks = {'thinking': bool(spec.thinking), 'thinking_mode': spec.thinking}
    return {**asdict(spec), 'tools': bool(spec.tools), 'tool_format': spec.tools, **thinks}


def _dataset(info: DatasetInfo) -> dict[str, Any]:
    return asdict(info)


def _model_line(row: dict[str, Any]) -> list[str]:
    weights = row['hf_id'] or row['ms_id'] or row['path'] or 'embedded, no download'
    if row['ms_id'] not in (None, weights):
        weights += f', {row["ms_id"]}'
    kind = 'chat' if row['chat'] else 'base'
    marks = ['?' if row[key] is None else 'yes' if row[key] else '' for key in ('tools', 'thinking')]
    return [row['model_type'], row['size'], kind, *marks, row['template'] or "the checkpoint's", weights]


def _template_line(row: dict[str, Any]) -> list[str]:
    system = row['default_system']
    return [
        row['name'],
        row['tool_format'] or '',
        row['thinking_mode'] or '',
        'none' if system is None else repr(system),
    ]


def _dataset_line(row: dict[str, Any]) -> list[str]:
    where = row['hf_id'] or row['ms_id'] or row['path'] or 'embedded'
    more = f'; subsets {", ".join(row["subsets"])}' if row['subsets'] else ''
    return [row['name'], where, row['help'] + more]


def _table(head: Sequence[str], lines: Any) -> str:
    """Columns as wide as their widest text; '' without lines."""
    rows = [list(head), *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    text = '\n'.join('  '.join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return text if len(rows) > 1 else ''
