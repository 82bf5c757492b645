"""Answers from a server with OpenAI's API."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from swiftlite.errors import SwiftliteError, nearest
from swiftlite.eval.calls import api_messages, as_text
from swiftlite.eval.items import Item
from swiftlite.infer.seeds import row_seed

if TYPE_CHECKING:
    from swiftlite.args.eval import EvalArgs

Facts = dict[str, Any]
AT_ONCE = 8
SILENCE = 600  # seconds
NO_LIKELIHOOD = 'perplexity and token accuracy need one of swiftlite or vLLM, or the model itself'
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before a request that the server could not take is repeated
BUSY = (408, 429, 500, 502, 503, 504)
TOO_LONG = re.compile(r'max_(completion_)?tokens|context length')
ENDPOINT = re.compile(r'/(chat/completions|completions|models)/?$')


class UrlTarget:
    """The server at --eval_url. SwiftliteError, one sentence, where none answers or it does not know the model."""

    def __init__(self, args: EvalArgs) -> None:
        self._args = args
        self._chat = args.eval_is_chat_model is not False
        base = ENDPOINT.sub('', str(args.eval_url)).rstrip('/')
        self.url = base if re.search(r'/v\d+$', base) else f'{base}/v1'
        headers = {'Authorization': f'Bearer {args.eval_token}'}
        local = httpx.URL(self.url).host in ('127.0.0.1', 'localhost', '::1')
        timeout = httpx.Timeout(SILENCE, connect=10)
        self._client = httpx.Client(headers=headers, timeout=timeout, trust_env=not local, limits=httpx.Limits())
        self._stopping = threading.Event()
        try:
            self.name = self._model(args.model_type or args.model_id_or_path)
        except BaseException:
            self._client.close()
            raise

    def settings(self) -> Facts:
        """What the answers depend on beside the data, as far as it is known from here."""
        return {'url': self.url, 'model': self.name, 'chat': self._chat, **self._body(0)}

    def answers(self, items: Sequence[tuple[int, Item]]) -> Iterator[tuple[int, Facts]]:
        """(row, its response or why there is none), in the order in which they finish."""
        yield from self._parallel([(index, partial(self._ask, index, item)) for index, item in items])

    def _parallel(self, jobs: Sequence[tuple[int, Callable[[], Facts]]]) -> Iterator[tuple[int, Facts]]:
        """(row, what its job returned), --eval_batch_size of them at a time."""
        waiting = iter(jobs)
        running: dict[Future[Facts], int] = {}
        workers = self._args.eval_batch_size or AT_ONCE
        with ThreadPoolExecutor(workers) as pool:
            try:
                while True:
                    while len(running) < workers and (following := next(waiting, None)) is not None:
                        running[pool.submit(following[1])] = following[0]
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        index = running.pop(future)
                        try:
                            facts = future.result()
                        except RowRefused as error:
                            facts = {'error': str(error)}
                        yield index, facts
            except BaseException:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._client.close()  # ends the requests that run
                raise

    def likelihoods(self, items: Sequence[tuple[int, Item]]) -> Iterator[tuple[int, Facts]]:
        """(row, log-probability of its last answer's tokens, their number, how many of them are the likeliest).

        Takes a server with /tokenize and prompt_logprobs: swiftlite's and vLLM's.
        """
        waiting = [(index, partial(self._score, item)) for index, item in items]
        yield from self._parallel(waiting)

    def close(self) -> None:
        self._client.close()

    def _model(self, wanted: str | None) -> str:
        listed = self._send('GET', 'models', None).get('data')
        names = [str(row.get('id')) for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
        if not names and wanted is None:
            raise SwiftliteError(f'the server at {self.url} lists no model: name one with --model_type')
        if wanted is not None and names and wanted not in names:
            hint = nearest(wanted, names) or f': it serves {", ".join(names)}'
            raise SwiftliteError(f"the server at {self.url} has no model '{wanted}'{hint}")
        return wanted or names[0]

    def _body(self, index: int) -> Facts:
        """The sampling fields of a request."""
        args = self._args
        body: Facts = {'max_tokens': args.max_new_tokens, 'seed': row_seed(args.seed, index) % 2**31}
        for name in ('temperature', 'top_p', 'top_k', 'repetition_penalty'):
            if getattr(args, name) is not None:
                body[name] = getattr(args, name)
        if args.do_sample is False:
            body['temperature'] = 0.0
        return body | ({'stop': list(args.stop_words)} if args.stop_words else {})

    def _ask(self, index: int, item: Item) -> Facts:
        messages = self._messages(item.messages)
        body = {'model': self.name, **self._body(index)}
        if self._chat:
            body |= {'messages': messages} | ({'tools': item.tools} if item.tools else {})
        elif len(messages) > 1:
            raise RowRefused('a model that completes texts takes one message and no system prompt')
        else:
            body['prompt'] = messages[0]['content']
        path = 'chat/completions' if self._chat else 'completions'
        try:
            reply = self._send('POST', path, body)
        except RowRefused as error:
            if not TOO_LONG.search(str(error)):
                raise
            reply = self._send('POST', path, self._shortened(body))
        try:
            choice = reply['choices'][0]
            said = choice['message'] if self._chat else {'content': choice['text']}
            text = as_text(said.get('content'), said.get('tool_calls'))
            return {'response': text, 'finish_reason': choice.get('finish_reason')}
        except (KeyError, IndexError, TypeError, AttributeError):
            raise SwiftliteError(f"{self.url} answered with something else than OpenAI's API") from None

    def _shortened(self, body: Facts) -> Facts:
        """The request with room for as many tokens as the context has left, where --max_new_tokens are too many."""
        if self._chat:  # the server's own default
            return {name: value for name, value in body.items() if name != 'max_tokens'}
        counted = self._send('POST', '../tokenize', {'model': self.name, 'prompt': body['prompt']})
        left = int(counted.get('max_model_len') or 0) - int(counted.get('count') or 0)
        if left < 1:
            raise RowRefused('the prompt leaves no room for an answer')
        return body | {'max_tokens': left}

    def _score(self, item: Item) -> Facts:
        ids, part = self._answer_tokens(item)
        body = {'model': self.name, 'prompt': ids, 'max_tokens': 1, 'temperature': 0.0, 'prompt_logprobs': 0}
        try:
            found = self._send('POST', 'completions', body)['choices'][0]['prompt_logprobs']
            scores = [found[place][str(ids[place])] for place in part]
            logprobs = [float(score['logprob']) for score in scores]
            hits = sum(score['rank'] == 1 for score in scores)
        except (KeyError, IndexError, TypeError):
            raise SwiftliteError(f'the server at {self.url} tells no prompt_logprobs: {NO_LIKELIHOOD}') from None
        return {'logprob': sum(logprobs), 'tokens': len(logprobs), 'hits': hits}

    def _answer_tokens(self, item: Item) -> tuple[list[int], range]:
        """(token ids of the whole row, which of them are its last answer and the end of it)."""
        if not self._chat or not item.messages:
            text = '' if not item.messages else item.messages[-1]['content']
            start = len(self._tokenize({'prompt': text})) if text else 1
            ids = self._tokenize({'prompt': text + (item.label or '')})
            return ids, range(start, len(ids))
        whole = {'messages': self._messages(item.whole), 'tools': item.tools, 'add_generation_prompt': False}
        asked = self._tokenize({'messages': self._messages(item.messages), 'tools': item.tools})
        opened = self._tokenize(whole | {'continue_final_message': True})
        ids = self._tokenize(whole)
        if ids[: len(asked)] != asked:
            raise RowRefused("the server's chat template writes the prompt differently before an answer")
        end = len(opened) + 1 if ids[: len(opened)] == opened else len(ids)
        return ids, range(len(asked), min(end, len(ids)))

    def _tokenize(self, body: Facts) -> list[int]:
        reply = self._send('POST', '../tokenize', {'model': self.name, **body})
        if not isinstance(reply.get('tokens'), list):
            raise SwiftliteError(f'the server at {self.url} has no /tokenize: {NO_LIKELIHOOD}')
        return reply['tokens']

    def _messages(self, given: Sequence[Facts]) -> list[Facts]:
        """Messages as the API takes them, with --system before them where they bring none."""
        messages = api_messages(given)
        if self._args.system and messages[0]['role'] != 'system':
            messages.insert(0, {'role': 'system', 'content': self._args.system})
        return messages

    def _send(self, method: str, path: str, body: Facts | None) -> Facts:
        """The JSON object of a good response. A server that is busy is asked again, six times in all."""
        for pause in (*PAUSES, None):
            try:
                response = self._client.request(method, httpx.URL(f'{self.url}/').join(path), json=body)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise SwiftliteError(
                    f"no server answers at {self.url} ({error}): start one with 'swiftlite deploy' or mend --eval_url"
                ) from None
            except httpx.TimeoutException:
                raise SwiftliteError(f'the server at {self.url} was silent for {SILENCE} s') from None
            except httpx.HTTPError as error:
                reason = str(error) or type(error).__name__
                raise SwiftliteError(f'the connection to {self.url} broke off: {reason}') from None
            if response.status_code not in BUSY or pause is None or self._stopping.wait(pause):
                break
        return self._read(response, path)

    def _read(self, response: httpx.Response, path: str) -> Facts:
        try:
            value = response.json()
        except ValueError:
            value = None
        if response.is_error:
            error = value.get('error', value) if isinstance(value, dict) else None
            said = error.get('message') if isinstance(error, dict) else None
            text = f'{said}' if said else f'{response.url} answered {response.status_code}'
            if response.status_code in (400, 413, 422) and path != 'models':
                raise RowRefused(text)
            if path == '../tokenize' and response.status_code in (404, 405):
                raise SwiftliteError(f'the server at {self.url} has no /tokenize: {NO_LIKELIHOOD}')
            raise SwiftliteError(f'the server at {self.url} refuses: {text}')
        if not isinstance(value, dict):
            raise SwiftliteError(f"{response.url} answered with something else than OpenAI's API")
        return value


class RowRefused(SwiftliteError):
    """The server cannot answer this row; others it can."""
