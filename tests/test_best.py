"""Each datum's cheapest way: how it is chosen, and that it is right where it says ok."""

from math import log

import known
import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import BernoulliDecoder, LinearGaussian

import pyrovae as pv
from pyrovae.evidence import cheapest
from pyrovae.evidence.estimators import best
from pyrovae.evidence.results import Evidence
from pyrovae.evidence.samplers import rungs
from pyrovae.program import inspect


def found(model, **options):
    evidence = pv.evaluate(model.model, model.guide, model.x, estimators="best", seed=0, **options)
    return evidence["best"], evidence


KNOWN = {
    "PPCA 10, guide x 0.8": lambda: known.linear("", 20, 10, 0.8, n=60),
    "PPCA 5, guide shifted": lambda: known.linear("", 10, 5, n=60, shift=3.0),
    "PPCA 20, from the prior": lambda: known.linear("", 40, 20, n=60, sigma=0.1, kind="prior"),
    "condition 10^4": lambda: known.ill_conditioned(60, 10),
    "Gamma-Poisson": lambda: known.gamma_poisson(60, 1.3),
    "Beta-Binomial": lambda: known.beta_binomial(60),
    "mixture and latent": lambda: known.gaussians(60, 0.5),
    "a tenth outliers": lambda: known.outliers(60),
}
FAST = "PPCA 10, guide x 0.8", "Gamma-Poisson"


@pytest.mark.parametrize(
    "make",
    [pytest.param(m, marks=[] if name in FAST else pytest.mark.slow) for name, m in KNOWN.items()],
    ids=KNOWN,
)
def test_is_right_where_it_says_ok(make):
    model = make()
    e, _ = found(model)
    assert e.share("ok") >= 0.95
    low, high = e.interval()
    covered = ((low - 1e-6 <= model.truth) & (model.truth <= high + 1e-6)).double().mean()
    assert covered >= 0.86  # 95 % of 60, less 3 standard errors
    assert e.std_error.square().mean().sqrt() < 2 * 0.15


@pytest.mark.parametrize(
    "make",
    [
        lambda: known.student(400, 2, 2.0, "guide"),
        pytest.param(lambda: known.gamma_poisson(400, 1.3), marks=pytest.mark.slow),
        pytest.param(lambda: known.beta_binomial(400), marks=pytest.mark.slow),
    ],
    ids=["Student", "Gamma-Poisson", "Beta-Binomial"],
)
def test_intervals_cover_as_they_say(make):
    """Eight particles know too little of rare large weights: 11 % of Student's lay outside."""
    model = make()
    e, _ = found(model)
    low, high = e.interval()
    outside = ((model.truth < low) | (high < model.truth)).double().mean()
    assert outside <= 0.05 + 3 * 0.011
    assert e.share("ok") >= 0.95


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_lost_mode_is_never_ok(share):
    model = known.two_modes(24, share)
    e, _ = found(model)
    assert set(e.verdict()) == {"more temperatures"}


def one_sided():
    """z ~ N(6, 1) or N(-6, 1), x ~ N((|z|, z), (0.3^2, 1)); large data mislead the guide.

    The last two of 40 are larger than any that is simulated.
    """
    sd = torch.tensor([0.3, 1.0])

    def prior(shape=()):
        modes = dist.Normal(torch.tensor([6.0, -6.0]).expand(*shape, 2), 1.0)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(*shape, 2)), modes)

    def log_x(z, x):
        return dist.Normal(torch.stack([z.abs(), z], -1), sd).to_event(1).log_prob(x)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior((len(x),)))
            loc = torch.stack([z.abs(), z], -1)
            pyro.sample("x", dist.Normal(loc, sd).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            side = torch.where(x[:, 0] > 12, 1.0, x[:, 1].sign())
            pyro.sample("z", dist.Normal(side * x[:, 0], 0.3))

    generator = torch.Generator().manual_seed(1)
    z = 6 + torch.randn(40, generator=generator)
    x = torch.stack([z, z], -1) + sd * torch.randn(40, 2, generator=generator)
    x[-2:] = torch.tensor([[12.5, -12.0], [13.0, -11.0]])
    log_f = lambda z: prior().log_prob(z)[:, None] + log_x(z[:, None], x)  # noqa: E731
    return known.Known("one-sided", model, guide, x, known.grid(-20, 20, log_f))


@pytest.mark.slow
def test_a_mode_that_only_real_data_lose_is_found_by_another_start(monkeypatch):
    model = one_sided()
    e, _ = found(model)
    assert set(e.verdict()[:-2]) == {"ok"}
    assert e.verdict()[-2:] == ["more temperatures"] * 2
    assert e.extras["missed"].tolist() == [0] * 38 + [1] * 2
    off = (e.value - model.truth).abs()
    assert (off < 5 * e.std_error)[:-2].all()
    assert (off[-2:] < 5).all()
    monkeypatch.setattr(cheapest, "SUSPECT", float("inf"))
    e, _ = found(model)
    assert set(e.verdict()) == {"ok"}  # by 70 nats and more too low, the last two
    assert ((model.truth - e.value)[-2:] > 50).all()


@pytest.mark.slow
def test_a_funnel_is_annealed_from_its_guide_and_not_from_a_normal_at_the_mode():
    model = known.funnel(32, "guide")
    program = inspect(model.model, model.guide, model.x, block_size=64)
    assert cheapest.chosen(program, 0.15, 96, 0).kernel.proposal is None
    normal = known.linear("", 10, 5, 0.3, n=32)
    program = inspect(normal.model, normal.guide, normal.x, block_size=64)
    assert cheapest.chosen(program, 0.15, 96, 0).kernel.proposal == pv.Laplace()


def test_a_start_without_weights_is_left_for_one_that_has_them(monkeypatch):
    model = known.linear("", 10, 5, 0.3, n=32)
    program = inspect(model.model, model.guide, model.x, block_size=64)
    gaps = lambda program, rung, seed: torch.zeros(0 if rung.kernel.proposal else 8)  # noqa: E731
    monkeypatch.setattr(cheapest, "_gaps", gaps)
    assert cheapest.chosen(program, 0.15, 96, 0).kernel.proposal is None


def test_the_way_of_a_datum_is_told_by_other_draws_than_those_that_are_weighed(monkeypatch):
    """The same temperatures for runs of another random stream."""
    scenario = BernoulliDecoder()
    program = inspect(scenario.model, scenario.guide, scenario.data(64), block_size=64)
    ways = cheapest.chosen(program, 0.05, 96, 0)
    one = ways.run(program, range(64), 0)
    monkeypatch.setattr(rungs, "RUNS", 99)
    two = ways.run(program, range(64), 0)
    annealed = (one.temperatures > 1) & (two.temperatures > 1)
    assert annealed.any()
    assert torch.equal(one.temperatures[annealed], two.temperatures[annealed])
    assert not torch.equal(one.log_w[0, annealed], two.log_w[0, annealed])


@pytest.mark.slow
def test_more_temperatures_for_the_data_that_need_them():
    """Of two sorts of data: one whose posterior is normal, and one with ten skewed latents."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 10), 2.0).to_event(1))
            pyro.sample("x", dist.Poisson(z.exp()).to_event(1), obs=x)

    few, many = torch.zeros(32, 10), torch.full((32, 10), 60.0)
    x = torch.cat([few, many])
    program = inspect(model, None, x, block_size=64)
    loose, w = (cheapest.chosen(program, t, 512, 0).run(program, range(64), 0) for t in (0.3, 0.1))
    steps = w.temperatures
    assert steps[:32].sum() > 1.2 * loose.temperatures[:32].sum()
    assert w.std_error()[:32].mean() < loose.std_error()[:32].mean()
    assert steps[:32].min() > 1
    assert (steps[32:] == 1).all()
    one = lambda z, k: dist.Normal(0.0, 2.0).log_prob(z) + dist.Poisson(z.exp()).log_prob(k)  # noqa: E731
    grid = torch.linspace(-22, 12, 20_001, dtype=torch.float64)
    truth = [
        10 * (one(grid, torch.tensor(k)).logsumexp(0) + log(grid[1] - grid[0]))
        for k in (0.0, 60.0)
    ]
    truth = torch.tensor(truth).repeat_interleave(32)
    low, high = w.interval()
    assert ((low <= truth) & (truth <= high)).double().mean() > 0.84  # 95 %, less 4 s.e.


def test_programs_without_a_gradient():
    """Of discrete latents that a guide draws, and of densities that are summed out."""

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Poisson(torch.full((len(x),), 3.0)))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Poisson(x.clamp(min=1.0)))

    x = torch.tensor([1.0, 4.0, 6.0])
    k = torch.arange(60.0)
    truth = (dist.Poisson(3.0).log_prob(k) + dist.Normal(k, 1.0).log_prob(x[:, None])).logsumexp(
        -1
    )
    for g in (guide, None):
        evidence = pv.evaluate(model, g, x, estimators="best", seed=0)
        e = evidence["best"]
        assert (e.extras["temperatures"] == 0).all()
        assert ((e.value - truth).abs() < 4 * e.std_error + 1e-6).all()
        assert "K " in evidence.reading()


@pytest.mark.slow
@pytest.mark.parametrize("guide", [True, False])
def test_all_data_as_one(guide):
    scenario = LinearGaussian.make(x_dim=5, z_dim=2)
    x = scenario.data(6)
    truth = scenario.log_evidence(x).sum()
    w = pv.Best()(scenario.model, scenario.mean_field if guide else None, x, seed=0, plate=None)
    assert ((w.log_evidence() - truth).abs() < 4 * w.std_error() + 1e-6).all()


def test_compiled_programs(monkeypatch):
    scenario = LinearGaussian.make(x_dim=5, z_dim=2)
    x = scenario.data(6)
    options = {"estimators": "best", "seed": 0, "progress": False}
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    one, two = (
        pv.evaluate(scenario.model, scenario.mean_field, x, **options, compile=compiled)["best"]
        for compiled in (False, True)
    )
    torch.testing.assert_close(one.value, two.value, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "estimator",
    [pv.Best(0.3, 24), pv.Sandwich(max_temperatures=1), pv.AIS(3, proposal=pv.Laplace())],
    ids=lambda e: e.name,
)
def test_modules_are_left_as_they_were(estimator):
    """Running averages of a batch norm above all, which a run in `train()` mode would move."""
    norm = torch.nn.BatchNorm1d(1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * norm(x), 0.5).to_event(1))

    pv.evaluate(model, guide, 3 + torch.randn(20, 1), estimators=[estimator], seed=0)
    assert (norm.running_mean == 0).all()
    assert norm.training


@pytest.mark.slow
def test_blocks_and_workers_give_the_same_bytes(monkeypatch):
    monkeypatch.setattr(best, "BLOCK", 16)
    scenario = BernoulliDecoder()
    x = scenario.data(40)
    args = (scenario.model, scenario.guide, x)
    options = {"estimators": [pv.Best(0.5, 24)], "seed": 3, "progress": False}
    blocks = {}
    one = pv.evaluate(*args, **options, workers=1, blocks=blocks)
    assert len(blocks) == 4  # of data, and of the second way
    assert one == pv.evaluate(*args, **options, workers=2)
    first = next(iter(blocks))
    assert one == pv.evaluate(*args, **options, workers=1, blocks={first: blocks[first]})


def test_the_table_of_a_call():
    scenario = LinearGaussian.make(x_dim=5, z_dim=2)
    x = scenario.data(20)
    w = pv.Best()(scenario.model, scenario.mean_field, x, seed=0)
    assert w.log_w.shape[1] == 20
    truth = scenario.log_evidence(x)
    assert ((w.log_evidence() - truth).abs() < 5 * w.std_error() + 1e-6).all()


def test_what_is_said_of_it():
    model = known.gamma_poisson(60, 1.3)
    e, evidence = found(model)
    text = evidence.reading()
    assert "by the cheapest way, K = 512 for" in text
    for t, count in zip(*e.extras["temperatures"].int().unique(return_counts=True), strict=True):
        way = "K = 512" if t == 1 else f"{t} temperatures x 8 particles"
        assert f"{way} for {count}" in text
    assert "in expectation it is too low by about 0.000" in text
    assert evidence.protocol["best_tolerance"] == 0.15
    assert "best_temperatures" in evidence.to_csv()[0]
    assert Evidence.from_xarray(evidence.to_xarray()).reading() == text


def test_errors():
    with pytest.raises(ValueError, match="tolerance is -1"):
        pv.Best(-1)
    with pytest.raises(ValueError, match="max_temperatures is 8; give 24 or more"):
        pv.Best(max_temperatures=8)
    with pytest.raises(TypeError, match="estimators is 3; give 'best' or another name"):
        pv.evaluate(lambda x: None, None, torch.zeros(3, 1), estimators=3)
