"""Every Python example of docs/python.md runs, section by section, and prints what it says."""

import re
from pathlib import Path

import pytest

from tests.tiny import EXACT

PAGE = Path(__file__).parent.parent.parent / 'docs' / 'python.md'
CODE = re.compile(r'^```python\n(.*?)^```', re.M | re.S)


def sections() -> dict[str, list[str]]:
    """Title → blocks of code; names live on within a section, and from the client's to the errors'."""
    found: dict[str, list[str]] = {}
    for part in PAGE.read_text(encoding='utf-8').split('\n## ')[1:]:
        title, _, body = part.partition('\n')
        found[title] = CODE.findall(body)
    found['A client of a running server'] += found.pop('Errors')
    return found


def test_nothing_is_left_out():
    assert list(sections()) == ["vLLM's form", "ms-swift's form", 'A client of a running server']
    assert sum(map(len, sections().values())) == len(CODE.findall(PAGE.read_text(encoding='utf-8'))) >= 8


@pytest.mark.parametrize('title', sections())
def test_examples(title: str, adapter: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture) -> None:
    names: dict = {}
    for block in sections()[title]:
        code = block.replace('output/tiny-chat/checkpoint-60', str(adapter))
        for start in ("LLM(model='tiny-chat'", "LLM('tiny-chat'", 'get_engine(model_type'):
            code = code.replace(start, f'{start}, num_gpu_blocks_override={EXACT["num_gpu_blocks_override"]}')
        if "'8000'" in code:
            code = code.replace("'8000'", repr(request.getfixturevalue('port')))
        capsys.readouterr()
        exec(compile(code, str(PAGE), 'exec'), names)
        shown = capsys.readouterr().out
        for line in re.findall(r'# prints (.*)', block):
            assert line in shown
