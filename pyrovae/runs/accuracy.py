"""How many data a model finds the class of."""

__all__ = ["accuracy"]

import torch

from pyrovae.data.splits import Split
from pyrovae.models.base import Classifies

ROWS = 1000  # classified at a time


@torch.no_grad()
def accuracy(model: object, split: Split, device: str | torch.device) -> dict[str, object]:
    """Returns the share of data whose label is the class most probable to a model, as "accuracy".

    There is none of a model that does not classify, or of data without labels.

    Args:
        model: Any.
        split: Data, with their true labels; where one is missing, -1, it does not count.
        device: Where the model is.
    """
    if not isinstance(model, Classifies) or split.y is None or not (split.y >= 0).any():
        return {}
    found = [
        model.classify(split.x[at : at + ROWS].to(device)).argmax(1).cpu()
        for at in range(0, len(split), ROWS)
    ]
    known = split.y >= 0
    return {"accuracy": (torch.cat(found) == split.y)[known].double().mean().item()}
