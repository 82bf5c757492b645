"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Any

from swiftlite.serve.errors import ApiError
from swiftlite.serve.messages import check_tools, template_messages, template_options
from swiftlite.serve.protocol import DetokenizeBody, TokenizeBody
from swiftlite.serve.sampling import check_token_ids
from swiftlite.serve.service import Service, beside_if_long


async def tokenize(service: Service, body: TokenizeBody) -> dict[str, Any]:
    """Token ids of a text or of messages, exactly as the completion endpoints would encode them."""
    service.models.get(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError('Give either prompt or messages.', param='prompt')
    if body.messages is not None:
        template = service.require_template()
        ids = await service.encode_chat(
            template_messages(body.messages),
            tools=check_tools(body.tools),
            add_generation_prompt=body.add_generation_prompt and not body.continue_final_message,
            continue_final_message=body.continue_final_message,
            **template_options(body, template),
        )
    else:
        text = body.prompt or ''
        ids = await beside_if_long(len(text), lambda: service.text_ids(text, body.add_special_tokens))
    strings = service.engine.tokenizer.convert_ids_to_tokens(ids) if body.return_token_strs else None
    return {'count': len(ids), 'max_model_len': service.max_model_len, 'tokens': ids, 'token_strs': strings}


async def detokenize(service: Service, body: DetokenizeBody) -> dict[str, Any]:
    service.models.get(body.model)

    def decoded() -> str:
        check_token_ids(body.tokens, service.vocab_size, 'tokens')
        return service.engine.tokenizer.decode(body.tokens)

    return {'prompt': await beside_if_long(len(body.tokens), decoded)}
