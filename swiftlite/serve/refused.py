"""Request fields of OpenAI and vLLM that this server does not honour: 400 and the reason, never silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from swiftlite.serve.errors import ApiError
from swiftlite.serve.protocol import Body


@dataclass(frozen=True)
class Refusal:
    """A field, why it is refused, and which of its values mean what the server does anyway."""

    field: str
    reason: str
    harmless: Callable[[Any], bool] = lambda value: value in (None, False, [], {})


REFUSED = (
    Refusal('structural_tag', 'give tools, or a grammar in structured_outputs'),
    Refusal('use_beam_search', 'beam search is not supported; use temperature 0 or n samples'),
    Refusal('best_of', 'it left the API; use n', lambda v: v in (None, 1)),
    Refusal('num_beams', 'beam search is not supported; use temperature 0 or n samples', lambda v: v in (None, 1)),
    Refusal('length_penalty', 'it belongs to beam search', lambda v: v in (None, 1)),
    Refusal('early_stopping', 'it belongs to beam search'),
    Refusal('logits_processors', 'no code is loaded from outside'),
    Refusal('vllm_xargs', 'the engine has no further sampling arguments'),
    Refusal('thinking_token_budget', 'thinking is not counted apart; use max_completion_tokens'),
    Refusal('include_reasoning', 'thinking stays in the content', lambda v: v in (None, True)),
    Refusal('suffix', 'text cannot be inserted before a suffix', lambda v: v in (None, '')),
    Refusal('prompt_embeds', 'prompts must be text or token ids'),
    Refusal('documents', 'put the documents into the messages'),
    Refusal('chat_template', 'the template is fixed when the server starts (--chat_template)'),
    Refusal('mm_processor_kwargs', 'the model reads text only'),
    Refusal('media_io_kwargs', 'the model reads text only'),
    Refusal('audio', 'the model writes text only'),
    Refusal('modalities', 'the model writes text only', lambda v: v in (None, ['text'])),
    Refusal('functions', 'it was replaced by tools'),
    Refusal('function_call', 'it was replaced by tool_choice', lambda v: v in (None, 'none')),
    Refusal('priority', 'requests are served in order of arrival', lambda v: v in (None, 0)),
)


def refuse_unsupported(body: Body) -> None:
    """Raise 400 for a known field with a value that would change the answer but cannot be honoured."""
    extra = body.model_extra or {}
    for refusal in REFUSED:
        if refusal.field in extra and not refusal.harmless(extra[refusal.field]):
            raise ApiError(f'{refusal.field} was refused: {refusal.reason}.', param=refusal.field)
