"""Structured output: from a schema, regex, choice or grammar to the tokens that may come next (llguidance)."""

from __future__ import annotations

import functools
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ..errors import RequestError
from .params import StructuredOutputsParams

EBNF = re.compile(r'^\s*[\w-]+\s*::=', re.MULTILINE)
CACHED = 32  # compiled grammars kept for the next request
# what one mask may cost: tens of milliseconds at worst; beyond it the grammar is refused or its answer ends
LIMITS = {
    'initial_lexer_fuel': 1_000_000,
    'step_lexer_fuel': 200_000,
    'step_max_items': 50_000,
    'max_items_in_row': 2_000,
    'max_lexer_states': 50_000,
    'max_grammar_size': 200_000,
}


def tokenizer_source(tokenizer: Any, eos_token_ids: Iterable[int] = ()) -> tuple[str, list[int]]:
    """(the text of its tokenizer.json, its end tokens) of a Hugging Face tokenizer.

    Raises:
        RequestError: it has no fast form.
    """
    fast = getattr(tokenizer, 'backend_tokenizer', None)
    if fast is None or not hasattr(fast, 'to_str'):
        raise RequestError('structured output needs a tokenizer with a tokenizer.json (a fast one); this one has none.')
    own = tokenizer.eos_token_id
    ends = dict.fromkeys([*eos_token_ids, *([] if own is None else [own])])
    text = json.loads(fast.to_str())
    text['padding'] = text['truncation'] = None
    return json.dumps(text, ensure_ascii=False), [i for i in ends if 0 <= i < len(tokenizer)]


class Vocabulary:
    """A tokenizer (see tokenizer_source) as llguidance reads it; takes about a second for 150,000 tokens."""

    def __init__(self, source: str, ends: list[int]):
        import llguidance

        self.tokens = llguidance.LLTokenizer(source, eos_token=ends or None)
        self.size: int = self.tokens.vocab_size
        self.ends = ends
        self._limits = llguidance.LLParserLimits(verbose_errors=False, **LIMITS)
        self._new = llguidance.LLMatcher

    @functools.cached_property
    def executor(self) -> Any:
        """Threads that make masks."""
        import llguidance

        return llguidance.LLExecutor()

    def matcher(self, source: str) -> Any:
        return self._new(self.tokens, source, log_level=0, limits=self._limits)


class Grammar:
    """Where one answer stands in its grammar. Not shared between answers: `start` makes another at the beginning."""

    def __init__(self, vocabulary: Vocabulary, matcher: Any):
        self._vocabulary, self._matcher = vocabulary, matcher

    def start(self) -> Grammar:
        """The same grammar for another answer; only of one that has taken no token."""
        return Grammar(self._vocabulary, self._matcher.deep_copy())

    def advance(self, token: int) -> bool:
        """Take a token in; False if the grammar does not allow it here."""
        return bool(self._matcher.consume_token(token))

    @property
    def accepts(self) -> bool:
        """The answer may end here."""
        return bool(self._matcher.is_accepting())

    @property
    def error(self) -> str | None:
        """Why the grammar cannot go on: it grew beyond its limits, or nothing can follow."""
        return _sentence(self._matcher.get_error()) if self._matcher.is_error() else None

    def mask(self) -> np.ndarray:
        """Tokens that may come next, end tokens left out, as bits: uint32 [ceil(size / 32)], token i is bit i % 32 of
        word i // 32."""
        return masks([self])[0]


def masks(grammars: Sequence[Grammar]) -> np.ndarray:
    """The masks of N answers of one vocabulary, made in parallel: uint32 [N, words] (see Grammar.mask)."""
    vocabulary = grammars[0]._vocabulary
    words = np.zeros((len(grammars), -(-vocabulary.size // 32)), dtype=np.uint32)
    running = [(g._matcher, i) for i, g in enumerate(grammars) if not g._matcher.is_stopped()]
    if len(running) == 1:
        matcher, i = running[0]
        matcher.unsafe_compute_mask_ptr(words[i].ctypes.data, words[i].nbytes)
    elif running:
        vocabulary.executor.unsafe_compute_mask_ptr(running, words.ctypes.data, words[0].nbytes, len(words))
    for end in vocabulary.ends:
        words[:, end // 32] &= ~np.uint32(1 << end % 32)
    return words


class GrammarCompiler:
    """Compiles for one tokenizer and remembers the last few; what is new is tried out by a GrammarGuard first.

    source: makes what tokenizer_source returns; called when the first grammar comes.
    """

    def __init__(self, source: Callable[[], tuple[str, list[int]]]):
        from .guard import GrammarGuard

        self._source = functools.cache(source)
        self._guard = GrammarGuard(self._source)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._vocabulary: Vocabulary | None = None
        self._known: OrderedDict[str, Grammar | str] = OrderedDict()  # a text: why it cannot be used
        self._pool: ThreadPoolExecutor | None = None

    def known(self, params: StructuredOutputsParams) -> Grammar | None:
        """A new answer's grammar if it was compiled before; RequestError if that failed."""
        key = params.key()
        with self._lock:
            found = self._known.get(key)
            if found is None:
                return None
            self._known.move_to_end(key)
            if isinstance(found, str):
                raise RequestError(found)
            return found.start()

    def compile(self, params: StructuredOutputsParams) -> Grammar:
        """A new answer's grammar; RequestError says what is wrong with it."""
        found = self.known(params)
        if found is not None:
            return found
        try:
            self._guard.check(params)
            with self._reading:  # takes about a second, in which `known` must not wait
                if self._vocabulary is None:
                    self._vocabulary = Vocabulary(*self._source())
            grammar = build(params, self._vocabulary)
        except RequestError as error:
            self._remember(params, str(error))
            raise
        self._remember(params, grammar)
        return grammar.start()

    def submit(self, params: StructuredOutputsParams) -> Future[Grammar]:
        """Compile beside the caller; one at a time, in order."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, 'grammar')
        return self._pool.submit(self.compile, params)

    def shutdown(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._guard.close()  # also ends the compilation that runs

    def _remember(self, params: StructuredOutputsParams, found: Grammar | str) -> None:
        with self._lock:
            self._known[params.key()] = found
            while len(self._known) > CACHED:
                self._known.popitem(last=False)


def compile_grammar(params: StructuredOutputsParams, tokenizer: Any) -> Grammar:
    """The grammar of `params` for a Hugging Face tokenizer, at its beginning.

    Schemas yield JSON as `json.dumps` writes it ({"a": 1, "b": [2, 3]}) unless whitespace_pattern or
    disable_any_whitespace say otherwise: small models run into endless whitespace where it is free.

    Raises:
        RequestError: one sentence on what is wrong with the schema, regex, choice or grammar: a syntax error, a feature
            that does not exist, no possible answer, or a size beyond the limits.
    """
    return _compiler(tokenizer).compile(params)


def check_structured_outputs(params: StructuredOutputsParams, tokenizer: Any) -> Future[Grammar] | None:
    """None if the grammar of `params` is known to be good, RequestError if it is known to be none.

    Otherwise it is compiled beside the caller, one at a time: the future raises RequestError where it cannot be used.
    """
    compiler = _compiler(tokenizer)
    return None if compiler.known(params) is not None else compiler.submit(params)


def set_bits(words: np.ndarray, ids: Iterable[int], value: bool) -> None:
    """Set or clear tokens in a mask (uint32 [W]); ids beyond it are left out."""
    index = np.fromiter(ids, dtype=np.int64)
    index = index[index < 32 * len(words)]
    bits = np.left_shift(np.uint32(1), (index % 32).astype(np.uint32))
    if value:
        np.bitwise_or.at(words, index // 32, bits)
    else:
        np.bitwise_and.at(words, index // 32, ~bits)


@functools.lru_cache(maxsize=4)
def _compiler(tokenizer: Any) -> GrammarCompiler:
    return GrammarCompiler(lambda: tokenizer_source(tokenizer))


def build(params: StructuredOutputsParams, vocabulary: Vocabulary) -> Grammar:
    """Compile in this process, whatever it costs; RequestError says what is wrong."""
    try:
        grammar = Grammar(vocabulary, vocabulary.matcher(_source(params)))
    except (ValueError, UnicodeEncodeError, RecursionError) as error:
        raise RequestError(f'{params.kind} cannot be used: {_sentence(str(error))}.') from None
    first = None if grammar.error is not None else grammar.start()
    if first is not None and not first.mask().any() and first.error is None:
        raise RequestError(f'{params.kind} cannot be used: no text of at least one character fits it.')
    problem = grammar.error or (first.error if first is not None else None)
    if problem is not None:
        raise RequestError(f'{params.kind} cannot be used: {problem}.')
    return grammar


def _source(params: StructuredOutputsParams) -> str:
    """The grammar as llguidance reads it."""
    from llguidance import LLMatcher

    if params.regex is not None:
        return LLMatcher.grammar_from_regex(params.regex)
    if params.grammar is not None:
        return LLMatcher.grammar_from_lark(_lark(params.grammar))
    if params.choice is not None:
        texts = (json.dumps(text, ensure_ascii=False) for text in params.choice)  # JSON's escapes are Lark's
        return LLMatcher.grammar_from_lark('start: ' + ' | '.join(texts))
    schema = {'type': 'object'} if params.json is None else params.json
    assert isinstance(schema, dict)
    if params.disable_additional_properties:
        schema = _closed(schema)
    if params.whitespace_pattern is not None:
        style: dict[str, Any] = {'whitespace_pattern': params.whitespace_pattern}
    elif params.disable_any_whitespace:
        style = {'whitespace_flexible': False}
    else:
        style = {'whitespace_flexible': False, 'item_separator': ', ', 'key_separator': ': '}
    style['coerce_one_of'] = True
    return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=style)


def _lark(grammar: str) -> str:
    """The grammar in Lark; one in the EBNF of llama.cpp and xgrammar, whose rules are `name ::= …`, is rewritten."""
    if not EBNF.search(grammar):
        return grammar
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return gbnf_to_lark(grammar)
    except Exception as error:
        raise ValueError(f'its EBNF (name ::= …) cannot be read: {error}') from None


def _closed(schema: Any) -> Any:
    """The schema with additionalProperties false in every object that does not mention it."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) if name not in ('enum', 'const') else part for name, part in schema.items()}
    if schema.get('type') == 'object' or isinstance(schema.get('properties'), dict):
        closed.setdefault('additionalProperties', False)
    return closed


def _sentence(message: str) -> str:
    """llguidance's message on one line: without its picture of the place."""
    if message.strip().startswith('NoExtension'):
        return 'no text fits it'
    lines = [line.strip() for line in message.replace('<non-verbose/>', '').splitlines()]
    lines = [line for line in lines if line and not line.startswith('^') and ' | ' not in line]
    text = next((line for line in lines if line.startswith('error: ')), '')  # a regex's own message comes last
    place = lines[0] if lines else 'it is too complex'
    text = f'{place.removesuffix("regex parse error:").rstrip()} {text.removeprefix("error: ")}' if text else place
    return text.strip().rstrip('.')[:300]
