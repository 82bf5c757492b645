"""The table of commands, and what surrounds each: help, errors as one sentence, torchrun."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from swiftlite.args.fields import Args
from swiftlite.cli.help import command_help, overview
from swiftlite.cli.parse import is_config, parse
from swiftlite.errors import SwiftliteError, UsageError, nearest


@dataclass(frozen=True)
class Command:
    """A command: the class of its arguments, and the module whose ``main(args)`` runs it."""

    args: str
    module: str
    distributed: bool = False  # runs under torchrun when NPROC_PER_NODE or NNODES is set

    def load(self) -> type[Args]:
        module, _, name = self.args.partition(':')
        return getattr(importlib.import_module(module), name)


COMMANDS: dict[str, Command] = {
    'sft': Command('swiftlite.args.sft:SftArgs', 'swiftlite.cli.sft', distributed=True),
    'export': Command('swiftlite.args.export:ExportArgs', 'swiftlite.cli.export'),
    'infer': Command('swiftlite.args.infer:InferArgs', 'swiftlite.cli.infer'),
    'deploy': Command('swiftlite.args.deploy:DeployArgs', 'swiftlite.cli.deploy'),
    'app-ui': Command('swiftlite.args.app_ui:AppUiArgs', 'swiftlite.cli.app_ui'),
    'eval': Command('swiftlite.args.eval:EvalArgs', 'swiftlite.cli.eval'),
    'bench': Command('swiftlite.args.bench:BenchArgs', 'swiftlite.cli.bench'),
    'bench adapters': Command('swiftlite.args.bench_adapters:AdapterBenchArgs', 'swiftlite.cli.bench'),
    'bench train': Command('swiftlite.args.bench_train:TrainBenchArgs', 'swiftlite.cli.bench', distributed=True),
    'models': Command('swiftlite.args.models:ModelsArgs', 'swiftlite.cli.models'),
    'doctor': Command('swiftlite.args.doctor:DoctorArgs', 'swiftlite.cli.doctor'),
}
# other names of commands → the command, and the words it gets first
ROUTES: dict[str, tuple[str, ...]] = {
    'merge-lora': ('export', '--merge_lora', 'true'),
    'app': ('app-ui',),
    'pt': ('sft', '--sft_type', 'full'),
    'serve': ('deploy',),  # of vLLM, whose model may stand without --model
}
NO_PAIRS = "the only training is supervised: 'swiftlite sft' on the preferred answers, as query and response"
# verbs of ms-swift and vLLM that swiftlite does not have → what to use instead
ABSENT: dict[str, str] = {
    'web-ui': "'swiftlite app-ui' is the page to chat on, and a training is a file of flags: 'swiftlite sft my.yaml'",
    'rlhf': NO_PAIRS,
    'dpo': NO_PAIRS,
    'orpo': NO_PAIRS,
    'simpo': NO_PAIRS,
    'kto': NO_PAIRS,
    'grpo': NO_PAIRS,
}


def run(argv: Sequence[str]) -> int:
    """Run one command line (without the program's name); returns the exit status: 0, 1 failure, 2 usage, 130 Ctrl-C."""
    logging.basicConfig(level=logging.WARNING, format='%(message)s')
    logging.getLogger('swiftlite').setLevel(logging.INFO)
    try:
        status = _dispatch(list(argv))
        sys.stdout.flush()
        return status
    except SwiftliteError as error:
        print(f'swiftlite: {error}', file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read the output has gone; keep the interpreter from complaining when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(argv: list[str]) -> int:
    if argv and argv[0] in ('--version', '-V'):
        import swiftlite

        print(f'swiftlite {swiftlite.__version__}')
        return 0
    if argv and argv[0] == 'help':
        argv = [*argv[1:], '--help']
    if not argv or argv[0] in ('--help', '-h'):
        print(overview({name: command.load().summary for name, command in COMMANDS.items()}, ROUTES))
        return 0 if argv else 2
    name, words = argv[0].replace('_', '-').lower(), argv[1:]
    if name in ABSENT:
        raise UsageError(f"swiftlite has no command '{argv[0]}': {ABSENT[name]}")
    if name == 'serve' and words and not words[0].startswith('-') and not is_config(words[0]):
        words = ['--model', *words]
    if name in ROUTES:
        name, *first = ROUTES[name]
        words = [*words[:1], *first, *words[1:]] if words and is_config(words[0]) else [*first, *words]
    if name not in COMMANDS:
        hint = nearest(argv[0], [*COMMANDS, *ROUTES, '--help', '--version']) or ': ' + ', '.join(COMMANDS)
        raise UsageError(f"there is no command '{argv[0]}'{hint}")
    name, words = two_words(name, words)
    command = COMMANDS[name]
    if '--help' in words or '-h' in words:
        print(command_help(command.load(), name))
        return 0
    args = parse(command.load(), words, name)
    several = 'NPROC_PER_NODE' in os.environ or 'NNODES' in os.environ
    if command.distributed and several and 'LOCAL_RANK' not in os.environ:
        return _torchrun(name, words)
    return importlib.import_module(command.module).main(args) or 0


def two_words(name: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """The command and the words after it, where its name may be two words: 'bench train'."""
    if words and f'{name} {words[0]}' in COMMANDS:
        return f'{name} {words[0]}', list(words[1:])
    return name, list(words)


def torchrun_command(name: str, words: Sequence[str]) -> list[str]:
    """The command line that starts one process for each device, from ms-swift's environment variables.

    Raises UsageError for a value that is no number, and for GPUs that are not there.
    """
    command = [sys.executable, '-m', 'torch.distributed.run']
    if os.environ.get('NPROC_PER_NODE') == 'gpu' and not _has_gpu():
        raise UsageError("the environment variable NPROC_PER_NODE is 'gpu', and there is no GPU: set it to a number")
    for variable in ('NPROC_PER_NODE', 'NNODES', 'NODE_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        value = os.environ.get(variable)
        if value is None:
            continue
        if variable != 'MASTER_ADDR' and not value.isdigit() and (variable, value) != ('NPROC_PER_NODE', 'gpu'):
            raise UsageError(f"the environment variable {variable} must be a number, not '{value}'")
        command += [f'--{variable.lower()}', value]
    if os.environ.get('NNODES', '1') == '1' and 'MASTER_PORT' not in os.environ:
        command.append('--standalone')  # picks a free port
    return [*command, '-m', 'swiftlite', *name.split(), *words]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _torchrun(name: str, words: Sequence[str]) -> int:
    command = torchrun_command(name, words)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)
