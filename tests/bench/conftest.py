import pytest

from tests.tiny import tiny_qwen2


@pytest.fixture(scope='session')
def base(tmp_path_factory):
    return tiny_qwen2(tmp_path_factory.mktemp('base'))
