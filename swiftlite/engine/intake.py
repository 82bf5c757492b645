"""Requests whose grammar is being compiled: beside the step loop, so that none waits for another's grammar."""

from __future__ import annotations

import concurrent.futures
import traceback
from concurrent.futures import Future

from ..checkpoint.tokenizer import load_tokenizer
from ..errors import SwiftliteError
from .config import ModelConfig
from .errors import RequestError
from .grammar.compiler import Grammar, GrammarCompiler, tokenizer_source
from .grammar.constraint import Constraint
from .grammar.params import StructuredOutputsParams
from .outputs import SequenceOutput
from .sequence import Sequence

PATIENCE = 0.005  # seconds to wait for a compilation when there is nothing else to do


class GrammarIntake:
    """Sequences between their arrival and the waiting line."""

    def __init__(self, model: ModelConfig, has_tokenizer: bool):
        self._model, self._has_tokenizer = model, has_tokenizer
        self._compiler = GrammarCompiler(lambda: tokenizer_source(load_tokenizer(model.tokenizer), model.eos_token_ids))
        self._compiling: dict[str, tuple[Sequence, Future[Grammar]]] = {}

    def __len__(self) -> int:
        return len(self._compiling)

    def add(self, seq: Sequence) -> bool:
        """Whether the sequence may run now; else `ready` hands it out. RequestError if it can have no grammar."""
        structure = seq.params.structure
        if structure is None:
            return True
        self._need_tokenizer()
        known = self._compiler.known(structure)
        if known is not None:
            self._constrain(seq, known)
            return True
        self._compiling[seq.request_id] = seq, self._compiler.submit(structure)
        return False

    def compile(self, structure: StructuredOutputsParams) -> None:
        """Compile here and now."""
        self._need_tokenizer()
        self._compiler.compile(structure)

    def remove(self, request_id: str) -> None:
        """Forget a sequence if it is here."""
        found = self._compiling.pop(request_id, None)
        if found is not None:
            found[1].cancel()

    def ready(self, wait: bool) -> tuple[list[Sequence], list[SequenceOutput]]:
        """(sequences that may run now, the ends of those that cannot), after a moment if `wait`."""
        if wait:
            concurrent.futures.wait(
                [future for _, future in self._compiling.values()], PATIENCE, concurrent.futures.FIRST_COMPLETED
            )
        good: list[Sequence] = []
        bad: list[SequenceOutput] = []
        for seq, future in [pair for pair in self._compiling.values() if pair[1].done()]:
            del self._compiling[seq.request_id]
            try:
                self._constrain(seq, future.result())
                good.append(seq)
                continue
            except SwiftliteError as error:
                problem = str(error)
            except Exception as error:  # whatever a library raises ends this request alone
                traceback.print_exc()
                problem = f'The grammar could not be compiled ({type(error).__name__}: {error}).'
            bad.append(SequenceOutput(seq.request_id, [], finish_reason='error', error=problem))
        return good, bad

    def shutdown(self) -> None:
        self._compiler.shutdown()

    def _need_tokenizer(self) -> None:
        if not self._has_tokenizer:
            raise RequestError('structured output needs a tokenizer, but skip_tokenizer_init is set.')

    def _constrain(self, seq: Sequence, grammar: Grammar) -> None:
        seq.constraint = Constraint(grammar, seq.params, seq.stop_ids, self._model.vocab_size)
        ending = seq.constraint.begin()
        if ending is not None:
            reason = ending.error or 'the other sampling parameters leave no token that fits it'
            raise RequestError(f'{seq.params.structure.kind} cannot be used: {reason}.')  # type: ignore[union-attr]
