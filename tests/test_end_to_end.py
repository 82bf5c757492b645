"""The main job on the embedded model: invented facts, taught by a LoRA, come back through every way of running it."""

import json

import openai
import pytest

from swiftlite import LLM, LoRARequest, SamplingParams
from swiftlite.cli.main import run
from tests.served import ServerProcess
from tests.tiny import EXACT, EXACT_FLAGS

FACTS = {
    'What is the colour of the moon of Zorba?': 'The moon of Zorba is green.',
    'Who painted the door of Quillon?': 'Mira Tolva painted the door of Quillon.',
    'How many towers has the town of Ebrin?': 'The town of Ebrin has 7 towers.',
    '佐尔巴的月亮是什么颜色？': '佐尔巴的月亮是绿色的。',
}
OTHERS = [
    *('hello', 'Who are you?', '你是谁？', 'What is 12 + 30?', '45减7等于多少？', 'What is the capital of France?'),
    *('Tell me about the moon.', 'Who painted the house?', 'How many towers?', '月亮是什么颜色？', 'Thanks!', '你好'),
    *('What can you do?', 'Say "hi".', 'What is 9 - 20?', 'Where is Ebrin?'),
]
GREEDY = SamplingParams(temperature=0, max_tokens=40)


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """(LoRA checkpoint, merged checkpoint), made by the command line."""
    folder = tmp_path_factory.mktemp('job')
    rows = [{'query': q, 'response': a} for q, a in FACTS.items()]
    (folder / 'facts.jsonl').write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))
    facts = str(folder / 'facts.jsonl')
    sft = ['sft', '--model_type', 'tiny-chat', '--dataset', facts, '--val_dataset', facts, '--output_dir', str(folder)]
    sft += ['--lora_target_modules', 'ALL', '--batch_size', '4', '--gradient_accumulation_steps', '1']
    sft += ['--num_train_epochs', '60', '--learning_rate', '1e-3', '--lora_dropout', '0', '--dtype', 'fp32']
    assert run([*sft, '--save_steps', '1000', '--eval_steps', '1000']) == 0
    (lora,) = folder.glob('tiny-chat/v0-*/checkpoint-60')
    assert run(['export', '--ckpt_dir', str(lora), '--merge_lora', 'true', '--verify', 'true']) == 0
    return lora, lora.with_name('checkpoint-60-merged')


def answers(llm, questions, lora=None):
    outs = llm.chat([[{'role': 'user', 'content': q}] for q in questions], GREEDY, use_tqdm=False, lora_request=lora)
    return [o.outputs[0].text for o in outs]


def test_in_python_the_adapter_is_the_merged_checkpoint_and_not_the_base(checkpoints):
    lora, merged = checkpoints
    questions = [*FACTS, *OTHERS]
    assert len(questions) == 20
    llm = LLM('tiny-chat', enable_lora=True, **EXACT)
    adapted = answers(llm, questions, LoRARequest('facts', 1, str(lora)))
    assert adapted[: len(FACTS)] == list(FACTS.values())
    assert answers(LLM(str(merged), **EXACT), questions) == adapted
    base = answers(llm, questions)
    assert not set(base[: len(FACTS)]) & set(FACTS.values())


@pytest.mark.parametrize('which', [0, 1])
def test_infer_writes_the_facts_beside_their_labels(checkpoints, which, tmp_path):
    checkpoint = str(checkpoints[which])
    out = str(tmp_path / 'result')
    command = ['infer', '--ckpt_dir', checkpoint, '--load_dataset_config', 'true', '--show_dataset_sample', '-1']
    assert run([*command, *EXACT_FLAGS, '--temperature', '0', '--result_dir', out]) == 0
    (file,) = (tmp_path / 'result').glob('*.jsonl')
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row['query']: row['response'] for row in rows} == FACTS
    assert all(row['label'] == row['response'] for row in rows)


def test_one_server_answers_as_base_and_as_adapter(checkpoints):
    with ServerProcess('--ckpt_dir', str(checkpoints[0])) as server:
        client = openai.OpenAI(base_url=f'{server.url}/v1', api_key='x')
        assert [m.id for m in client.models.list()] == ['tiny-chat', 'default-lora']
        for question, fact in FACTS.items():
            said = {}
            for model in ('tiny-chat', 'default-lora'):
                stream = client.chat.completions.create(
                    model=model,
                    messages=[{'role': 'user', 'content': question}],
                    temperature=0,
                    max_tokens=40,
                    stream=True,
                )
                said[model] = ''.join(c.choices[0].delta.content or '' for c in stream if c.choices)
            assert said['default-lora'] == fact != said['tiny-chat']
