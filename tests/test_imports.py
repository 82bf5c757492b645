"""The architecture as rules: who may import whom, what stays light, how long a file may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {'swiftlite': ROOT / 'swiftlite', 'swiftlite_kernels': ROOT / 'kernels' / 'swiftlite_kernels'}

# a package may import itself, errors, and what is listed here; cli and the table of __init__ stand above all
LEAVES: set[str] = {'registry', 'errors'}
MODELS = {'layers', 'quant', 'checkpoint', 'kernels', 'registry'}
ENGINE = MODELS | {'models', 'template', 'hub'}
ALLOWED: dict[str, set[str]] = {
    'errors': set(),
    'registry': set(),
    'hub': {'registry'},
    'template': {'registry'},
    'checkpoint': {'registry'},
    'kernels': set(),
    'quant': {'kernels'},
    'layers': {'quant', 'kernels'},
    'models': MODELS,
    'engine': ENGINE,
    'llm': ENGINE | {'engine', 'infer', 'serve'},  # beside cli: infer.setup's defaults, serve.client
    'args': {'registry'},
    'data': {'registry', 'args', 'hub'},
    'train': {'kernels', 'template', 'checkpoint', 'hub', 'registry', 'args', 'data'},
    'export': {'template', 'checkpoint', 'hub', 'registry', 'args', 'quant'},
    'infer': ENGINE | {'engine', 'args', 'data'},
    'serve': ENGINE | {'engine', 'args', 'infer'},  # infer.setup: from arguments to what runs
    'eval': ENGINE | {'engine', 'args', 'data', 'infer'},
    'ui': ENGINE | {'engine', 'args', 'infer', 'serve'},  # infer.setup, serve.sockets
    'bench': ENGINE | {'engine', 'args', 'train', 'data'},  # what sft runs is what is measured
    'cli': {'args', 'registry', 'train', 'export', 'infer', 'serve', 'eval', 'ui', 'bench'},
    '': {'engine', 'cli'},  # swiftlite/__init__.py and __main__.py
}
# packages that a command configures, and whose arguments they may import beside the shared groups
OWN_ARGS = {
    'train': 'sft',
    'export': 'export',
    'infer': 'infer',
    'eval': 'eval',
    'serve': 'deploy',
    'bench': 'bench bench_adapters bench_requests bench_train',
    'ui': 'app_ui',
}

CORE = {'torch', 'transformers', 'safetensors', 'numpy', 'jinja2', 'tokenizers', 'tiktoken', 'tqdm'}
THIRD_PARTY: dict[str, set[str]] = {
    'errors': set(),
    'registry': set(),
    'args': {'yaml'},
    'hub': {'huggingface_hub', 'modelscope_hub'},
    **dict.fromkeys(('template', 'checkpoint', 'quant', 'layers', 'models', 'engine', 'llm'), CORE),
    'kernels': {'torch', 'numpy'},
}
LAZY = {'engine': {'llguidance'}}  # imported when a request needs it
MAX_LINES = 500


@dataclass(frozen=True)
class Import:
    path: Path  # of the importing file
    line: int
    module: str  # absolute, such as swiftlite.engine.config
    lazy: bool  # inside a function, or for type checkers only

    @property
    def top(self) -> str:
        return self.module.partition('.')[0]

    def __str__(self) -> str:
        return f'{self.path.relative_to(ROOT)}:{self.line} imports {self.module}'


def sources() -> list[tuple[str, Path]]:
    """(module name, file) of every source file."""
    found = []
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob('*.py')):
            parts = (name, *path.relative_to(folder).with_suffix('').parts)
            found.append(('.'.join(part for part in parts if part != '__init__'), path))
    return found


def part_of(module: str) -> str:
    """The package of design's table that a module belongs to: 'swiftlite.engine.config' → 'engine'."""
    top, _, rest = module.partition('.')
    if top == 'swiftlite_kernels':
        return 'kernels'
    name = rest.partition('.')[0]
    return '' if name == '__main__' else name


def imports(module: str, path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding='utf-8'))
    lazy = set()
    for node in ast.walk(tree):
        guarded = isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test)
        if guarded or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lazy |= {id(inner) for inner in ast.walk(node)}
    package = module if path.name == '__init__.py' else module.rpartition('.')[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parts = package.split('.')
                base = '.'.join(parts[: len(parts) - node.level + 1] + ([node.module] if node.module else []))
            # 'from swiftlite.serve import server' imports a module, 'from swiftlite.errors import nearest' a name
            names = [f'{base}.{alias.name}' if is_module(f'{base}.{alias.name}') else base for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            '__import__',
            'importlib.import_module',
            'import_module',
        ):
            names = [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        else:
            continue
        for name in dict.fromkeys(names):
            yield Import(path, node.lineno, name, id(node) in lazy)


def is_module(name: str) -> bool:
    top, _, rest = name.partition('.')
    if top not in PACKAGES:
        return False
    path = PACKAGES[top].joinpath(*rest.split('.')) if rest else PACKAGES[top]
    return path.with_suffix('.py').is_file() or path.is_dir()


ALL = [(module, entry) for module, path in sources() for entry in imports(module, path)]


def test_the_walk_sees_the_tree():
    """Guards the other tests against an empty list."""
    assert len({module for module, _ in ALL}) > 40
    assert any(entry.module == 'swiftlite.cli.main' for _, entry in ALL)
    assert {part_of(module) for module, _ in sources()} <= set(ALLOWED), 'a new package needs a row in ALLOWED'


def test_imports_go_one_way():
    wrong = []
    for module, entry in ALL:
        part, target = part_of(module), part_of(entry.module)
        if entry.top not in PACKAGES or target in (part, 'errors') or entry.module == 'swiftlite':
            continue
        if target not in ALLOWED[part]:
            wrong.append(str(entry))
    assert wrong == []


def test_args_stay_in_the_package_they_configure():
    wrong = []
    for module, entry in ALL:
        part = part_of(module)
        if part_of(entry.module) == 'args' and part not in ('args', 'cli'):
            names = entry.module.split('.')[2:]
            if names[0] not in (*OWN_ARGS.get(part, '').split(), 'groups'):
                wrong.append(str(entry))
    assert wrong == []


def test_engine_and_below_need_little():
    """Nothing but the standard library and a few packages, so that they run where no web stack is installed."""
    wrong = []
    for module, entry in ALL:
        part = part_of(module)
        allowed = THIRD_PARTY.get(part)
        if part == 'kernels' and entry.path.name == 'triton.py':
            continue
        if entry.lazy and entry.top in LAZY.get(part, ()):
            continue
        if allowed is None or entry.top in sys.stdlib_module_names or entry.top in (*PACKAGES, *allowed):
            continue
        wrong.append(str(entry))
    assert wrong == []


def test_only_triton_files_import_triton():
    wrong = [
        str(entry)
        for _, entry in ALL
        if (entry.top == 'triton' or entry.module.endswith('.triton'))
        and not entry.lazy
        and entry.path.name != 'triton.py'
    ]
    wrong += [str(entry) for _, entry in ALL if entry.top == 'triton' and entry.path.name != 'triton.py']
    assert wrong == []


def test_kernels_folder_is_no_package():
    assert not (ROOT / 'kernels' / '__init__.py').exists(), "'kernels' is another project's import name"


@pytest.mark.parametrize(
    'module',
    [
        'swiftlite',
        'swiftlite.cli.main',
        'swiftlite.args.sft',
        'swiftlite.hub',
        'swiftlite.template',
        'swiftlite.llm',
        'swiftlite.llm.names',
        'swiftlite.serve.client',
        'swiftlite.ui.server',
        'swiftlite.ui.remote',
    ],
)
def test_import_needs_no_torch(module):
    code = f'import sys, {module}; assert not {{"torch", "transformers"}} & set(sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True)


def test_public_names():
    import swiftlite

    assert set(swiftlite.__all__) == {
        'LLM',
        'AsyncEngine',
        'BeamSearchParams',
        'CompletionOutput',
        'EngineConfig',
        'LoRARequest',
        'RequestOutput',
        'SamplingParams',
        'StructuredOutputsParams',
        'TextPrompt',
        'TokensPrompt',
        '__version__',
    }
    for name in swiftlite.__all__:
        assert getattr(swiftlite, name) is not None
    with pytest.raises(AttributeError, match='Lllm'):
        swiftlite.Lllm  # noqa: B018


def is_table(path: Path) -> bool:
    """A file of assignments and dataclasses only."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    return not any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in tree.body)


def test_no_file_is_long():
    paths = (
        [path for _, path in sources()]
        + sorted((ROOT / 'tests').rglob('*.py'))
        + sorted((ROOT / 'examples').rglob('*.py'))
    )
    long = {
        str(path.relative_to(ROOT)): lines
        for path in paths
        if (lines := len(path.read_text(encoding='utf-8').splitlines())) > MAX_LINES
        and path.name != 'triton.py'
        and not ('registry' in path.parts and is_table(path))
    }
    assert long == {}
