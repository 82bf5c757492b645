"""Inverse frequencies against transformers'."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from swiftlite.errors import SwiftliteError
from swiftlite.layers.rotary import inverse_frequencies

LLAMA3 = {
    'rope_type': 'llama3',
    'factor': 8.0,
    'low_freq_factor': 1.0,
    'high_freq_factor': 4.0,
    'original_max_position_embeddings': 8192,
}


@pytest.mark.parametrize('scaling', [None, {'rope_type': 'default'}, {'type': 'linear', 'factor': 4.0}, LLAMA3])
@pytest.mark.parametrize('dim', [64, 80, 128])
def test_frequencies_are_those_of_transformers(scaling, dim):
    parameters = {'rope_type': 'default', **(scaling or {}), 'rope_theta': 500000.0}
    parameters['rope_type'] = parameters.pop('type', parameters['rope_type'])
    config = LlamaConfig(hidden_size=4 * dim, num_attention_heads=4, max_position_embeddings=131072)
    config.rope_parameters = parameters
    expected = LlamaRotaryEmbedding(config).inv_freq
    torch.testing.assert_close(inverse_frequencies(dim, 500000.0, scaling), expected, rtol=1e-6, atol=0)


def test_an_unknown_scaling_is_one_sentence():
    with pytest.raises(SwiftliteError, match=r"rope_scaling type 'linaer' is not supported.*linear"):
        inverse_frequencies(64, 1e4, {'type': 'linaer'})
