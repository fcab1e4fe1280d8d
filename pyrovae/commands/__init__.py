"""The command lines: `python -m pyrovae.svi`, `.evidence` and `.report`, one file each."""
