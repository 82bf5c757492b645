"""``swiftlite sft``."""

import sys

from swiftlite.args.sft import SftArgs


def main(args: SftArgs) -> int:
    """Fine-tune. Returns the exit status."""
    args.source()  # a wrong name is known before anything is loaded
    print('Loading torch and transformers …', file=sys.stderr, flush=True)
    from swiftlite.train import sft

    sft.run(args)
    return 0
