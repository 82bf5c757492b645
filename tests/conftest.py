import os

import pytest

os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
os.environ.setdefault('HF_HUB_OFFLINE', '1')


@pytest.fixture(autouse=True)
def tables_as_they_were():
    """Rows that a test registers are gone after it."""
    from swiftlite.registry.datasets import DATASETS
    from swiftlite.registry.models import MODELS
    from swiftlite.registry.templates import TEMPLATES

    saved = [(table, dict(table)) for table in (DATASETS, MODELS, TEMPLATES)]
    yield
    for table, rows in saved:
        if table != rows:
            table.clear()
            table.update(rows)
