import torch

from swiftlite.engine.runner.warm_up import warm_up
from swiftlite.models.config import DecoderConfig
from tests.engine.runs import make_llm


def test_it_runs_for_a_models_sizes(base):
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    config = make_llm(base).engine.model_config.decoder
    assert isinstance(config, DecoderConfig)
    warm_up(config, torch.float32, device, long_prompts=True)
