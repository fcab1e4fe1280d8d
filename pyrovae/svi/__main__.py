"""The command `python -m pyrovae.svi`."""

import sys

from pyrovae.commands.svi import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
