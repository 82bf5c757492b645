"""``swiftlite models``: what goes by a name."""

import json
from dataclasses import asdict

from swiftlite.args.models import ModelsArgs
from swiftlite.errors import SwiftliteError, nearest
from swiftlite.registry.datasets import DATASETS
from swiftlite.registry.models import MODELS
from swiftlite.registry.templates import TEMPLATES


def main(args: ModelsArgs) -> int:
    """Print the tables, or the rows whose name contains ``args.search``."""
    wanted = (args.search or '').lower()
    models = [row for name, row in MODELS.items() if wanted in name or wanted in (row.hf_id or '').lower()]
    templates = [row for name, row in TEMPLATES.items() if wanted in name]
    datasets = [row for name, row in DATASETS.items() if wanted in name]
    if args.json:
        tables = {
            'models': [asdict(row) for row in models],
            'templates': [asdict(row) for row in templates],
            'datasets': [asdict(row) for row in datasets],
        }
        print(json.dumps(tables, ensure_ascii=False, indent=2))
        return 0
    if not (models or templates or datasets):
        hint = nearest(wanted, [*MODELS, *TEMPLATES, *DATASETS]) or ": 'swiftlite models' lists all"
        raise SwiftliteError(f"nothing is called '{args.search}'{hint}")
    if models:
        print(f'{"model type":<30}{"template":<22}weights')
        for row in models:
            template = row.template or "the checkpoint's"
            print(f'{row.model_type:<30}{template:<22}{row.hf_id or "embedded, no download"}')
    if templates:
        print(f'\n{"template":<30}{"tools":<22}default system prompt')
        for spec in templates:
            print(f'{spec.name:<30}{spec.tools or "no":<22}{spec.default_system or "none"}')
    if datasets:
        print(f'\n{"data set":<30}')
        for info in datasets:
            print(f'{info.name:<30}{info.help}')
    return 0
