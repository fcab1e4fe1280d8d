"""Importance sampling and naive sampling: tables of log-weights."""

__all__ = ["importance_sampling", "prior_sampling"]

from collections.abc import Callable
from typing import Unpack

from torch import Tensor

from pyrovae.checks import check_options
from pyrovae.evidence.samplers.options import Run, RunOptions, SamplingOptions, options_of
from pyrovae.evidence.samplers.sampler import ImportanceSampler, joined
from pyrovae.evidence.samplers.scheme import (
    Proposal,
    Scheme,
    check_proposal,
)
from pyrovae.evidence.weights import LogWeights
from pyrovae.threads import one_at_a_time


@one_at_a_time
def importance_sampling(
    model: Callable[..., object],
    guide: Callable[..., object],
    *data: Tensor,
    num_particles: int | str,
    proposal: Proposal | Callable[..., object] | None = None,
    qmc: bool = False,
    seed: int | None = None,
    **options: Unpack[SamplingOptions],
) -> LogWeights:
    r"""Returns log-weights `(S, N)` with the guide, or a better proposal r, to draw from.

    .. math::
        \log w_{sn} = \log p(x_n, z_{sn}) - \log r(z_{sn} | x_n), \quad z_{sn} \sim r(z | x_n)

    Densities are unscaled: `poutine.scale` and subsampling change nothing, masks remove exactly
    what they mask. Modules run in `eval()` mode without gradients and are restored. The guide
    encodes a block of data once; the model decodes in chunks. Discrete latents that the guide
    leaves out are summed out.

    `num_particles="auto"` spends draws where they are needed. A pilot draws until it can tell how
    many each datum needs for a standard error within `tolerance` and a good k-hat; then as many
    are drawn afresh, and they alone make the estimate. Stopping by the estimate's own error would
    bias it: a run that happens to miss the large weights looks finished. Data that `max_particles`
    or `max_seconds` leave short keep what was drawn for them: `verdict` names them.

    Args:
        model: Any Pyro callable of `*data`.
        guide: Another.
        data: Tensors of equal length N, as the program takes them.
        num_particles: S, particles drawn per datum; or "auto".
        proposal: `None` draws from the guide; better ones made of it are `pv.Widened()`,
            `pv.Defensive()` and `pv.Refined()`; or a Pyro guide to draw from instead.
        qmc: Draw scrambled Sobol points, in 16 independent randomizations, between which the
            standard error is taken; S is a multiple of 16, best 16 times a power of 2.
        seed: Fixes the draws; the caller's random streams stay untouched. `None` draws a seed.
        **options: What "auto" aims at, and how the run is done:

            - `tolerance`: standard error aimed at by "auto", nats (0.01).
            - `max_particles`: particles per datum that "auto" draws at most (100,000).
            - `max_seconds`: time after which the pilot of "auto" asks for no more; results then
              depend on the machine (`None`: no limit).
            - `plate`: name of the plate over the data ("data"); `None` gives joint weights `(S,)`
              of all data.
            - `block_size`: data per block (64); with a seed, draws depend on it, the target never
              does.
            - `chunk_size`: particles x data that the model decodes at once; bounds memory
              (`None`: what the cores' caches hold).
            - `compile`: run guide and model as compiled graphs (`False`); see
              `pyrovae.program.Captured`.

    Raises:
        TypeError, ValueError: As `pyrovae.check` explains; also for NaN weights, datum named, or
            a proposal that does not fit the guide, site named.

    References:
        Importance weighted autoencoders (Burda et al., 2015), https://arxiv.org/abs/1509.00519
        Quasi-Monte Carlo variational inference (Buchholz et al., 2018),
        https://arxiv.org/abs/1807.01604
    """
    check_options(options, SamplingOptions, importance_sampling)
    check_proposal(proposal)
    if not (proposal is None or isinstance(proposal, Proposal)):
        guide, proposal = proposal, None
    drawn = {"num_particles": num_particles, "proposal": proposal, "qmc": qmc}
    scheme, run = options_of(Scheme, {**drawn, **options}), options_of(Run, options)
    sampler = ImportanceSampler.of(model, guide, data, scheme, seed, run)
    return joined(list(map(sampler.log_weights, sampler.program.blocks(run.block_size))))


@one_at_a_time
def prior_sampling(
    model: Callable[..., object],
    *data: Tensor,
    num_particles: int,
    qmc: bool = False,
    seed: int | None = None,
    **options: Unpack[RunOptions],
) -> LogWeights:
    r"""Returns log-weights `(S, N)` with the prior as proposal: naive Monte Carlo.

    .. math::
        \log w_{sn} = \log p(x_n | z_{sn}), \quad z_{sn} \sim p(z)

    For almost every z, p(x|z) is near 0: the estimate falls short by nats, and its standard error
    does not notice; ESS and k-hat do.

    Where no latent depends on the data, which running the program tells, all data share the same
    draws, each decoded once: the estimates of different data are then not independent.

    Args:
        model: Any Pyro callable of `*data`.
        data: Tensors of equal length N, as the program takes them.
        num_particles: S, particles drawn per datum, or for all data where they share them.
        qmc: Draw scrambled Sobol points, as in `importance_sampling`; each datum's are its own.
        seed: Fixes the draws; the caller's random streams stay untouched. `None` draws a seed.
        **options: How the run is done, as in `importance_sampling`: `plate`, `block_size`,
            `chunk_size`, `compile`.

    Raises:
        TypeError, ValueError: As `importance_sampling`.

    References:
        Tutorial on variational autoencoders (Doersch, 2016), section 2, https://arxiv.org/abs/1606.05908
    """
    check_options(options, RunOptions, prior_sampling)
    scheme, run = Scheme(num_particles, qmc=qmc), options_of(Run, options)
    sampler = ImportanceSampler.of(model, None, data, scheme, seed, run)
    return joined(list(map(sampler.log_weights, sampler.program.blocks(run.block_size))))
