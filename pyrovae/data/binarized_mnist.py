"""The binarized MNIST that papers report log P(X) of: drawn once, and published so."""

__all__ = ["BinarizedMNIST"]

from pathlib import Path

import numpy as np
import torch

from pyrovae.arrays import read_amat
from pyrovae.data.base import DataSet
from pyrovae.data.splits import PARTS, Split
from pyrovae.errors import DataError


class BinarizedMNIST(DataSet):
    """Binarized MNIST: x `(70000, 784)` in {0, 1}, no labels; 50,000, 10,000 and 10,000 rows.

    A folder holds its three .amat or .mat files, `root` or `binarized_mnist` below it.

    References:
        The neural autoregressive distribution estimator (Larochelle and Murray, 2011),
        https://proceedings.mlr.press/v15/larochelle11a.html
    """

    name = "binarized-mnist"
    image_shape = 28, 28

    def read(self, root: Path, download: bool) -> tuple[Split, ...]:
        """Returns the three parts; DataError where a file is missing or not as published.

        Args:
            root: Holds the files, or their folder.
            download: Not used: nobody but a browser fetches them.
        """
        return tuple(_part(root, part) for part in PARTS)

    def published(self, parts: tuple[Split, ...]) -> str:
        """Returns whether all that was published is there."""
        whole = [len(p) for p in parts] == [50_000, 10_000, 10_000]
        return "fixed, as published" if whole else "fixed, part of what was published"


def _part(root: Path, part: str) -> Split:
    """Returns one part, x `(N, 784)` float32, in the order of its file.

    Of two files, .mat is taken before .amat, and those in `root` before those in the folder below.

    Args:
        root: Holds the files, or their folder `binarized_mnist`.
        part: "train", "valid" or "test".

    Raises:
        DataError: If there is no file of it, or it is not as published.
    """
    folders = root, root / "binarized_mnist"
    stems = [folder / f"binarized_mnist_{part}" for folder in folders]
    files = [s.with_suffix(kind) for s in stems for kind in (".mat", ".amat")]
    file = next((f for f in files if f.exists()), None)
    if file is None:
        raise DataError(
            f"binarized-mnist is not there: searched "
            f"{' and '.join(str(f.resolve()) for f in folders)} for {stems[0].name}.amat or "
            ".mat; get the three files of Larochelle and Murray (2011) and name their folder "
            "with --root"
        )
    x = read_amat(file, 28 * 28)
    if not np.isin(x, (0, 1)).all():
        raise DataError(f"{file} holds other numbers than 0 and 1, which is not as published")
    return Split(torch.from_numpy(np.array(x, np.float32, order="C")))
