"""A tiny chat checkpoint with a tokenizer, and servers over it in a thread or in a process of their own."""

import asyncio
import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.tiny import EXACT_FLAGS, tiny_qwen2

SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<tool_call>', '</tool_call>']
TEXT = ['system user assistant Hello there! How are you? I am fine, thank you. 12345 你好，你是谁？我是小黄。'] * 20
MAX_LEN = 512


def tiny_chat_checkpoint(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A random Qwen2 with a byte-level BPE of 320 tokens that knows ChatML; any byte is one token or less."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token='<|im_end|>', pad_token='<|endoftext|>')
    settings = {'vocab_size': 320, 'max_position_embeddings': MAX_LEN, 'eos_token_id': 2, 'bos_token_id': None} | config
    tiny_qwen2(folder, seed, **settings)
    tokenizer.save_pretrained(folder)
    (folder / 'generation_config.json').write_text(json.dumps({'eos_token_id': [2, 0], 'temperature': 0.0}))
    return folder


class ServerThread:
    """The application over a real engine process, served by uvicorn in a thread of the test process."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.url = ''
        self.service: Any = None
        self._loop: asyncio.AbstractEventLoop
        self._ready: queue.Queue[BaseException | None] = queue.Queue()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve(path, options)))

    def __enter__(self) -> 'ServerThread':
        self.thread.start()
        if error := self._ready.get(timeout=120):
            raise error
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.should_exit = True
        self.thread.join(30)

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def stats(self) -> dict[str, int]:
        return self.call(self.service.engine.stats())

    async def _serve(self, path: Path, options: dict[str, Any]) -> None:
        from swiftlite.engine.config import EngineConfig
        from swiftlite.engine.process.async_engine import AsyncEngine
        from swiftlite.serve.app import create_app
        from swiftlite.serve.models_list import ServedModels
        from swiftlite.serve.service import Service
        from swiftlite.template import get_template

        self._loop = asyncio.get_running_loop()
        adapters = options.pop('adapters', {})
        service_options = {
            key: options.pop(key) for key in ('api_keys', 'defaults', 'limits', 'allowed_origins') if key in options
        }
        try:
            engine = await AsyncEngine.start(
                EngineConfig(str(path), device='cpu', enable_lora=bool(adapters), **options)
            )
            models = ServedModels(['tiny-model'], str(path), max_model_len=engine.model_config.max_model_len)
            for name, folder in adapters.items():
                request = models.request_for(name, str(folder))
                await engine.add_lora(request)
                models.add(request)
            template = get_template('tiny-chat', engine.tokenizer)
            service_options.setdefault('defaults', {'temperature': 0.0})
            self.service = Service(engine, models, template, lora_enabled=bool(adapters), **service_options)
        except BaseException as error:
            self._ready.put(error)
            raise
        listener = socket.create_server(('127.0.0.1', 0))
        self.url = f'http://127.0.0.1:{listener.getsockname()[1]}'
        config = uvicorn.Config(create_app(self.service), log_level='error', lifespan='off')
        self._server = uvicorn.Server(config)
        serving = asyncio.create_task(self._server.serve([listener]))
        while not self._server.started:
            await asyncio.sleep(0.01)
        self._ready.put(None)
        await serving
        await engine.shutdown(drain=False)


class ServerProcess:
    """`swiftlite deploy …` as a user starts it, exact and small. `lines` holds what it printed."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        command = [sys.executable, '-m', 'swiftlite', 'deploy', '--host', '127.0.0.1', '--port', '0']
        command += [*EXACT_FLAGS, *arguments]
        env = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONUNBUFFERED': '1'} | environment
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
        )
        self.lines: list[str] = []
        self._new: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = ''

    def __enter__(self) -> 'ServerProcess':
        try:
            self.url = self.wait_for(r'https?://[\d.]+:\d+')
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def wait_for(self, pattern: str, timeout: float = 120) -> str:
        """The first new output that matches; what was printed, if the process ends before."""
        while (line := self._new.get(timeout=timeout)) is not None:
            if match := re.search(pattern, line):
                return match[0]
        raise AssertionError(f'{pattern!r} was not printed:\n' + ''.join(self.lines))

    def engine_pid(self) -> int:
        children = Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children').read_text().split()
        for pid in children:
            if b'swiftlite.engine.process.loop' in Path(f'/proc/{pid}/cmdline').read_bytes():
                return int(pid)
        raise AssertionError(f'no engine process among {children}')

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._new.put(line)
        self._new.put(None)


def sse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The JSON events of a stream up to [DONE]."""
    for line in lines:
        if line == 'data: [DONE]':
            return
        if line:
            assert line.startswith('data: '), line
            yield json.loads(line[6:])
    raise AssertionError('the stream ended without [DONE]')
