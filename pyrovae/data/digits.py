"""Digits: 1,797 images of 8 x 8 that come with scikit-learn."""

__all__ = ["Digits"]

from pathlib import Path

import torch

from pyrovae.data.base import DataSet
from pyrovae.data.splits import Split


class Digits(DataSet):
    """Scikit-learn's digits: x `(1797, 64)` in [0, 1], y `(1797,)` from 0 to 9; no download.

    References:
        Optical recognition of handwritten digits (Alpaydin and Kaynak, 1998),
        https://doi.org/10.24432/C50P49
    """

    name = "digits"
    image_shape = 8, 8
    scaling = "grey levels / 16"

    def read(self, root: Path, download: bool) -> Split:
        """Returns all rows, which are to be divided at random.

        Args:
            root: Not used: they are embedded.
            download: Not used.
        """
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return Split(torch.from_numpy(x).float() / 16, torch.from_numpy(y))
