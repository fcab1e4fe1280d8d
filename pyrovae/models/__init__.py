"""Models: one file each, with a `model` and a `guide`."""
