"""Better proposals, quasi-random draws, and as many draws as a datum needs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from scenarios import (
    BernoulliDecoder,
    Bounded,
    GammaPoisson,
    GlobalMean,
    LinearGaussian,
    Mixture,
    TwoLevels,
)

import pyrovae as pv
from pyrovae.evidence.samplers import adaptive

ALL = [pv.Widened(1.2), pv.Widened(1.0, df=5), pv.Defensive(0.2), pv.Refined(num_steps=10)]


def scores(w, truth):
    return (w.log_evidence() - truth) / w.std_error()


@pytest.mark.parametrize("proposal", ALL, ids=repr)
def test_weights_are_unbiased(proposal):
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    x = scenario.data(50)
    w = pv.importance_sampling(
        scenario.model, scenario.mean_field, x, num_particles=4000, proposal=proposal, seed=0
    )
    ratio = (w.log_w - scenario.log_evidence(x)).exp()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / ratio.numel() ** 0.5


@pytest.mark.parametrize("proposal", ALL, ids=repr)
def test_levels_and_nested_plates(proposal):
    scenario = TwoLevels()
    x = scenario.data()
    w = pv.importance_sampling(
        scenario.model, scenario.guide, x, num_particles=4000, proposal=proposal, seed=0
    )
    assert scores(w, scenario.log_evidence(x)).abs().max() < 4


@pytest.mark.parametrize("proposal", ALL, ids=repr)
def test_global_latents(proposal):
    def guide(x):
        pyro.sample("m", dist.Normal(0.5, 0.6))

    scenario, x = GlobalMean(), torch.tensor([0.3, 1.9, 0.4])
    w = pv.importance_sampling(
        scenario.model, guide, x, num_particles=4000, proposal=proposal, plate=None, seed=0
    )
    assert abs(scores(w, scenario.log_evidence(x))) < 4


def test_full_covariances_and_transformed_normals_are_widened():
    scenario = LinearGaussian.make()
    x = scenario.data(20)
    for proposal in (pv.Widened(1.5), pv.Widened(1.0, df=4)):
        w = pv.importance_sampling(
            scenario.model, scenario.exact, x, num_particles=4000, proposal=proposal, seed=0
        )
        assert scores(w, scenario.log_evidence(x)).abs().max() < 4
        assert w.ess().max() < 3900
    scenario = GammaPoisson()
    x = scenario.data()

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.LogNormal(torch.log(x + 1.5), 0.4))

    plain = pv.importance_sampling(scenario.model, guide, x, num_particles=4000, seed=0)
    wider = pv.importance_sampling(
        scenario.model, guide, x, num_particles=4000, proposal=pv.Widened(1.5), seed=0
    )
    assert scores(wider, scenario.log_evidence(x)).abs().max() < 4
    assert wider.pareto_k().max() < plain.pareto_k().max()


def test_bounded_latents_are_refined_in_unconstrained_space():
    scenario = Bounded()
    x = scenario.data()
    w = pv.importance_sampling(
        scenario.model, scenario.guide, x, num_particles=4000, proposal=pv.Refined(), seed=0
    )
    plain = pv.importance_sampling(scenario.model, scenario.guide, x, num_particles=4000, seed=0)
    assert scores(w, scenario.log_evidence(x)).abs().max() < 4
    assert (w.elbo() > plain.elbo() + 0.1).all()


def test_each_helps_where_it_should():
    """A guide too narrow by half, and one that looks elsewhere."""
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    x = scenario.data(20)

    def narrow(x):
        scenario.mean_field(x, scale=0.5)

    def astray(x):
        with pyro.plate("data", len(x)):
            loc = scenario.posterior_mean(x) + 0.6
            pyro.sample("z", dist.Normal(loc, 0.15).to_event(1))

    def ess(guide, proposal=None):
        w = pv.importance_sampling(
            scenario.model, guide, x, num_particles=1000, proposal=proposal, seed=0
        )
        return w.ess().median()

    assert ess(narrow, pv.Widened(2.0)) > 5 * ess(narrow)
    assert ess(narrow, pv.Refined()) > 5 * ess(narrow)
    assert ess(astray, pv.Refined(num_steps=100)) > 20 * ess(astray)
    assert ess(astray, pv.Defensive(0.5)) > ess(astray)


def test_a_guide_of_the_users_own():
    scenario = LinearGaussian.make()
    x = scenario.data(5)
    w = pv.importance_sampling(
        scenario.model, scenario.mean_field, x, num_particles=3, proposal=scenario.exact, seed=0
    )
    truth = scenario.log_evidence(x).expand(3, 5)
    torch.testing.assert_close(w.log_w, truth, rtol=0, atol=1e-10)


def test_a_proposal_of_the_users_own():
    """The protocol: `sampler(program, rows)` gives a function of S to z by site and log r."""
    scenario = LinearGaussian.make()
    x = scenario.data(70)

    class Shifted:
        def sampler(self, program, rows):
            block = program.data[0][rows.start : rows.stop]
            normal = dist.Normal(scenario.posterior_mean(block), 0.7)

            def draw(num_particles):
                z = normal.sample((num_particles,))
                return {"z": z}, normal.log_prob(z).sum(-1)

            return draw

    for num_particles in (4000, "auto"):
        w = pv.importance_sampling(
            scenario.model, scenario.mean_field, x, num_particles=num_particles, tolerance=0.05,
            proposal=Shifted(), seed=0,
        )  # fmt: skip
        assert scores(w, scenario.log_evidence(x)).abs().max() < 4


def test_discrete_latents_stay_summed_out():
    scenario = Mixture()
    x = scenario.data()
    truth = scenario.log_evidence(x, (1 + 0.5**2) ** 0.5)
    for proposal in (pv.Widened(1.3), pv.Defensive(0.2), pv.Refined(num_steps=5)):
        w = pv.importance_sampling(
            scenario.with_latent, scenario.guide, x, num_particles=4000, proposal=proposal, seed=0
        )
        assert scores(w, truth).abs().max() < 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pv.Widened(0), "scale is 0; give a positive number"),
        (lambda: pv.Widened(1, df=-1), "df is -1"),
        (lambda: pv.Defensive(1.0), "weight is 1.0; give a share between 0 and 1"),
        (lambda: pv.Refined(num_steps=0), "num_steps is 0"),
        (lambda: pv.Refined(lr=0), "lr is 0"),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_proposals_that_do_not_fit_say_so():
    scenario = GammaPoisson()
    x = scenario.data()
    with pytest.raises(ValueError, match="site 'rate' is Gamma; only normal sites"):
        pv.importance_sampling(
            scenario.model, scenario.wide, x, num_particles=5, proposal=pv.Widened()
        )
    scenario, x = GlobalMean(), torch.zeros(4)
    guide = AutoNormal(scenario.model)
    guide(x)
    with pytest.raises(ValueError, match="draws 'm_unconstrained' and maps it to the latents"):
        pv.importance_sampling(
            scenario.model, guide, x, num_particles=5, proposal=pv.Defensive(), plate=None
        )


@pytest.mark.parametrize("proposal", ["guide", "prior", pv.Widened(1.2)])
def test_sobol_draws_have_five_times_smaller_errors(proposal):
    """z-dim 2, K = 4,096; the error is that of 20 seeds, and what the table says of itself."""
    scenario = LinearGaussian.make(x_dim=5, z_dim=2, sigma=1.5)
    x = scenario.data(5)
    truth = scenario.log_evidence(x)

    def table(seed, qmc):
        options = {"num_particles": 4096, "seed": seed, "qmc": qmc}
        if proposal == "prior":
            return pv.prior_sampling(scenario.model, x, **options)
        options["proposal"] = None if proposal == "guide" else proposal
        return pv.importance_sampling(scenario.model, scenario.mean_field, x, **options)

    tables = {qmc: [table(seed, qmc) for seed in range(20)] for qmc in (True, False)}
    error = {
        qmc: torch.stack([w.log_evidence() - truth for w in ws]).square().mean().sqrt()
        for qmc, ws in tables.items()
    }
    assert error[True] < error[False] / 5
    stated = torch.stack([w.std_error() for w in tables[True]]).square().mean().sqrt()
    assert 0.8 < error[True] / stated < 1.25
    elbos = torch.stack([w.elbo() for w in tables[True]])
    stated = torch.stack([w.elbo_std_error() for w in tables[True]]).square().mean().sqrt()
    assert 0.8 < elbos.var(0).mean().sqrt() / stated < 1.25


def test_sobol_draws_are_unbiased_and_independent_between_data():
    scenario = LinearGaussian.make(sigma=1.0)
    x = scenario.data(1).expand(400, -1).contiguous()
    w = pv.importance_sampling(
        scenario.model, scenario.mean_field, x, num_particles=64, qmc=True, seed=0, block_size=400
    )
    error = (w.log_evidence() - scenario.log_evidence(x)).exp() - 1
    assert abs(error.mean()) < 4 * error.std() / 20
    halves = error[:200] * error[200:]
    assert abs(halves.mean()) < 4 * halves.std() / 200**0.5


def test_sobol_draws_of_many_kinds():
    scenario = Bounded()
    x = scenario.data()
    w = pv.importance_sampling(scenario.model, scenario.guide, x, num_particles=4096, qmc=True,
                               seed=0)  # fmt: skip
    assert scores(w, scenario.log_evidence(x)).abs().max() < 4
    for scenario, guide in ((TwoLevels(), "guide"), (LinearGaussian.make(), "exact")):
        x = scenario.data() if guide == "guide" else scenario.data(5)
        w = pv.importance_sampling(
            scenario.model, getattr(scenario, guide), x, num_particles=4096, qmc=True, seed=0,
            chunk_size=500,
        )  # fmt: skip
        off = (w.log_evidence() - scenario.log_evidence(x)).abs()
        assert (off <= 4 * w.std_error() + 1e-10).all()
    scenario, x = GlobalMean(), torch.tensor([0.3, 1.9])
    w = pv.prior_sampling(scenario.model, x, num_particles=4096, qmc=True, plate=None, seed=0)
    assert abs(scores(w, scenario.log_evidence(x))) < 4


def test_sobol_draws_that_cannot_be_had():
    scenario = GammaPoisson()
    x = scenario.data()
    options = {"num_particles": 160, "qmc": True, "seed": 0}
    with pytest.raises(ValueError, match="site 'rate' is Gamma, which has no inverse"):
        pv.prior_sampling(scenario.model, x, **options)
    with pytest.raises(ValueError, match="num_particles is 100; quasi-random draws come in 16"):
        pv.prior_sampling(scenario.model, x, num_particles=100, qmc=True)
    with pytest.raises(ValueError, match="Defensive has no quasi-random draws"):
        pv.importance_sampling(
            scenario.model, scenario.wide, x, proposal=pv.Defensive(), **options
        )


class Uneven(LinearGaussian):
    """A guide that is good for most data, and much too wide for every tenth."""

    def guide(self, x):
        with pyro.plate("data", len(x)):
            hard = x[:, -1:] > 0.5
            scale = self.cov.diagonal().sqrt() * torch.where(hard, 5.0, 1.3)
            loc = self.posterior_mean(x)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    @classmethod
    def build(cls, n=100):
        weight = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
        weight[-1] = 0
        scenario = cls(weight, torch.zeros(6), 0.5)
        x = scenario.data(n)
        x[:, -1] = torch.where(torch.arange(n) % 10 == 0, 1.0, 0.0)
        return scenario, x


@pytest.mark.slow
def test_auto_spends_draws_where_they_are_needed():
    """Same error as a fixed K, at least 3 times fewer draws, the pilot's among them."""
    scenario, x = Uneven.build()
    made = []

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", scenario.prior(len(x)))
            made.append(z.shape[:-1].numel())
            pyro.sample("x", scenario.likelihood(z), obs=x)

    options = {"num_particles": "auto", "tolerance": 0.02, "seed": 0}
    w = pv.importance_sampling(model, scenario.guide, x, **options)
    assert w.num_draws.max() > 10 * w.num_draws.min()
    assert w.std_error().max() < 0.025
    assert scores(w, scenario.log_evidence(x)).abs().max() < 4
    most = int(w.num_draws.max())
    fixed = pv.importance_sampling(scenario.model, scenario.guide, x, num_particles=most, seed=0)
    assert fixed.std_error().max() > 0.8 * w.std_error().max()
    assert fixed.log_w.numel() > 3 * sum(made)


def test_auto_is_unbiased():
    """Over many data mean(exp(estimate - log p)) = 1, also where the pilot asked for least.

    Kept draws would fail it: those of data that look finished have missed the large weights.
    """
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    x = scenario.data(2000)
    w = pv.importance_sampling(
        scenario.model, scenario.mean_field, x, num_particles="auto", tolerance=0.05, seed=0
    )
    ratio = (w.log_evidence() - scenario.log_evidence(x)).exp()
    for some in (w.num_draws > 0, w.num_draws == w.num_draws.min()):
        assert some.sum() > 200
        assert abs(ratio[some].mean() - 1) < 4 * ratio[some].std() / some.sum() ** 0.5


def test_auto_names_what_is_left_over():
    scenario = LinearGaussian.make(x_dim=20, z_dim=10)
    x = scenario.data(6)
    options = {"num_particles": "auto", "tolerance": 0.01, "seed": 0}
    w = pv.importance_sampling(
        scenario.model, scenario.mean_field, x, max_particles=2000, **options
    )
    assert w.num_draws.max() == 2000
    assert set(w.verdict(0.01)) <= {"use ais", "more samples"}
    late = pv.importance_sampling(
        scenario.model, scenario.mean_field, x, max_seconds=0.0, **options
    )
    assert (late.num_draws == adaptive.FIRST).all()


def test_auto_on_blocks_whole_programs_and_joint_latents():
    scenario, x = Uneven.build(30)
    truth = scenario.log_evidence(x)
    options = {"num_particles": "auto", "tolerance": 0.05, "seed": 0}
    w = pv.importance_sampling(scenario.model, scenario.guide, x, block_size=7, **options)
    assert scores(w, truth).abs().max() < 4

    def fixed(program):
        def run(x):
            assert len(x) == 30
            program(x)

        return run

    w = pv.importance_sampling(
        fixed(scenario.model), fixed(scenario.guide), x, block_size=10, **options
    )
    assert w.num_draws.unique().numel() == 1
    assert scores(w, truth).abs().max() < 4
    single, y = GlobalMean(), torch.tensor([0.3, 1.9])
    w = pv.importance_sampling(single.model, single.exact, y, plate=None, **options)
    assert w.num_draws == adaptive.FIRST


def test_auto_needs_a_tolerance():
    scenario = BernoulliDecoder()
    with pytest.raises(ValueError, match="tolerance is 0; give a positive number"):
        pv.importance_sampling(
            scenario.model, scenario.guide, scenario.data(3), num_particles="auto", tolerance=0
        )


@pytest.mark.slow
def test_subsampling_plates_whose_last_block_is_short():
    """Four rows at a time of ten, scaled: nothing of it shows in any estimate."""
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    x = scenario.data(10)
    scale = 1.2 / torch.linalg.inv(scenario.cov).diagonal().sqrt()

    @pyro.poutine.scale(scale=0.1)
    def model(x):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            z = pyro.sample("z", scenario.prior(4))
            pyro.sample("x", scenario.likelihood(z), obs=x[rows])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            loc = scenario.posterior_mean(x[rows])
            pyro.sample("z", dist.Normal(loc, scale.expand(4, -1)).to_event(1))

    options = [{"proposal": p} for p in ALL] + [{"qmc": True}, {"num_particles": "auto"}]
    tables = [
        pv.importance_sampling(model, guide, x, **{"num_particles": 4096, "seed": 0, **o})
        for o in options
    ]
    for start in (guide, None):
        tables.append(
            pv.ais(model, x, guide=start, num_temperatures=30, num_particles=500, seed=0)
        )
    truth = scenario.log_evidence(x)
    for w in tables:
        assert w.log_w.shape[1] == 10
        assert scores(w, truth).abs().max() < 4
    torch.testing.assert_close(pv.quadrature(model, x), truth, rtol=0, atol=1e-6)
    tree = pv.to_arviz(model, guide, x, num_samples=500, seed=0)
    off = tree["posterior"]["z"].to_numpy()[0].mean(0) - scenario.posterior_mean(x).numpy()
    assert abs(off).max() < 4.5 * scenario.cov.diagonal().max().sqrt() / 400**0.5
