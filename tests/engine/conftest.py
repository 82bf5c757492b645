import pytest

from tests.tiny import tiny_adapter, tiny_qwen2


@pytest.fixture(scope='session')
def base(tmp_path_factory):
    """A tiny random Qwen2 checkpoint."""
    return tiny_qwen2(tmp_path_factory.mktemp('base'))


@pytest.fixture(scope='session')
def adapters(base, tmp_path_factory):
    """Three adapters of the tiny checkpoint: ranks 4 and 11 on all linear layers, rank 3 on two of them."""
    root = tmp_path_factory.mktemp('adapters')
    return [
        tiny_adapter(root / 'a', base, seed=1, rank=4),
        tiny_adapter(root / 'b', base, seed=2, rank=11),
        tiny_adapter(root / 'c', base, seed=3, rank=3, targets=['q_proj', 'down_proj'], use_rslora=True),
    ]
