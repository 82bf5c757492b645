"""What is imported for `--verify` says nothing of its own."""

import logging
import sys
from types import ModuleType

import pytest

from swiftlite.export.verify import _adapter_logits


def test_bitsandbytes_is_quiet_before_peft_imports_it(monkeypatch):
    class Peft(ModuleType):
        def __getattr__(self, name):
            raise LookupError(logging.getLogger('bitsandbytes').level)

    monkeypatch.setattr(logging.getLogger('bitsandbytes'), 'level', logging.NOTSET)
    monkeypatch.setitem(sys.modules, 'peft', Peft('peft'))
    with pytest.raises(LookupError, match=str(logging.ERROR)):
        _adapter_logits('base', None, None, None)
