"""Models: one file each, with a `model` and a `guide`."""

from pyrovae.models import linear, vae

__all__ = ["linear", "vae"]
