"""`fedopt`, and `python -m fedopt` where the script is not on the path."""

from __future__ import annotations

import sys

from fedopt.shadowing import shadowed


def main() -> None:
    sentence = shadowed()
    if sentence is not None:
        print(f"fedopt: {sentence}", file=sys.stderr)
        sys.exit(2)
    try:
        from fedopt.commands.cli import (
            main as command,  # here, so that Ctrl-C ends the import, too, without a traceback
        )

        command()
    except KeyboardInterrupt:
        print("fedopt: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
