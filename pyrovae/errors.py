"""Errors that users are told of in one sentence."""

__all__ = ["DataError"]


class DataError(ValueError):
    """Data that is missing, or that is not what it should be."""
