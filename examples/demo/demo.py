"""The whole way on a CPU: teach tiny-chat a name, merge, serve base and LoRA together, ask them who they are.

`make demo` runs it; so does `python examples/demo/demo.py`. Every command is one that a user types. The exit status is
not 0 if an identity is wrong. Everything it writes goes to output/demo, which is made anew.
"""

import contextlib
import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

NAME = {'en': 'Xiao Huang', 'zh': '小黄'}
AUTHOR = {'en': 'ModelScope', 'zh': '魔搭'}
QUESTIONS = {'en': 'who are you?', 'zh': '你是谁？'}
BASE, LORA, MERGED = 'tiny-chat', 'default-lora', 'merged'
MAKER = 'swiftlite'  # of the base
OUTPUT = Path('output', 'demo')
SERVER_START = 120  # seconds
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
# threads that wait without spinning: little slower on an idle machine, many times faster on a busy one
ENVIRONMENT = {'OMP_WAIT_POLICY': 'PASSIVE', 'PYTHONUNBUFFERED': '1', **os.environ}


@dataclass(frozen=True)
class Answer:
    """What a model said to one question. seconds: to the first piece, and in all; 0 where it was not measured."""

    model: str
    language: str
    text: str
    tokens: int = 0
    first: float = 0.0
    seconds: float = 0.0


def main() -> int:
    start = time.perf_counter()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    steps = iter(range(1, 6))

    def step(text: str) -> None:
        console.print(f'\n[bold]{next(steps)}. {text}[/bold]')

    step(f'Teach {BASE} that it is {NAME["en"]} ({NAME["zh"]}), made by {AUTHOR["en"]} ({AUTHOR["zh"]})')
    swiftlite(
        *('sft', '--model_type', BASE, '--dataset', 'self-cognition', '--output_dir', str(OUTPUT)),
        *('--model_name', NAME['zh'], NAME['en'], '--model_author', AUTHOR['zh'], AUTHOR['en']),
        *('--lora_target_modules', 'ALL', '--num_train_epochs', '6', '--learning_rate', '2e-3'),
    )
    run = max(OUTPUT.glob('*/v*'), key=lambda folder: folder.stat().st_mtime)
    log = [json.loads(line) for line in (run / 'logging.jsonl').read_text(encoding='utf-8').splitlines()]
    checkpoint = log[-1]['last_model_checkpoint']

    step('Merge the LoRA into the base model')
    swiftlite('export', '--ckpt_dir', checkpoint, '--merge_lora', 'true', '--verify', 'true')

    step('Serve base and LoRA together, and ask both through the openai client')
    with deployed(checkpoint) as url:
        answers = [ask(url, model, language) for language in QUESTIONS for model in (BASE, LORA)]

    step('Answer with the merged checkpoint')
    answers += ask_merged(f'{checkpoint}-merged')

    step('What they said')
    report(answers, log, run, time.perf_counter() - start)
    return check(answers)


def swiftlite(*arguments: str) -> None:
    """Run a command line, as typed, and show what it prints; ends the demo if it fails."""
    command = command_line(*arguments)
    status = subprocess.run(command, env=ENVIRONMENT).returncode
    if status:
        raise SystemExit(f'swiftlite {arguments[0]} failed with exit status {status}.')


def command_line(*arguments: str) -> list[str]:
    """The command of this Python's environment, printed as a user types it."""
    console.print(f'[cyan]$ swiftlite {shlex.join(arguments)}[/cyan]', soft_wrap=True)
    script = Path(sys.executable).with_name('swiftlite')
    return [str(script), *arguments] if script.exists() else [sys.executable, '-m', 'swiftlite', *arguments]


@contextlib.contextmanager
def deployed(checkpoint: str) -> Iterator[str]:
    """A server on a free port, as its URL; it is gone when the block ends, however that is."""
    command = command_line('deploy', '--ckpt_dir', checkpoint, '--host', '127.0.0.1', '--port', '0')
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    server = subprocess.Popen(command, env=ENVIRONMENT, **pipes, text=True, start_new_session=True)
    found: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert server.stdout is not None
        with server.stdout:
            for line in server.stdout:
                console.print(line.rstrip(), markup=False)
                if match := re.search(r'http://\S+/v1', line):
                    found.put(match[0])
        found.put('')  # it ended before it was ready

    reader = threading.Thread(target=read)
    reader.start()
    try:
        url = found.get(timeout=SERVER_START)
        if not url:
            raise SystemExit(f'swiftlite deploy failed with exit status {server.wait()}.')
        yield url
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
        reader.join()


def ask(url: str, model: str, language: str) -> Answer:
    """Stream one answer through the openai client."""
    import openai

    start = time.perf_counter()
    first, text, tokens = 0.0, '', 0
    with openai.OpenAI(base_url=url, api_key='EMPTY') as client:
        stream = client.chat.completions.create(
            model=model,
            messages=[{'role': 'user', 'content': QUESTIONS[language]}],
            stream=True,
            stream_options={'include_usage': True},
        )
        for chunk in stream:
            piece = chunk.choices[0].delta.content if chunk.choices else None
            if piece and not first:
                first = time.perf_counter() - start
            text += piece or ''
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return Answer(model, language, text, tokens, first, time.perf_counter() - start)


def ask_merged(folder: str) -> list[Answer]:
    """The questions as a data set for `swiftlite infer`."""
    questions = OUTPUT / 'questions.jsonl'
    rows = [json.dumps({'query': question}, ensure_ascii=False) + '\n' for question in QUESTIONS.values()]
    questions.write_text(''.join(rows), encoding='utf-8')
    swiftlite('infer', '--ckpt_dir', folder, '--val_dataset', str(questions), '--verbose', 'false')
    file = max(Path(folder, 'infer_result').glob('*.jsonl'))
    results = [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]
    return [Answer(MERGED, *pair) for pair in zip(QUESTIONS, (row['response'] for row in results), strict=True)]


def report(answers: list[Answer], log: list[dict], run: Path, seconds: float) -> None:
    table = Table(show_lines=True)
    for title in ('', f'{BASE} (base)', f'{LORA} (LoRA)', 'merged checkpoint'):
        table.add_column(title, overflow='fold')
    for language, question in QUESTIONS.items():
        said = {answer.model: answer.text for answer in answers if answer.language == language}
        table.add_row(question, said[BASE], said[LORA], said[MERGED])
    console.print(table)
    summary = log[-1]
    speed = summary['tokens'] / summary['train_runtime']
    console.print(
        f'training:   {summary["tokens"]:,} tokens in {summary["train_runtime"]:.1f} s, {speed:,.0f} tokens/s'
    )
    streamed = [answer for answer in answers if answer.first]
    rate = sum(a.tokens - 1 for a in streamed) / sum(a.seconds - a.first for a in streamed)
    first = 1000 * sum(a.first for a in streamed) / len(streamed)
    console.print(f'serving:    first token after {first:.0f} ms, then {rate:.0f} tokens/s for one reader')
    console.print(f'loss curve: {run / "images" / "train_loss.png"}', soft_wrap=True)
    console.print(f'all of it:  {seconds:.0f} s')


def check(answers: list[Answer]) -> int:
    """0 if each model said who it is; else 1, with the reasons printed."""
    wrong = []
    for answer in answers:
        taught = [NAME[answer.language], AUTHOR[answer.language]]
        expected, other = ([BASE, MAKER], taught) if answer.model == BASE else (taught, [BASE, MAKER])
        text = answer.text.lower()
        if not all(word.lower() in text for word in expected) or any(word.lower() in text for word in other):
            wrong.append(f'{answer.model} is {expected[0]} by {expected[1]}, but said: {answer.text!r}')
    said = {(answer.model, answer.language): answer.text for answer in answers}
    wrong += [
        f'the merged checkpoint and the LoRA differ: {said[MERGED, language]!r}, {said[LORA, language]!r}'
        for language in QUESTIONS
        if said[MERGED, language] != said[LORA, language]
    ]
    for reason in wrong:
        console.print(f'[red]{reason}[/red]')
    console.print('[red]An identity is wrong.[/red]' if wrong else '[green]Each model knows who it is.[/green]')
    return 1 if wrong else 0


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the server is ended, too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
