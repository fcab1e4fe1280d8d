"""The command `python -m pyrovae.evidence`."""

import sys

from pyrovae.commands.evidence import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
