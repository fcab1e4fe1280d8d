"""Runs Pyro programs: per-datum log-densities of any model and guide. Alone uses pyro.poutine."""

from pyrovae.program.densities import Program
from pyrovae.program.handlers import CleanStore, Parameters, check_data, check_observed, evaluation
from pyrovae.program.inspection import Check, check, inspect

__all__ = [
    "Check",
    "CleanStore",
    "Parameters",
    "Program",
    "check",
    "check_data",
    "check_observed",
    "evaluation",
    "inspect",
]
