"""`swiftlite infer`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from swiftlite.errors import UsageError
from swiftlite.infer.dataset import answer_dataset, read_rows
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
    if len(setup.adapters) > 1 and not chat:
        raise UsageError(
            f'a data set is answered with one adapter, not with {" and ".join(setup.adapters)}: give one, or chat'
        )
    data = None if chat else read_rows(args)
    path = Path(args.result_path) if args.result_path else None
    results = ResultFile(result_folder(args, setup.source), path) if args.save_result else ResultFile()
    results.check()
    print(f'Loading {setup.source.name} from {setup.config.model}', file=sys.stderr, flush=True)
    session = Session(setup, args)
    try:
        with results:
            if data is not None:
                answer_dataset(args, session, results, data)
                return 0
            failed = Repl(args, session, results).run()
            if results.path is not None:
                print(f'conversation: {results.path}', file=sys.stdout if sys.stdin.isatty() else sys.stderr)
            return 1 if failed and not sys.stdin.isatty() else 0
    finally:
        session.close()
