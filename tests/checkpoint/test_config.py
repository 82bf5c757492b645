"""One native config out of every spelling."""

import json

import pytest

from swiftlite.checkpoint import generation_config, read_config
from swiftlite.checkpoint.config import positions
from swiftlite.errors import SwiftliteError
from tests.qwen_v1 import CONFIG as QWEN_V1

BASE = {
    'architectures': ['Qwen2ForCausalLM'],
    'model_type': 'qwen2',
    'hidden_size': 64,
    'num_attention_heads': 4,
    'num_hidden_layers': 2,
    'vocab_size': 100,
    'intermediate_size': 96,
}


def write(folder, config, generation=None):
    (folder / 'config.json').write_text(json.dumps(config))
    if generation is not None:
        (folder / 'generation_config.json').write_text(json.dumps(generation))
    return folder


@pytest.mark.parametrize(
    ('given', 'theta', 'scaling'),
    [
        ({}, 10000.0, None),
        ({'rope_theta': 1e6, 'rope_scaling': None}, 1e6, None),
        ({'rope_parameters': {'rope_theta': 1e6, 'rope_type': 'default'}}, 1e6, None),
        (
            {'rope_theta': 1e6, 'rope_scaling': {'type': 'yarn', 'factor': 4.0}},
            1e6,
            {'rope_type': 'yarn', 'factor': 4.0},
        ),
        (
            {'rope_parameters': {'rope_theta': 1e6, 'rope_type': 'yarn', 'factor': 4.0}},
            1e6,
            {'rope_type': 'yarn', 'factor': 4.0},
        ),
    ],
)
def test_rope_of_both_versions(tmp_path, given, theta, scaling):
    config = read_config(write(tmp_path, {**BASE, **given}))
    assert (config['rope_theta'], config['rope_scaling']) == (theta, scaling)
    assert 'rope_parameters' not in config


@pytest.mark.parametrize(
    ('given', 'dtype'), [({}, None), ({'torch_dtype': 'float16'}, 'float16'), ({'dtype': 'torch.bfloat16'}, 'bfloat16')]
)
def test_dtype_of_both_versions(tmp_path, given, dtype):
    config = read_config(write(tmp_path, {**BASE, **given}))
    assert config['dtype'] == dtype
    assert 'torch_dtype' not in config


def test_what_may_be_left_out(tmp_path):
    config = read_config(write(tmp_path, BASE))
    assert (config['num_key_value_heads'], config['head_dim'], config['tie_word_embeddings']) == (4, 16, False)
    config = read_config(write(tmp_path, {**BASE, 'head_dim': 32, 'num_key_value_heads': 2}))
    assert (config['num_key_value_heads'], config['head_dim']) == (2, 32)


@pytest.mark.parametrize(
    ('config', 'generation', 'ids'),
    [({}, None, []), ({'eos_token_id': 3}, {'eos_token_id': [4, 3]}, [3, 4]), ({'eos_token_id': [1, 2]}, {}, [1, 2])],
)
def test_stop_ids_of_both_files(tmp_path, config, generation, ids):
    folder = write(tmp_path, {**BASE, **config}, generation)
    assert read_config(folder)['eos_token_id'] == ids
    assert generation_config(folder) == (generation or {})


def test_qwen_v1(tmp_path):
    config = read_config(write(tmp_path, QWEN_V1))
    assert config['architectures'] == ['Qwen2ForCausalLM']
    assert config['source_architecture'] == 'QWenLMHeadModel'
    assert config['model_type'] == 'qwen2'
    assert (config['intermediate_size'], config['head_dim'], config['num_key_value_heads']) == (96, 16, 4)
    assert (config['rope_theta'], config['rms_norm_eps'], config['eos_token_id']) == (10000, 1e-6, [151643])
    assert (config['seq_length'], config['use_dynamic_ntk'], config['use_logn_attn']) == (256, True, True)


def test_first_upload_of_qwen_v1(tmp_path):
    """Other keys, and a position limit beyond which the upstream code needs dynamic NTK."""
    old = {
        'architectures': ['QWenLMHeadModel'],
        'model_type': 'qwen',
        'n_embd': 4096,
        'n_layer': 32,
        'n_head': 32,
        'ffn_hidden_size': 22016,
        'vocab_size': 151851,
        'padded_vocab_size': 151936,
        'n_positions': 6144,
        'seq_length': 2048,
        'layer_norm_epsilon': 1e-5,
        'kv_channels': 128,
        'bf16': True,
    }
    config = read_config(write(tmp_path, old))
    assert (config['hidden_size'], config['num_hidden_layers'], config['intermediate_size']) == (4096, 32, 11008)
    assert (config['vocab_size'], config['max_position_embeddings'], config['rms_norm_eps']) == (151936, 2048, 1e-5)
    assert config['dtype'] == 'bfloat16'


@pytest.mark.parametrize(
    ('text', 'part'),
    [
        (None, 'it has no config.json'),
        ('{"a"', 'is not valid JSON'),
        ('[]', 'holds list'),
        (json.dumps({**BASE, 'hidden_size': 'wide'}), "hidden_size as 'wide'"),
        (json.dumps({'architectures': ['QWenLMHeadModel']}), 'none of the keys hidden_size, n_embd'),
    ],
)
def test_errors(tmp_path, text, part):
    if text is not None:
        (tmp_path / 'config.json').write_text(text)
    with pytest.raises(SwiftliteError) as error:
        read_config(tmp_path)
    assert part in str(error.value)


def test_a_missing_folder_and_an_adapter(tmp_path):
    with pytest.raises(SwiftliteError, match='is not a folder'):
        read_config(tmp_path / 'nowhere')
    (tmp_path / 'adapter_config.json').write_text('{}')
    with pytest.raises(SwiftliteError, match='holds a LoRA adapter without its base'):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ('config', 'most'),
    [
        ({}, None),
        ({'max_position_embeddings': 4096}, 4096),
        ({'max_position_embeddings': 4096, 'rope_scaling': {'type': 'linear', 'factor': 2.0}}, 8192),
        ({'max_position_embeddings': 32768, 'rope_scaling': {'type': 'yarn', 'factor': 4.0}}, 131072),
        (
            {
                'max_position_embeddings': 163840,
                'rope_scaling': {'type': 'yarn', 'factor': 40, 'original_max_position_embeddings': 4096},
            },
            163840,
        ),
        ({'max_position_embeddings': 131072, 'rope_scaling': {'rope_type': 'llama3', 'factor': 8.0}}, 131072),
        ({'max_position_embeddings': 2048, 'rope_parameters': {'rope_type': 'dynamic', 'factor': 2.0}}, 4096),
    ],
)
def test_positions_are_stretched_as_rope_scaling_says(tmp_path, config, most):
    assert positions(read_config(write(tmp_path, {**BASE, **config}))) == most
