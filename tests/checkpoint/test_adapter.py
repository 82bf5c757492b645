"""PEFT adapters read as peft reads them, and refused where they would compute something else."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from swiftlite.checkpoint import Adapter, LoRAWeights, read_adapter, read_config, write_adapter
from swiftlite.checkpoint.mappings import QWEN_V1
from swiftlite.errors import SwiftliteError
from tests.tiny import tiny_adapter, tiny_qwen2

IDS = torch.arange(40).reshape(2, 20)
Q0 = 'base_model.model.model.layers.0.self_attn.q_proj'


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    return tiny_qwen2(tmp_path_factory.mktemp('base') / 'tiny')


@pytest.fixture
def folder(tmp_path, base):
    return tiny_adapter(tmp_path / 'adapter', base)


def deltas(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {name: w.scaling * w.b @ w.a for name, w in adapter.modules.items()}


def peft_deltas(base, folder) -> dict[str, torch.Tensor]:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder)
    layers = {name: module for name, module in model.named_modules() if hasattr(module, 'lora_A')}
    return {
        name.removeprefix('base_model.model.'): module.get_delta_weight('default').detach()
        for name, module in layers.items()
    }


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name], b[name], atol=1e-6), name


@pytest.mark.filterwarnings('ignore:.*save_embedding_layers')
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'targets': ['embed_tokens', 'lm_head', 'v_proj'], 'rank_pattern': {'embed_tokens': 2}},
        {'targets': r'.*layers\.1\.(self_attn\.[qk]_proj|mlp\.down_proj)'},
        {'use_rslora': True},
        {'rank_pattern': {'v_proj': 2, 'layers.1.mlp.down_proj': 6}, 'alpha_pattern': {'q_proj': 3}},
        {'layers_to_transform': [1]},
    ],
    ids=['plain', 'vocabulary', 'regex', 'rslora', 'patterns', 'one layer'],
)
def test_deltas_equal_pefts(base, tmp_path, options):
    folder = tiny_adapter(tmp_path / 'a', base, **options)
    adapter = read_adapter(folder, read_config(base))
    assert_equal(deltas(adapter), peft_deltas(base, folder))
    write_adapter(tmp_path / 'b', adapter)
    assert_equal(peft_deltas(base, tmp_path / 'b'), deltas(adapter))


def test_bin_files_and_max_rank(base, folder):
    wanted = read_adapter(folder)
    torch.save(load_file(folder / 'adapter_model.safetensors'), folder / 'adapter_model.bin')
    (folder / 'adapter_model.safetensors').unlink()
    found = read_adapter(folder)
    assert_equal(found.tensors, wanted.tensors)
    assert found.max_rank == 4
    assert 'model.layers.0.self_attn.q_proj.lora_A' in found.tensors


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('use_dora', True),
        ('bias', 'all'),
        ('modules_to_save', ['lm_head']),
        ('fan_in_fan_out', True),
        ('lora_bias', True),
        ('layer_replication', [[0, 2]]),
        ('target_parameters', ['x']),
        ('trainable_token_indices', [1]),
        ('alora_invocation_tokens', [1, 2]),
        ('use_qalora', True),
        ('init_lora_weights', 'pissa'),
        ('init_lora_weights', 'olora'),
        ('init_lora_weights', 'loftq'),
    ],
)
def test_options_that_change_the_result_are_refused(folder, option, value):
    file = folder / 'adapter_config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), option: value}))
    with pytest.raises(SwiftliteError, match=option):
        read_adapter(folder)


def test_what_is_merged_only(base, tmp_path):
    """DoRA and whole tensors are read for a merge; to be served they are refused with the command to type."""
    folder = tiny_adapter(tmp_path / 'a', base, use_dora=True)
    with pytest.raises(
        SwiftliteError, match=r'use_dora=True, which is not served .* export --ckpt_dir .*/a --merge_lo'
    ):
        read_adapter(folder)
    adapter = read_adapter(folder, read_config(base), merging=True)
    write_adapter(tmp_path / 'b', adapter)
    again, wanted = (
        load_file(tmp_path / 'b' / 'adapter_model.safetensors'),
        load_file(f'{folder}/adapter_model.safetensors'),
    )
    assert_equal(again, wanted)
    change(folder, lambda t: t.update({f'{Q0}.lora_magnitude_vector': torch.zeros(4)}))
    with pytest.raises(SwiftliteError, match=r'lora_magnitude_vector of model.layers.0.self_attn.q_proj is not 64'):
        read_adapter(folder, merging=True)
    change(folder, lambda t: t.pop(f'{Q0}.lora_magnitude_vector'))
    with pytest.raises(SwiftliteError, match=r'use_dora is True, but model.layers.0.self_attn.q_proj has no lora_mag'):
        read_adapter(folder, merging=True)


def test_unknown_and_harmless_options_are_ignored(folder):
    file = folder / 'adapter_config.json'
    more = {'brand_new': 1, 'lora_dropout': 0.5, 'init_lora_weights': 'gaussian', 'loftq_config': {}, 'use_dora': None}
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    assert len(read_adapter(folder).modules) == 14


def change(folder, edit):
    file = folder / 'adapter_model.safetensors'
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


@pytest.mark.parametrize(
    ('edit', 'part'),
    [
        (lambda t: t[f'{Q0}.lora_B.weight'][0].fill_(float('nan')), 'lora_B of model.layers.0.self_attn.q_proj holds'),
        (lambda t: t.pop(f'{Q0}.lora_B.weight'), 'no lora_B for model.layers.0.self_attn.q_proj'),
        (lambda t: t.update({f'{Q0}.lora_A.weight': torch.zeros(3, 64)}), 'not rank 4'),
        (lambda t: t.update({f'{Q0}.lora_A.weight': torch.zeros(4)}), 'no matrix'),
        (lambda t: t.update({f'{Q0}.lora_A.weight': torch.zeros(4, 63)}), 'as 64 x 63, but the base model has 64 x 64'),
        (lambda t: t.update({f'{Q0}.lora_magnitude_vector': torch.zeros(4)}), 'has a lora_magnitude_vector'),
        (lambda t: t.update({'base_model.model.lm_head.weight': torch.zeros(4)}), 'is no LoRA weight'),
        (lambda t: t.clear(), 'holds no LoRA weights'),
        (
            lambda t: t.update({k.replace('layers.0.self_attn.q_proj', 'layers.9.self_attn.q_proj'): v.clone()
                                for k, v in list(t.items()) if 'layers.0.self_attn.q_proj' in k}),
            'adapts model.layers.9.self_attn.q_proj, which the base model does not have',
        ),
    ],
)  # fmt: skip
def test_defective_weights_are_named(base, folder, edit, part):
    change(folder, edit)
    with pytest.raises(SwiftliteError) as error:
        read_adapter(folder, read_config(base))
    assert part in str(error.value)


def test_defective_files(folder, tmp_path):
    file = folder / 'adapter_model.safetensors'
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SwiftliteError, match='is damaged'):
        read_adapter(folder)
    file.unlink()
    with pytest.raises(SwiftliteError, match='has no adapter weights'):
        read_adapter(folder)
    with pytest.raises(SwiftliteError, match='is not a folder'):
        read_adapter(tmp_path / 'none')
    (folder / 'adapter_config.json').unlink()
    with pytest.raises(SwiftliteError, match=r'no adapter_config\.json'):
        read_adapter(folder)
    (folder / 'adapter_config.json').write_text('{"peft_type": "IA3"}')
    with pytest.raises(SwiftliteError, match='is a IA3 adapter'):
        read_adapter(folder)


@pytest.mark.parametrize(
    ('option', 'value', 'part'),
    [
        ('r', 0, 'r of'),
        ('r', '8', 'r of'),
        ('r', None, 'r of'),
        ('lora_alpha', 'x', 'lora_alpha of'),
        ('lora_alpha', float('nan'), 'lora_alpha of'),
        ('lora_alpha', 10**400, 'lora_alpha of'),
        ('rank_pattern', {'q_proj': 'x'}, 'rank_pattern for q_proj'),
        ('alpha_pattern', {'q_proj': None}, 'alpha_pattern for q_proj'),
        ('rank_pattern', [1], 'rank_pattern of'),
        ('rank_pattern', {'(': 3}, 'rank_pattern holds'),
    ],
)
def test_ranks_and_scalings_that_are_none_are_named(folder, option, value, part):
    file = folder / 'adapter_config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | {option: value}))
    with pytest.raises(SwiftliteError, match=part):
        read_adapter(folder)


def test_another_base_is_refused_by_shape(folder, tmp_path):
    wider = tiny_qwen2(tmp_path / 'wider', hidden_size=128)
    with pytest.raises(SwiftliteError, match='it was trained on another model'):
        read_adapter(folder, read_config(wider))


def test_upstream_modules_are_split(tmp_path):
    """An adapter trained on Qwen v1's own c_attn, mlp.w1 and mlp.w2."""
    names = ['attn.c_attn', 'attn.c_proj', 'mlp.w1', 'mlp.w2', 'mlp.c_proj']
    torch.manual_seed(0)
    shapes = {
        'attn.c_attn': (96, 32),
        'attn.c_proj': (32, 32),
        'mlp.w1': (48, 32),
        'mlp.w2': (48, 32),
        'mlp.c_proj': (32, 48),
    }
    tensors = {}
    for name in names:
        out, width = shapes[name]
        tensors[f'base_model.model.transformer.h.0.{name}.lora_A.weight'] = torch.randn(4, width)
        tensors[f'base_model.model.transformer.h.0.{name}.lora_B.weight'] = torch.randn(out, 4)
    save_file(tensors, tmp_path / 'adapter_model.safetensors')
    config = {'peft_type': 'LORA', 'r': 4, 'lora_alpha': 8, 'target_modules': names}
    (tmp_path / 'adapter_config.json').write_text(json.dumps(config))
    found = deltas(read_adapter(tmp_path))
    fused = (
        2
        * tensors['base_model.model.transformer.h.0.attn.c_attn.lora_B.weight']
        @ (tensors['base_model.model.transformer.h.0.attn.c_attn.lora_A.weight'])
    )
    for i, part in enumerate(('q_proj', 'k_proj', 'v_proj')):
        assert torch.allclose(found[f'model.layers.0.self_attn.{part}'], fused[32 * i : 32 * (i + 1)])
    assert found['model.layers.0.mlp.gate_proj'].shape == found['model.layers.0.mlp.up_proj'].shape == (48, 32)
    w2 = (
        2
        * tensors['base_model.model.transformer.h.0.mlp.w2.lora_B.weight']
        @ (tensors['base_model.model.transformer.h.0.mlp.w2.lora_A.weight'])
    )
    assert torch.allclose(found['model.layers.0.mlp.gate_proj'], w2)


def test_native_modules_are_written_under_upstream_names(tmp_path):
    torch.manual_seed(0)
    modules = {
        f'model.layers.0.{name}': LoRAWeights(torch.randn(rank, 32), torch.randn(32, rank), scaling)
        for name, rank, scaling in (
            ('self_attn.q_proj', 2, 3.0),
            ('self_attn.v_proj', 4, 0.5),
            ('mlp.down_proj', 4, 2.0),
        )
    }
    adapter = Adapter({'task_type': 'CAUSAL_LM'}, modules)
    write_adapter(tmp_path, adapter, QWEN_V1)
    settings = json.loads((tmp_path / 'adapter_config.json').read_text())
    assert settings['target_modules'] == ['transformer.h.0.attn.c_attn', 'transformer.h.0.mlp.c_proj']
    names = {name.split('.lora')[0] for name in load_file(tmp_path / 'adapter_model.safetensors')}
    assert names == {f'base_model.model.transformer.h.0.{x}' for x in ('attn.c_attn', 'mlp.c_proj')}
    again = deltas(read_adapter(tmp_path))
    assert torch.all(again.pop('model.layers.0.self_attn.k_proj') == 0)
    assert_equal(again, deltas(adapter))


def test_an_adapter_of_ours_loads_in_peft_with_the_same_logits(base, tmp_path):
    """Written by write_adapter, loaded by peft: the logits of a model adapted by hand."""
    torch.manual_seed(0)
    weights = LoRAWeights(torch.randn(3, 64) * 0.1, torch.randn(32, 3), 1.5)
    write_adapter(tmp_path, Adapter({'task_type': 'CAUSAL_LM'}, {'model.layers.1.self_attn.v_proj': weights}))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.model.layers[1].self_attn.v_proj.weight.data += weights.scaling * weights.b @ weights.a
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path)
    with torch.inference_mode():
        assert torch.allclose(model(IDS).logits, tuned(IDS).logits, atol=1e-5)


def test_peft_writes_what_we_read(base, tmp_path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules='all-linear', task_type='CAUSAL_LM')
    )
    model.save_pretrained(tmp_path)
    assert len(read_adapter(tmp_path, read_config(base)).modules) == 14


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        ([1, 2], 'does not hold tensors by their names'),
        ({'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight': 3}, r'lora_A\.weight, which is no tensor'),
    ],
    ids=['list', 'number'],
)
def test_a_pickle_of_other_things_is_one_sentence(tmp_path, content, says):
    (tmp_path / 'adapter_config.json').write_text('{"peft_type": "LORA", "r": 8}')
    torch.save(content, tmp_path / 'adapter_model.bin')
    with pytest.raises(SwiftliteError, match=says):
        read_adapter(tmp_path)
