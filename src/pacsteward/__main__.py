"""``pacsteward`` and ``python -m pacsteward``: where the program begins.

Half of what a start takes is importing, and a fifth of that would be the collector of cycles
looking through modules, which stay. So it looks at what comes after them alone.
"""

from __future__ import annotations

import gc


def main() -> None:
    """Import the program, then run the command line and leave with its exit code."""
    gc.disable()
    from pacsteward import cli

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
