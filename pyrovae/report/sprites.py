"""Many small images as one picture, which a page shows parts of."""

__all__ = ["sprite"]

from base64 import b64encode
from io import BytesIO
from math import ceil, prod

import torch
from PIL import Image
from torch import Tensor


def sprite(tiles: Tensor, shape: tuple[int, int], across: int, like: Tensor) -> str:
    r"""Returns rows `(n, D)` as one picture, `across` side by side, black at the data's largest.

    .. math::
        \mathrm{grey} = (\max - x) / (\max - \min)

    with the least and the largest number of `like`. Where all are one of these, a pixel takes a
    bit; else there are 64 greys.

    Args:
        tiles: The n images; places left over in the last row are white.
        shape: Height and width of each, H W = D.
        across: Images side by side.
        like: Data, whose numbers fix what is white and what is black.

    Returns:
        A PNG as a data URL.
    """
    low, high = like.min().item(), like.max().item()
    down = ceil(len(tiles) / across)
    padded = torch.full((down * across, prod(shape)), low)
    padded[: len(tiles)] = tiles.cpu()
    grid = padded.reshape(down, across, *shape).transpose(1, 2)
    scaled = (high - grid.reshape(down * shape[0], -1)) / max(high - low, 1e-12)
    image = Image.fromarray((scaled.clamp(0, 1) * 255).round().byte().numpy())
    if bool(((tiles == low) | (tiles == high)).all()):
        image = image.convert("1", dither=Image.Dither.NONE)
    else:
        image = image.quantize(64)
    with BytesIO() as file:
        image.save(file, "PNG", optimize=True)
        return "data:image/png;base64," + b64encode(file.getvalue()).decode()
