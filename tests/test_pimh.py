"""Coupled chains on tables of runs, against the literal algorithm and laws with known answers."""

from itertools import pairwise, permutations, product
from math import exp, inf, log

import pytest
import torch
from scipy.special import digamma
from scipy.stats import t as student

from pyrovae.evidence.samplers.pimh import coupled, in_order


def normal(scale, num_runs, num_data, seed=0):
    """Log w of E[w] = 1, of which the upper bound is scale^2 / 2."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(num_runs, num_data, generator=generator, dtype=torch.float64)
    return scale * draws - scale**2 / 2


def gamma(shape, num_runs, num_data):
    """Log w of E[w] = 1, skewed to the left; upper bound digamma(shape + 1) - log(shape)."""
    torch.manual_seed(0)
    concentration = torch.full((num_runs, num_data), shape, dtype=torch.float64)
    return torch.distributions.Gamma(concentration, shape).sample().log()


def z_score(errors):
    """Of a mean over data."""
    return (errors.mean() / errors.std() * len(errors) ** 0.5).item()


def self_normalised(log_w):
    return (log_w.softmax(0) * log_w).nansum(0)


def literal(h, first, uniforms):
    """H and min(tau, M) as the papers define them, of one order and its uniform numbers."""

    def step(state, proposal, u):
        return proposal if u < min(1.0, exp(h[proposal] - h[state])) else state

    x, y = [0, step(0, 1, uniforms[0])], [1]
    for t in range(2, len(h)):
        x.append(step(x[-1], t, uniforms[t - 1]))
        y.append(step(y[-1], t, uniforms[t - 1]))
    tau = next((t for t in range(1, len(h)) if x[t] == y[t - 1]), len(h))
    last = len(h) - 1
    window = last - first + 1
    mean = sum(h[x[t]] for t in range(first, last + 1)) / window
    for t in range(first + 1, tau):
        mean += min(1, (t - first) / window) * (h[x[t]] - h[y[t - 1]])
    return mean, tau


def over_uniforms(h, first):
    """The literal algorithm's means: it changes where a uniform crosses a ratio of weights."""
    ends = [
        sorted({0.0, 1.0, *(min(1.0, exp(h[t] - h[i])) for i in range(t))})
        for t in range(1, len(h))
    ]
    means = torch.zeros(2, dtype=torch.float64)
    for cell in product(*(pairwise(e) for e in ends)):
        chance = torch.tensor([high - low for low, high in cell]).prod()
        means += chance * torch.tensor(literal(h, first, [(a + b) / 2 for a, b in cell]))
    return means


@pytest.mark.parametrize("first", [1, 2, 4])
def test_an_order_is_the_papers_estimate_in_its_mean_over_uniform_numbers(first):
    for h in normal(1.0, 5, 6).T.tolist():
        reference = over_uniforms(h, first)
        column = torch.tensor(h)
        torch.testing.assert_close(torch.stack(in_order(column.exp(), column, first)), reference)


def all_orders(column, first):
    """Mean H and min(tau, M) over every order of a datum's runs."""
    orders = torch.tensor(list(permutations(range(len(column))))).T
    h = column[orders]
    return torch.stack([x.mean() for x in in_order(h.exp(), h, first)])


def test_over_all_orders_it_is_where_the_chain_is_after_the_last_run():
    """Whatever k: the bias that remains is that of so many steps."""
    column = normal(1.5, 5, 1)[:, 0]
    last, stays = 0.0, 0.0
    for order in permutations(column.tolist()):
        law = {0: 1.0}  # of X over the runs
        for t in range(1, 5):
            moves = {i: p * min(1.0, exp(order[t] - order[i])) for i, p in law.items()}
            law = {i: p - moves[i] for i, p in law.items()} | {t: sum(moves.values())}
        last += sum(p * order[i] for i, p in law.items()) / 120
        stays += law[0] / 120
    for first in (1, 2, 3, 4):
        assert all_orders(column, first)[0].item() == pytest.approx(last)
    result = coupled(column[:, None], seed=0)
    assert result.unmet.item() == pytest.approx(stays)


def test_the_orders_drawn_are_enough():
    log_w = normal(0.7, 6, 50)
    exact = torch.stack([all_orders(column, 1) for column in log_w.T], dim=1)
    result = coupled(log_w, seed=0)
    error = (result.upper - exact[0]) / result.std_error
    assert 0.01 < error.square().mean().sqrt() < 0.2
    assert (result.meeting_time - exact[1]).abs().max() < 0.5
    assert (result.meeting_time - exact[1]).mean().abs() < 0.1


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("scale", "num_runs"), [(0.3, 12), (0.5, 24)])
def test_the_upper_bound_of_normal_log_weights_is_without_bias(scale, num_runs, seed):
    """A self-normalised mean is biased by ten standard errors on these tables."""
    log_w = normal(scale, num_runs, 20_000, seed)
    truth = scale**2 / 2
    assert abs(z_score(coupled(log_w, seed).upper - truth)) < 4
    assert z_score(self_normalised(log_w) - truth) < -8


def test_the_upper_bound_of_gamma_weights_is_without_bias():
    log_w = gamma(8.0, 12, 20_000)
    truth = digamma(9.0) - log(8.0)
    assert abs(z_score(coupled(log_w, seed=0).upper - truth)) < 4
    assert z_score(self_normalised(log_w) - truth) < -8
    assert log_w.mean() < 0 < truth  # log p(x) = 0 lies between


@pytest.mark.parametrize(
    ("scale", "least"), [(0.1, 0.93), (0.3, 0.91), (0.7, 0.84)], ids=["0.1", "0.3", "0.7"]
)
@pytest.mark.parametrize("num_runs", [8, 12, 32])
def test_errors_are_honest(scale, least, num_runs):
    """In the mean square, and where they are Student's; below 95 % where the bound is skewed."""
    result = coupled(normal(scale, num_runs, 4_000), seed=0)
    error = result.upper - scale**2 / 2
    stated = result.std_error.square().mean().sqrt()
    assert 0.85 < stated / error.square().mean().sqrt() < 1.1
    reach = student.ppf(0.975, num_runs - 1) * result.std_error
    assert least < (error.abs() < reach).double().mean() < 0.97


def test_errors_are_the_jackknifes_and_the_orders():
    """Of the self-normalised mean without each run; and the variance over seeds of one table."""
    log_w = normal(1.5, 12, 100)
    kept = [[j for j in range(12) if j != i] for i in range(12)]
    means = torch.stack([self_normalised(log_w[rows]) for rows in kept])
    jackknife = 11 / 12 * (means - means.mean(0)).square().sum(0)
    results = [coupled(log_w, seed) for seed in range(30)]
    orders = torch.stack([r.std_error.square() for r in results]).mean(0) - jackknife
    seen = torch.stack([r.upper for r in results]).var(0)
    assert 0.7 < seen.mean() / orders.mean() < 1.3  # each variance has 29 degrees of freedom
    assert orders.mean() < 0.02 * jackknife.mean()


def test_a_heavy_tail_shows_in_chains_that_do_not_meet():
    """Its bound, 3.1, is out of reach of 12 runs; what they give is honest by its diagnostics."""
    good, bad = (coupled(normal(scale, 12, 4_000), seed=0) for scale in (0.3, 2.5))
    assert bad.upper.mean() < 1
    assert 12 * bad.unmet.mean() > 0.3
    assert 12 * good.unmet.mean() < 0.001
    assert bad.meeting_time.mean() > 1.8 > 1.3 > good.meeting_time.mean()


@pytest.mark.parametrize("above", [30.0, 760.0])
def test_one_run_that_outweighs_all_others(above):
    """The jackknife sees it, where the delta method's error is 0."""
    log_w = torch.zeros(12, 1)
    log_w[3] = above
    result = coupled(log_w, seed=0)
    assert result.upper.item() == pytest.approx(above, abs=1e-4)
    assert result.unmet.item() == pytest.approx(1 / 12)
    assert 0.8 < result.std_error.item() / above < 1


def test_the_order_of_the_runs_is_noise():
    log_w = normal(0.5, 12, 500)
    one, other = coupled(log_w, seed=0), coupled(log_w.flip(0), seed=0)
    change = (one.upper - other.upper) / one.std_error
    assert 0 < change.square().mean().sqrt() < 0.3
    torch.testing.assert_close(one.unmet, other.unmet)


def test_a_constant_moves_the_bound_alone():
    log_w = normal(0.5, 8, 20)
    one, other = coupled(log_w, seed=0), coupled(log_w - 1024.0, seed=0)
    close = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(other.upper, one.upper - 1024.0, **close)
    torch.testing.assert_close(other.std_error, one.std_error, **close)
    torch.testing.assert_close(other.meeting_time, one.meeting_time, **close)


def test_data_do_not_see_each_other():
    log_w = normal(0.5, 8, 1_500)
    log_w[0, 5], log_w[:, 6] = -inf, -inf
    whole = coupled(log_w, seed=0)
    for rows in (slice(0, 7), slice(5, 6), slice(700, 1_500)):
        part = coupled(log_w[:, rows], seed=0)
        for name in ("upper", "std_error", "unmet", "meeting_time"):
            expected = getattr(whole, name)[rows]
            torch.testing.assert_close(getattr(part, name), expected, rtol=1e-12, atol=1e-12)


def test_seeds():
    log_w = normal(0.5, 8, 10)
    before = torch.get_rng_state()
    one = coupled(log_w, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert one == coupled(log_w, seed=0)
    assert not torch.equal(one.upper, coupled(log_w, seed=1).upper)
    assert coupled(log_w) != coupled(log_w)


def test_runs_without_weight_drop_out():
    """In the mean over all orders, to rounding; and of many data, without bias."""
    column = normal(0.7, 5, 1)[:, 0]
    zeros = torch.cat([column, torch.tensor([-40.0])])  # all but 0
    torch.testing.assert_close(all_orders(zeros, 2)[0], all_orders(column, 1)[0])
    log_w = normal(0.3, 16, 20_000, seed=1)
    log_w[torch.rand(log_w.shape) < 0.2] = -inf
    result = coupled(log_w, seed=0)
    assert abs(z_score(result.upper - 0.3**2 / 2)) < 4
    assert z_score(self_normalised(log_w) - 0.3**2 / 2) < -8


def test_too_few_runs_with_weight():
    log_w = torch.full((8, 3), -inf)
    log_w[2, 1] = -700.0
    log_w[:2, 2] = 0.0
    result = coupled(log_w, seed=0)
    assert result.upper.tolist() == pytest.approx([inf, -700.0, 0.0])
    assert result.std_error.tolist() == [inf, inf, 0.0]
    assert result.unmet.tolist() == [1.0, 1 / 8, 0.0]
    assert result.meeting_time[0] == 8
    assert result.meeting_time[2] < result.meeting_time[1] < 8


def test_few_runs_and_many():
    pair = coupled(torch.tensor([[0.0], [log(0.5)]]), seed=0)
    assert pair.unmet.item() == pytest.approx(0.25)  # 0.5 after 1 is taken in at one half
    many = coupled(normal(0.3, 256, 300), seed=0)
    assert abs(z_score(many.upper - 0.3**2 / 2)) < 4
    assert many.std_error.mean() < 0.03


def test_tables_that_are_none():
    with pytest.raises(ValueError, match=r"shape \(1, 4\); give \(runs, data\), two runs"):
        coupled(torch.zeros(1, 4), seed=0)
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        coupled(torch.zeros(4), seed=0)
    with pytest.raises(ValueError, match=r"shape \(4, 0\)"):
        coupled(torch.zeros(4, 0), seed=0)
    for number in (torch.nan, inf):
        log_w = torch.zeros(4, 3)
        log_w[2, 1] = number
        with pytest.raises(ValueError, match="at particle 2 of datum 1"):
            coupled(log_w, seed=0)
    with pytest.raises(ValueError, match="seed is -1"):
        coupled(torch.zeros(4, 3), seed=-1)


def test_what_it_says_of_itself():
    assert repr(coupled(torch.zeros(4, 3), seed=0)) == (
        "Coupled(3 data: upper 0.0000 nats, std. error of a datum 0.0000; unmet 0.0000, at most "
        "0.0000, after 1.00 runs)"
    )
