"""`swiftlite infer`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from swiftlite.infer.dataset import answer_dataset
from swiftlite.infer.repl import Repl
from swiftlite.infer.results import ResultFile, result_folder
from swiftlite.infer.session import Session
from swiftlite.infer.setup import prepare

if TYPE_CHECKING:
    from swiftlite.args.infer import InferArgs


def run(args: InferArgs) -> int:
    """Chat, or answer the data that `args` names. Returns the exit status; raises SwiftliteError."""
    has_data = bool(args.val_dataset or args.dataset)
    chat = not has_data if args.eval_human is None else args.eval_human
    setup = prepare(args)
    print(f'Loading {setup.source.name} from {setup.config.model}', file=sys.stderr, flush=True)
    session = Session(setup, args)
    try:
        with ResultFile(result_folder(args, setup.source) if args.save_result else None) as results:
            if chat:
                Repl(args, session, results).run()
                if results.path is not None:
                    print(f'conversation: {results.path}')
            else:
                answer_dataset(args, session, results)
    finally:
        session.close()
    return 0
