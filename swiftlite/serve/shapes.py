"""JSON schemas of the request fields that are checked by hand, for the server's OpenAPI description."""

from __future__ import annotations

from typing import Any

TEXT_PARTS: dict[str, Any] = {
    'type': 'array',
    'items': {
        'type': 'object',
        'properties': {'type': {'enum': ['text', 'input_text', 'output_text']}, 'text': {'type': 'string'}},
        'required': ['type', 'text'],
    },
}
CONTENT: dict[str, Any] = {'anyOf': [{'type': 'string'}, TEXT_PARTS]}
TOOL_CALL: dict[str, Any] = {
    'type': 'object',
    'properties': {
        'id': {'type': 'string'},
        'type': {'const': 'function'},
        'function': {
            'type': 'object',
            'properties': {'name': {'type': 'string'}, 'arguments': {'type': 'string', 'description': 'JSON text'}},
            'required': ['name', 'arguments'],
        },
    },
    'required': ['function'],
}
MESSAGES: dict[str, Any] = {
    'type': 'array',
    'minItems': 1,
    'items': {
        'anyOf': [
            {
                'type': 'object',
                'properties': {'role': {'enum': ['system', 'developer', 'user']}, 'content': CONTENT},
                'required': ['role', 'content'],
            },
            {
                'type': 'object',
                'properties': {
                    'role': {'const': 'assistant'},
                    'content': CONTENT,
                    'reasoning_content': {'type': 'string'},
                    'tool_calls': {'type': 'array', 'items': TOOL_CALL},
                },
                'required': ['role'],
            },
            {
                'type': 'object',
                'properties': {'role': {'const': 'tool'}, 'content': CONTENT, 'tool_call_id': {'type': 'string'}},
                'required': ['role', 'content'],
            },
        ]
    },
}
TOOLS: dict[str, Any] = {
    'type': 'array',
    'items': {
        'type': 'object',
        'properties': {
            'type': {'const': 'function'},
            'function': {
                'type': 'object',
                'properties': {
                    'name': {'type': 'string', 'pattern': r'^[\w.:/-]{1,128}$'},
                    'description': {'type': 'string'},
                    'parameters': {'type': 'object', 'description': 'a JSON schema of an object'},
                    'strict': {'type': 'boolean'},
                },
                'required': ['name'],
            },
        },
        'required': ['type', 'function'],
    },
}
TOOL_CHOICE: dict[str, Any] = {
    'anyOf': [
        {'enum': ['none', 'auto', 'required']},
        {
            'type': 'object',
            'properties': {
                'type': {'const': 'function'},
                'function': {'type': 'object', 'properties': {'name': {'type': 'string'}}, 'required': ['name']},
            },
            'required': ['type', 'function'],
        },
    ]
}
RESPONSE_FORMAT: dict[str, Any] = {
    'anyOf': [
        {'type': 'object', 'properties': {'type': {'enum': ['text', 'json_object']}}, 'required': ['type']},
        {
            'type': 'object',
            'properties': {
                'type': {'const': 'json_schema'},
                'json_schema': {
                    'type': 'object',
                    'properties': {
                        'name': {'type': 'string'},
                        'description': {'type': 'string'},
                        'schema': {'type': 'object'},
                        'strict': {'type': 'boolean'},
                    },
                    'required': ['name', 'schema'],
                },
            },
            'required': ['type', 'json_schema'],
        },
    ]
}
STRUCTURED_OUTPUTS: dict[str, Any] = {
    'type': 'object',
    'description': 'exactly one of json, regex, choice, grammar and json_object',
    'properties': {
        'json': {'anyOf': [{'type': 'object'}, {'type': 'string'}], 'description': 'a JSON schema'},
        'regex': {'type': 'string', 'minLength': 1},
        'choice': {'type': 'array', 'items': {'type': 'string', 'minLength': 1}, 'minItems': 1},
        'grammar': {'type': 'string', 'minLength': 1, 'description': "a Lark grammar in llguidance's dialect"},
        'json_object': {'type': 'boolean'},
        'whitespace_pattern': {'type': 'string', 'description': 'a regex: the space between the parts of JSON'},
        'disable_any_whitespace': {'type': 'boolean'},
        'disable_additional_properties': {'type': 'boolean'},
    },
    'additionalProperties': False,
}
IDS: dict[str, Any] = {'type': 'array', 'items': {'type': 'integer', 'minimum': 0}, 'minItems': 1}
PROMPT: dict[str, Any] = {
    'anyOf': [
        {'type': 'string', 'minLength': 1},
        IDS,
        {'type': 'array', 'items': {'type': 'string', 'minLength': 1}, 'minItems': 1},
        {'type': 'array', 'items': IDS, 'minItems': 1},
    ]
}
