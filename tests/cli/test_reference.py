"""docs/cli-reference.md and docs/flags.md say what the dataclasses say."""

from pathlib import Path

import pytest

from swiftlite.args.inventory import MS_SWIFT, MS_SWIFT_LATER
from swiftlite.cli.main import COMMANDS
from swiftlite.cli.parse import flags
from swiftlite.cli.reference import main, outcome, pages

DOCS = Path(__file__).parent.parent.parent / 'docs'
CLASSES = {name: command.load() for name, command in COMMANDS.items()}


@pytest.mark.parametrize('name', ['cli-reference.md', 'flags.md'])
def test_page_is_up_to_date(name):
    written = (DOCS / name).read_text(encoding='utf-8')
    assert written == pages(CLASSES)[name], f'docs/{name} is out of date: run make reference'


def test_every_flag_has_its_row():
    text = pages(CLASSES)['cli-reference.md']
    for name, cls in CLASSES.items():
        section = text.partition(f'\n## swiftlite {name}\n')[2].partition('\n## ')[0]
        for flag in flags(cls):
            assert f'| `--{flag.name}` |' in section or f'| `{flag.name}` |' in section
            assert all(alias in section for alias in flag.metadata['aliases'])


def test_every_flag_of_ms_swift_has_an_outcome():
    for table in (MS_SWIFT, MS_SWIFT_LATER):
        for command, names in table.items():
            for name in names:
                assert outcome(CLASSES[command], command, name)
    assert outcome(CLASSES['sft'], 'sft', 'batch_size') == 'honoured'
    assert outcome(CLASSES['sft'], 'sft', 'per_device_train_batch_size') == '= `--batch_size`'
    assert outcome(CLASSES['infer'], 'infer', 'infer_backend').startswith('no effect (only auto, vllm')
    assert outcome(CLASSES['sft'], 'sft', 'use_galore').startswith('refused: ')
    assert outcome(CLASSES['app-ui'], 'app-ui', 'share').startswith('refused: ')


def test_pages_are_written_into_a_folder_and_checked(tmp_path, capsys):
    assert main('--check', str(tmp_path)) == 1
    assert main(str(tmp_path)) == main(str(tmp_path), '--check') == 0
    (tmp_path / 'flags.md').write_text('old')
    assert main('--check', str(tmp_path)) == 1
    assert 'flags.md is out of date: run make reference' in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ['cli-reference.md', 'flags.md']
