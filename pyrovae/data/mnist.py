"""MNIST and its relatives, as torchvision lays them out on disk."""

__all__ = ["EMNIST", "MNIST", "QMNIST", "FashionMNIST", "KMNIST"]

import sys
from pathlib import Path
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor

from pyrovae.arrays import LARGE, said, size_of
from pyrovae.data.base import DataSet
from pyrovae.data.splits import Split
from pyrovae.errors import DataError


class Images(Protocol):
    """What torchvision makes of its files: `data` are bytes `(N, 28, 28)`."""

    data: Tensor
    targets: Tensor


class MNIST(DataSet):
    """MNIST: x `(70000, 784)` grey in [0, 1], y from 0 to 9; training and test file.

    Its relatives differ in torchvision's class and in what that is asked for.

    Attributes:
        theirs: Name of torchvision's class, and of its folder below the root.
        asked: Keywords of its training part, and of its test part.

    References:
        Gradient-based learning applied to document recognition (LeCun et al., 1998),
        https://doi.org/10.1109/5.726791
    """

    name = "mnist"
    image_shape = 28, 28
    scaling = "bytes / 255"
    valid_size = 10_000
    theirs: ClassVar[str] = "MNIST"
    asked: ClassVar[tuple[dict[str, object], ...]] = ({"train": True}, {"train": False})

    def read(self, root: Path, download: bool) -> tuple[Split, ...]:
        """Returns training and test data in the order of the files.

        Args:
            root: Holds the folder of torchvision's, such as `MNIST`.
            download: Whether torchvision may fetch what is missing.
        """
        raw = (root / self.theirs / "raw").resolve()
        try:
            for file in (root / self.theirs).glob("*/*"):
                if size_of(file) > LARGE:
                    raise ValueError(f"{file.name} is larger than {LARGE:,} bytes")
            cls = getattr(_datasets(), self.theirs)
            return tuple(self._split(cls(root, download=download, **kw)) for kw in self.asked)
        except Exception as e:  # whatever torchvision makes of broken files
            there = "cannot be read" if any(raw.glob("*")) else "is not there"
            raise DataError(
                f"{self.name} {there}: searched {raw} for torchvision's files ({said(e)}); point "
                "--root at the folder that holds it, or fetch it with --download"
            ) from e

    def _split(self, images: Images) -> Split:
        """Returns rows and labels, x `(N, 784)` float32 in [0, 1], y `(N,)` int64.

        Args:
            images: What torchvision read.

        Raises:
            ValueError: Unless they are images of bytes, labelled.
        """
        x, y = self.upright(images.data), self.classes(images.targets)
        if x.dtype != torch.uint8 or x.shape[1:] != (28, 28) or y.shape != x.shape[:1]:
            raise ValueError(
                f"{x.dtype} images {tuple(x.shape)} with labels {tuple(y.shape)}, where bytes "
                "(N, 28, 28) with labels (N,) were expected"
            )
        return Split(x.reshape(len(x), -1).float() / 255, y.long())

    def upright(self, x: Tensor) -> Tensor:
        """Returns the images `(N, 28, 28)` as one reads them."""
        return x

    def classes(self, y: Tensor) -> Tensor:
        """Returns the labels `(N,)` of what torchvision calls targets."""
        return y


class FashionMNIST(MNIST):
    """Fashion-MNIST: as MNIST, x `(70000, 784)`, of clothes.

    References:
        Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017), https://arxiv.org/abs/1708.07747
    """

    name, theirs = "fashion-mnist", "FashionMNIST"


class KMNIST(MNIST):
    """KMNIST: as MNIST, x `(70000, 784)`, of cursive Japanese.

    References:
        Deep learning for classical Japanese literature (Clanuwat et al., 2018),
        https://arxiv.org/abs/1812.01718
    """

    name, theirs = "kmnist", "KMNIST"


class EMNIST(MNIST):
    """EMNIST: as MNIST, x `(131600, 784)`, of digits and letters, the balanced 47 classes.

    References:
        EMNIST (Cohen, Afshar, Tapson and van Schaik, 2017), https://arxiv.org/abs/1702.05373
    """

    name, theirs = "emnist", "EMNIST"
    asked = {"split": "balanced", "train": True}, {"split": "balanced", "train": False}

    def upright(self, x: Tensor) -> Tensor:
        """Returns the images, which the files hold by columns."""
        return x.transpose(1, 2)


class QMNIST(MNIST):
    """QMNIST: MNIST made again, x `(120000, 784)`, with 60,000 test images.

    References:
        Cold case: the lost MNIST digits (Yadav and Bottou, 2019), https://arxiv.org/abs/1905.10498
    """

    name, theirs = "qmnist", "QMNIST"
    asked = {"what": "train"}, {"what": "test"}

    def classes(self, y: Tensor) -> Tensor:
        """Returns the labels, the first of eight columns."""
        return y[:, 0]


def _datasets() -> object:
    """Returns torchvision.datasets, also where torchvision's CUDA build stands beside a CPU torch.

    Such a pair dies on import for want of two operator schemas; the data sets need no operator, so
    declaring them is enough.
    """
    try:
        import torchvision.datasets as datasets
    except RuntimeError as e:
        if "torchvision::" not in str(e):
            raise
        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        _schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.datasets as datasets
    return cast(object, datasets)


_schemas = torch.library.Library("torchvision", "FRAGMENT")
