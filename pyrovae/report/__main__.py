"""The command `python -m pyrovae.report`."""

import sys

from pyrovae.commands.report import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
