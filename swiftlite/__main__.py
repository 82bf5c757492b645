"""``python -m swiftlite`` and the ``swiftlite`` console script."""

import os
import sys


def main() -> int:
    """Run the command line; returns the exit status."""
    # read when torch loads: threads that spin while they wait make a shared processor several times slower
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    from swiftlite.cli.main import run

    return run(sys.argv[1:])


if __name__ == '__main__':
    sys.exit(main())
