"""Runs Pyro programs: per-datum log-densities of any model and guide. Alone uses pyro.poutine."""

from pyrovae.program.arguments import check_callables, check_data, explained
from pyrovae.program.binding import bound, is_table
from pyrovae.program.capture import Captured
from pyrovae.program.densities import SHARED_ROWS, Program
from pyrovae.program.handlers import (
    CleanStore,
    Parameters,
    Quantiles,
    Replaced,
    Site,
    Values,
    base,
    evaluation,
    observes_data,
    reproducible,
)
from pyrovae.program.inspection import Check, check, inspect
from pyrovae.program.objective import (
    SummedOut,
    log_weights,
    negative_elbo,
    no_guide,
    summing_out,
)
from pyrovae.program.path import Path
from pyrovae.program.relations import Node, Relations, relations
from pyrovae.program.sharing import (
    draw_latents,
    log_likelihood_of_all,
    scored_by_products,
    shares_latents,
)
from pyrovae.program.simulation import predict, simulate
from pyrovae.program.state import buffers_of, check_kinds, put_back, state_of
from pyrovae.program.supports import check_observed

__all__ = [
    "SHARED_ROWS",
    "Captured",
    "Check",
    "CleanStore",
    "Node",
    "Parameters",
    "Path",
    "Program",
    "Quantiles",
    "Relations",
    "Replaced",
    "Site",
    "SummedOut",
    "Values",
    "base",
    "bound",
    "buffers_of",
    "check_kinds",
    "check",
    "check_callables",
    "check_data",
    "check_observed",
    "draw_latents",
    "evaluation",
    "explained",
    "inspect",
    "is_table",
    "log_likelihood_of_all",
    "log_weights",
    "negative_elbo",
    "no_guide",
    "observes_data",
    "predict",
    "put_back",
    "relations",
    "reproducible",
    "scored_by_products",
    "shares_latents",
    "simulate",
    "state_of",
    "summing_out",
]
