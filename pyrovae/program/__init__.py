"""Runs Pyro programs: per-datum log-densities of any model and guide. Alone uses pyro.poutine.

From the bottom up: `sites` and `parameters` say what a run has met, `handlers` and `contexts` what
it runs in; `batching` and `particles` how blocks of rows and S particles reach it. `densities` has
the `Program`, log-densities `(S, n)` in nats. `first`, `points`, `masks`, `auxiliaries` and
`trials` find out what a program is, as `inspection` asks. `copies` runs batches for `objective`,
of which training is made; the others are functions of a `Program`.

S is the number of particles, N of data, n of the rows of a block, everywhere here. Sites are by
name: `{"z": (S, n, 8)}`. Whatever runs a program does so under `evaluation` or one of its
relatives.
"""

from pyrovae.program.arguments import check_callables, check_data, check_observed, explained
from pyrovae.program.binding import bound, is_table
from pyrovae.program.capture import Captured
from pyrovae.program.classes import log_weights_by_class
from pyrovae.program.codes import Code, code_of, given_to_others
from pyrovae.program.contexts import evaluation, reproducible
from pyrovae.program.copies import SummedOut, no_guide
from pyrovae.program.curvature import Curvature, Curvatures
from pyrovae.program.densities import Program
from pyrovae.program.handlers import Quantiles, Replaced
from pyrovae.program.inspection import Check, check, check_density, factors_alone, inspect
from pyrovae.program.layout import by_datum, taken
from pyrovae.program.objective import (
    Paths,
    Terms,
    log_weights,
    negative_elbo,
    paths,
    summing_out,
    terms,
)
from pyrovae.program.parameters import CleanStore, Parameters
from pyrovae.program.particles import SHARED_ROWS
from pyrovae.program.path import GeometricPath
from pyrovae.program.relations import Node, Relations, relations
from pyrovae.program.shares import shared_out
from pyrovae.program.sharing import (
    draw_latents,
    log_likelihood_of_all,
    scored_by_products,
    shares_latents,
)
from pyrovae.program.simulation import draw_summed, means, predict, simulate
from pyrovae.program.sites import Distribution, Site, Values, base, is_factor, observes_data
from pyrovae.program.state import buffers_of, check_kinds, put_back, state_of

__all__ = [
    "SHARED_ROWS",
    "Captured",
    "Check",
    "CleanStore",
    "Code",
    "Curvature",
    "Curvatures",
    "Distribution",
    "GeometricPath",
    "Node",
    "Parameters",
    "Paths",
    "Program",
    "Quantiles",
    "Relations",
    "Replaced",
    "Site",
    "SummedOut",
    "Terms",
    "Values",
    "base",
    "bound",
    "buffers_of",
    "by_datum",
    "check",
    "check_callables",
    "check_data",
    "check_density",
    "check_kinds",
    "check_observed",
    "code_of",
    "draw_latents",
    "draw_summed",
    "evaluation",
    "explained",
    "factors_alone",
    "given_to_others",
    "inspect",
    "is_factor",
    "is_table",
    "log_likelihood_of_all",
    "log_weights",
    "log_weights_by_class",
    "means",
    "negative_elbo",
    "no_guide",
    "observes_data",
    "paths",
    "predict",
    "put_back",
    "relations",
    "reproducible",
    "scored_by_products",
    "shared_out",
    "shares_latents",
    "simulate",
    "state_of",
    "summing_out",
    "taken",
    "terms",
]
