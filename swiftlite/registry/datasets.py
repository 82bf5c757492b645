"""Data sets that go by a name. Anything else on ``--dataset`` is a file, or the id of a data set on a hub."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetInfo:
    """A named data set: an `asset` (file under ``swiftlite/assets``), a `path`, or a repository on the hubs.

    `columns` says which standard column each of its columns is, where names differ; `roles` the same for the roles of
    its turns, whose parts stand under `role_key` and `content_key`. `subsets`: name → files of the repository.
    """

    name: str
    asset: str | None = None
    needs_names: bool = False  # rows hold {{NAME}} and {{AUTHOR}}, filled from --model_name and --model_author
    help: str = ''
    path: str | None = None
    ms_id: str | None = None  # ModelScope
    hf_id: str | None = None  # Hugging Face
    revision: str | None = None
    subsets: Mapping[str, str] = field(default_factory=dict)
    subset: str | None = None  # read where none is named
    split: str = 'train'
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    role_key: str | None = None
    content_key: str | None = None


# columns of the standard layouts, what `columns` maps to
COLUMNS = (
    *('messages', 'conversations', 'conversation', 'instruction', 'input', 'output', 'query', 'response'),
    *('history', 'system', 'tools', 'text'),
)
ROLES = ('system', 'user', 'assistant', 'tool', 'tool_call')  # what `roles` maps to
SHAREGPT = {
    'default': 'sharegpt_gpt4.jsonl',
    'V3_format': 'sharegpt_V3_format.jsonl',
    'zh_38K_format': 'sharegpt_zh_38K_format.jsonl',
}
# folders of COIG-CQIA, by where the instructions come from
COIG = (
    *('chinese_traditional', 'coig_pc', 'douban', 'exam', 'finance', 'human_value', 'logi_qa', 'ruozhiba'),
    *('segmentfault', 'wiki', 'wikihow', 'xhs', 'zhihu'),
)

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            'self-cognition',
            'self-cognition.jsonl',
            needs_names=True,
            help='who the model is and who made it, in English and Chinese; needs --model_name and --model_author',
        ),
        # instructions
        DatasetInfo(
            'alpaca-zh',
            ms_id='AI-ModelScope/alpaca-gpt4-data-zh',
            hf_id='llm-wizard/alpaca-gpt4-data-zh',
            help='49k instructions in Chinese, answered by GPT-4',
        ),
        DatasetInfo(
            'alpaca-en',
            ms_id='AI-ModelScope/alpaca-gpt4-data-en',
            hf_id='vicgalle/alpaca-gpt4',
            help='52k instructions in English, answered by GPT-4',
        ),
        DatasetInfo(
            'alpaca-cleaned',
            ms_id='AI-ModelScope/alpaca-cleaned',
            hf_id='yahma/alpaca-cleaned',
            help='52k instructions in English',
        ),
        DatasetInfo(
            'dolly-15k',
            ms_id='AI-ModelScope/databricks-dolly-15k',
            hf_id='databricks/databricks-dolly-15k',
            columns={'context': 'input', 'response': 'output'},
            help='15k instructions in English, answered by people',
        ),
        DatasetInfo(
            'open-platypus-en',
            ms_id='AI-ModelScope/Open-Platypus',
            hf_id='garage-bAInd/Open-Platypus',
            help='25k questions of science and logic in English',
        ),
        DatasetInfo(
            'open-orca',
            ms_id='AI-ModelScope/OpenOrca',
            hf_id='Open-Orca/OpenOrca',
            columns={'system_prompt': 'system', 'question': 'query'},
            help='4M questions in English, answered by GPT-4 and GPT-3.5',
        ),
        DatasetInfo('slim-orca', hf_id='Open-Orca/SlimOrca', help='518k of the questions of open-orca'),
        DatasetInfo(
            'long-alpaca-12k',
            ms_id='AI-ModelScope/LongAlpaca-12k',
            hf_id='Yukang/LongAlpaca-12k',
            help='12k instructions in English, many with long texts',
        ),
        DatasetInfo(
            'firefly-zh',
            ms_id='AI-ModelScope/firefly-train-1.1M',
            hf_id='YeungNLP/firefly-train-1.1M',
            columns={'input': 'query', 'target': 'response'},
            help='1.6M tasks of 23 kinds in Chinese',
        ),
        DatasetInfo(
            'coig-cqia',
            ms_id='AI-ModelScope/COIG-CQIA',
            hf_id='m-a-p/COIG-CQIA',
            subsets={'all': '*/*', **{name: f'{name}/*' for name in COIG}},
            subset='all',
            help='48k instructions in Chinese from exams, forums and encyclopedias',
        ),
        *(
            DatasetInfo(
                f'belle-train-{size}-CN',
                ms_id=f'AI-ModelScope/train_{size}_CN',
                hf_id=f'BelleGroup/train_{size}_CN',
                help=f'{size} instructions in Chinese',
            )
            for size in ('0.5M', '1M', '2M')
        ),
        DatasetInfo(
            'advertise-gen-zh',
            ms_id='lvjianjin/AdvertiseGen',
            hf_id='shibing624/AdvertiseGen',
            columns={'content': 'query', 'summary': 'response'},
            help='114k advertisements in Chinese, written from properties',
        ),
        DatasetInfo(
            'webnovel-zh',
            ms_id='AI-ModelScope/webnovel_cn',
            hf_id='zxbsmk/webnovel_cn',
            help='50k passages of novels in Chinese',
        ),
        # conversations
        DatasetInfo(
            'sharegpt-gpt4',
            ms_id='AI-ModelScope/sharegpt_gpt4',
            hf_id='shibing624/sharegpt_gpt4',
            subsets=SHAREGPT,
            subset='default',
            help='conversations of several turns with GPT-4',
        ),
        DatasetInfo(
            'ultrachat-200k',
            ms_id='AI-ModelScope/ultrachat_200k',
            hf_id='HuggingFaceH4/ultrachat_200k',
            subsets={'default': 'data/train_sft-*'},
            subset='default',
            help='208k conversations in English',
        ),
        DatasetInfo(
            'openhermes-2.5',
            ms_id='AI-ModelScope/OpenHermes-2.5',
            hf_id='teknium/OpenHermes-2.5',
            help='1M instructions and conversations in English',
        ),
        DatasetInfo(
            'tulu-v2-sft-mixture',
            ms_id='AI-ModelScope/tulu-v2-sft-mixture',
            hf_id='allenai/tulu-v2-sft-mixture',
            help='326k conversations from many sets',
        ),
        DatasetInfo('tulu-3-sft-mixture', hf_id='allenai/tulu-3-sft-mixture', help='939k conversations from many sets'),
        DatasetInfo(
            'evol-instruct-v2',
            ms_id='AI-ModelScope/WizardLM_evol_instruct_V2_196k',
            hf_id='WizardLMTeam/WizardLM_evol_instruct_V2_196k',
            help='143k instructions in English that grew step by step',
        ),
        DatasetInfo(
            'magpie-pro-300k', hf_id='Magpie-Align/Magpie-Pro-300K-Filtered', help='300k instructions by Llama 3 70B'
        ),
        DatasetInfo(
            'lmsys-chat-1m',
            ms_id='AI-ModelScope/lmsys-chat-1m',
            hf_id='lmsys/lmsys-chat-1m',
            columns={'conversation': 'messages'},
            help='1M conversations of people with 25 models; its licence is to be accepted first',
        ),
        DatasetInfo(
            'belle-generated-chat-0.4M',
            ms_id='AI-ModelScope/generated_chat_0.4M',
            hf_id='BelleGroup/generated_chat_0.4M',
            help='400k conversations in Chinese between characters',
        ),
        DatasetInfo(
            'moss-003-sft',
            ms_id='AI-ModelScope/moss-003-sft-data',
            hf_id='YeungNLP/moss-003-sft-data',
            help='1M conversations of several turns in Chinese and English',
        ),
        DatasetInfo('ms-bench', ms_id='iic/ms_bench', help='general conversations in Chinese and English'),
        DatasetInfo(
            'deepctrl-sft',
            ms_id='deepctrl/deepctrl-sft-data',
            subsets={'default': 'sft_data_zh.jsonl', 'en': 'sft_data_en.jsonl'},
            subset='default',
            help='10M instructions in Chinese, 2M in English (:en)',
        ),
        # mathematics
        DatasetInfo(
            'gsm8k',
            ms_id='modelscope/gsm8k',
            hf_id='openai/gsm8k',
            subsets={'main': 'main/*', 'socratic': 'socratic/*'},
            subset='main',
            columns={'question': 'query', 'answer': 'response'},
            help='8k sums in words, for schools',
        ),
        DatasetInfo(
            'math-instruct',
            ms_id='AI-ModelScope/MathInstruct',
            hf_id='TIGER-Lab/MathInstruct',
            help='262k problems, solved in words and in programs',
        ),
        DatasetInfo('metamath-qa', hf_id='meta-math/MetaMathQA', help='395k sums, asked in several ways'),
        DatasetInfo(
            'orca-math', hf_id='microsoft/orca-math-word-problems-200k', help='200k sums in words, solved step by step'
        ),
        DatasetInfo(
            'numina-math-cot', hf_id='AI-MO/NuminaMath-CoT', help='860k problems up to olympiads, with thoughts'
        ),
        DatasetInfo(
            'blossom-math-zh',
            ms_id='AI-ModelScope/blossom-math-v2',
            hf_id='Azure99/blossom-math-v2',
            columns={'input': 'query', 'output': 'response'},
            help='10k sums in Chinese, with the way to the result',
        ),
        DatasetInfo(
            'school-math-zh',
            ms_id='AI-ModelScope/school_math_0.25M',
            hf_id='BelleGroup/school_math_0.25M',
            help='248k sums in Chinese, for schools',
        ),
        # code
        DatasetInfo(
            'code-alpaca-en',
            ms_id='AI-ModelScope/CodeAlpaca-20k',
            hf_id='sahil2801/CodeAlpaca-20k',
            help='20k tasks of programming in English',
        ),
        DatasetInfo(
            'codefuse-python-en',
            ms_id='codefuse-ai/CodeExercise-Python-27k',
            hf_id='codefuse-ai/CodeExercise-Python-27k',
            columns={'chat_rounds': 'messages'},
            roles={'human': 'user', 'bot': 'assistant'},
            help='27k exercises in Python',
        ),
        DatasetInfo(
            'codefuse-evol-instruction-zh',
            ms_id='codefuse-ai/Evol-instruction-66k',
            hf_id='codefuse-ai/Evol-instruction-66k',
            help='66k tasks of programming that grew step by step',
        ),
        DatasetInfo(
            'sql-create-context-en',
            ms_id='AI-ModelScope/sql-create-context',
            hf_id='b-mc2/sql-create-context',
            columns={'question': 'instruction', 'context': 'input', 'answer': 'output'},
            help='78k questions to tables, answered in SQL',
        ),
        # law, medicine
        DatasetInfo(
            'disc-law-sft-zh',
            ms_id='AI-ModelScope/DISC-Law-SFT',
            hf_id='ShengbinYue/DISC-Law-SFT',
            help='questions of law in Chinese',
        ),
        DatasetInfo(
            'disc-med-sft-zh',
            ms_id='AI-ModelScope/DISC-Med-SFT',
            hf_id='Flmc/DISC-Med-SFT',
            help='465k conversations with doctors in Chinese',
        ),
        # tools
        *(
            DatasetInfo(
                f'glaive-toolcall-{language}',
                ms_id=f'llamafactory/glaive_toolcall_{language}',
                hf_id=f'llamafactory/glaive_toolcall_{language}',
                help=f'1k conversations with tools in {name}',
            )
            for language, name in (('en', 'English'), ('zh', 'Chinese'))
        ),
        # thoughts before answers
        DatasetInfo(
            'open-thoughts-114k',
            hf_id='open-thoughts/OpenThoughts-114k',
            subsets={'default': 'data/*'},
            subset='default',
            help='114k problems of mathematics, science and code, thought over by DeepSeek-R1',
        ),
        DatasetInfo(
            'deepseek-r1-distill-zh',
            ms_id='liucong/Chinese-DeepSeek-R1-Distill-data-110k-SFT',
            hf_id='Congliu/Chinese-DeepSeek-R1-Distill-data-110k-SFT',
            help='110k questions in Chinese, thought over by DeepSeek-R1',
        ),
        # text to go on with
        DatasetInfo(
            'wikipedia-zh',
            ms_id='AI-ModelScope/wikipedia-cn-20230720-filtered',
            hf_id='pleisto/wikipedia-cn-20230720-filtered',
            columns={'completion': 'text'},
            help='255k articles in Chinese, as plain text',
        ),
    )
}
