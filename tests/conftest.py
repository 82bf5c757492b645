import atexit
import os
import shutil
import tempfile

import pytest
from hypothesis import settings

os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
os.environ.setdefault('HF_HUB_OFFLINE', '1')
# nothing is left behind in a home folder
atexit.register(shutil.rmtree, cache := tempfile.mkdtemp(prefix='swiftlite-tests-'), ignore_errors=True)
os.environ['SWIFTLITE_CACHE'] = cache
os.environ.setdefault('SWIFTLITE_CPU_KVCACHE_GIB', '0.25')  # of each engine, wherever it is started

# the same inputs in every run, however slow the machine; --hypothesis-profile=long draws others, and more
few = os.environ.get('TRITON_INTERPRET') == '1'
settings.register_profile('same', max_examples=3 if few else 25, deadline=None, derandomize=True)
settings.register_profile('long', deadline=None, max_examples=1000)
settings.load_profile('same')


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
