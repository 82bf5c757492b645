import pytest

from swiftlite.errors import UsageError
from swiftlite.llm import ModelType, TemplateType, get_default_template_type
from swiftlite.registry.models import MODELS


def test_every_model_type_is_an_attribute():
    assert ModelType.qwen_7b_chat == 'qwen-7b-chat' and ModelType.tiny_chat == 'tiny-chat'
    assert {getattr(ModelType, name) for name in dir(ModelType)} == set(MODELS) == set(ModelType)
    assert all(name.isidentifier() for name in dir(ModelType))


def test_default_templates():
    assert get_default_template_type(ModelType.qwen_7b_chat) == TemplateType.qwen == 'qwen'
    assert get_default_template_type(ModelType.qwen_7b) == TemplateType.default_generation


def test_unknown_names():
    with pytest.raises(AttributeError, match="model type 'qwen_7b_chatt'; did you mean 'qwen_7b_chat'"):
        ModelType.qwen_7b_chatt  # noqa: B018
    with pytest.raises(UsageError, match="did you mean 'qwen-7b-chat'"):
        get_default_template_type('qwen-7b-chatt')


def test_what_is_a_command_here_says_so():
    with pytest.raises(ImportError, match='run the command `swiftlite sft` instead'):
        from swiftlite.llm import sft_main  # noqa: F401
