"""The server that is measured: which model it has, and its requests as messages."""

from __future__ import annotations

import re
from typing import Any

import httpx

from ..args.bench import BenchArgs
from ..errors import SwiftliteError, nearest
from .http_stream import EventClient
from .workload import Request, as_text

ENDPOINT = re.compile(r'/(chat/completions|completions|models)/?$')
PATHS = {'completions': 'completions', 'chat': 'chat/completions'}


def api_root(url: str) -> str:
    """http://host:8000/v1 of that address, or of it without /v1, or with an endpoint behind it."""
    base = ENDPOINT.sub('', url).rstrip('/')
    return base if re.search(r'/v\d+$', base) else f'{base}/v1'


def headers(args: BenchArgs) -> dict[str, str]:
    return {'Authorization': f'Bearer {args.api_key}'} if args.api_key else {}


def model_name(args: BenchArgs, root: str, wanted: str | None) -> str:
    """The model to ask for. SwiftliteError where no server answers, or it does not have that model."""
    try:
        response = httpx.get(f'{root}/models', headers=headers(args), timeout=30, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise SwiftliteError(
            f"no server answers at {root} ({reason}): start one with 'swiftlite deploy', or leave out --base_url"
        ) from None
    if response.status_code in (401, 403):
        raise SwiftliteError(f'the server at {root} wants another --api_key ({response.status_code})')
    try:
        names = [str(row['id']) for row in response.json()['data']]
    except (ValueError, KeyError, TypeError):
        names = []
    if wanted is None and not names:
        raise SwiftliteError(f'the server at {root} lists no model: name one with --model')
    if wanted is not None and names and wanted not in names:
        hint = nearest(wanted, names) or f': it serves {", ".join(names)}'
        raise SwiftliteError(f"the server at {root} has no model '{wanted}'{hint}")
    return wanted or names[0]


def messages(
    args: BenchArgs, client: EventClient, model: str, requests: list[Request], adapters: list[str]
) -> list[bytes]:
    """Each request as it is sent."""
    path = PATHS[args.endpoint]
    return [client.message(path, _body(args, model, r, index, adapters)) for index, r in enumerate(requests)]


def _body(args: BenchArgs, model: str, request: Request, index: int, adapters: list[str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        'model': model if request.adapter is None else adapters[request.adapter],
        'max_tokens': request.output_len,
        'temperature': args.temperature,
        'stream': True,
        'stream_options': {'include_usage': True},
    }
    if args.temperature:
        body |= {'top_p': args.top_p, 'seed': args.seed + index}
        if args.top_k > 0:
            body['top_k'] = args.top_k
    if args.ignore_eos:
        body['ignore_eos'] = True
    if args.endpoint == 'chat':
        return body | {'messages': [{'role': 'user', 'content': as_text(request)}]}
    return body | {'prompt': as_text(request) if args.prompt_format == 'text' else request.prompt}
