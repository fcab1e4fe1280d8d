"""A normal at the mode: exact where the posterior is normal, unbiased where it is not."""

import re
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import CASES
from scenarios import (
    BernoulliDecoder,
    Bounded,
    GammaPoisson,
    GlobalMean,
    LinearGaussian,
    Mixture,
    TwoLevels,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pyrovae as pv
from pyrovae.evidence.samplers import laplace
from pyrovae.evidence.samplers.annealing import anneal
from pyrovae.evidence.samplers.mass import Mass
from pyrovae.evidence.samplers.paths import GuidePath
from pyrovae.evidence.samplers.tuning import tune
from pyrovae.program import GeometricPath, curvature, inspect


def scores(w, truth):
    return (w.log_evidence() - truth) / w.std_error()


def unbiased(log_w, truth):
    """How far mean(exp(log w - log p)) is from 1, in standard errors, over all of a table."""
    ratio = (log_w - truth).exp().flatten()
    return (ratio.mean() - 1) / (ratio.std() / len(ratio) ** 0.5)


def drawn(model, guide, *data, num_particles=4000, proposal=None, **options):
    return pv.importance_sampling(
        model, guide, *data, num_particles=num_particles, proposal=proposal or pv.Laplace(),
        seed=0, **options,
    )  # fmt: skip


@pytest.mark.parametrize("guide", ["mean_field", None])
def test_of_a_normal_posterior_it_is_the_posterior(guide, monkeypatch):
    """After a single step from anywhere, and all weights are log p(x)."""
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    x = scenario.data(20)
    program = inspect(scenario.model, guide and getattr(scenario, guide), x)
    monkeypatch.setattr(laplace, "_begin", lambda program, base: 5 * base.start(1)[0])
    path = pv.Laplace(scale=1.0, num_steps=1).path(program, range(20))
    torch.testing.assert_close(path.parts[0], scenario.posterior_mean(x), rtol=0, atol=1e-9)
    cov = path.factor.matrix @ path.factor.matrix.mT
    torch.testing.assert_close(cov, scenario.cov.expand(20, 3, 3), rtol=0, atol=1e-9)
    v = torch.randn(5, 20, 3)
    torch.testing.assert_close(path.inward(path.outward(v)), v)
    w = drawn(scenario.model, scenario.mean_field, x, num_particles=7, proposal=pv.Laplace(1.0))
    truth = scenario.log_evidence(x).expand(7, 20)
    torch.testing.assert_close(w.log_w, truth, rtol=0, atol=1e-9)


def test_of_joint_latents_and_levels_it_is_the_posterior():
    scenario, x = GlobalMean(), torch.tensor([0.3, 1.9, -0.4])
    w = drawn(
        scenario.model, scenario.exact, x, num_particles=7, proposal=pv.Laplace(1.0), plate=None
    )
    torch.testing.assert_close(w.log_w, scenario.log_evidence(x).expand(7), rtol=0, atol=1e-9)
    scenario = TwoLevels()
    x = scenario.data()
    w = drawn(scenario.model, scenario.guide, x, num_particles=7, proposal=pv.Laplace(1.0))
    truth = scenario.log_evidence(x).expand(7, 6)
    torch.testing.assert_close(w.log_w, truth, rtol=0, atol=1e-9)


class Categories:
    """Shares of three categories, p ~ Dirichlet, x ~ Multinomial(6, p); in closed form."""

    def __init__(self):
        self.alpha = torch.tensor([0.8, 2.0, 3.0])

    def data(self):
        return torch.tensor([[1.0, 2, 3], [2, 2, 2], [1, 4, 1]])

    def log_evidence(self, x):
        return dist.DirichletMultinomial(self.alpha, 6).log_prob(x)

    def model(self, x):
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Dirichlet(self.alpha))
            pyro.sample("x", dist.Multinomial(6, p, validate_args=False), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Dirichlet(self.alpha.expand(len(x), 3)))


@pytest.mark.parametrize("proposal", [pv.Laplace(df=5), pv.Laplace(1.4, df=5)], ids=repr)
def test_weights_are_unbiased(proposal):
    """Of normal, positive, bounded and simplex latents; a normal's tails would be too light."""
    scenario = LinearGaussian.make(x_dim=6, z_dim=3, sigma=1.0)
    x = scenario.data(50)
    w = drawn(scenario.model, scenario.mean_field, x, proposal=proposal)
    assert abs(unbiased(w.log_w, scenario.log_evidence(x))) < 4
    for scenario, guide in (
        (Bounded(), "guide"),
        (GammaPoisson(), "wide"),
        (Categories(), "guide"),
    ):
        x = scenario.data()
        w = drawn(scenario.model, getattr(scenario, guide), x, proposal=proposal)
        assert scores(w, scenario.log_evidence(x)).abs().max() < 4


@pytest.mark.parametrize("scale", [0.7, 1.4])
@pytest.mark.parametrize("df", [None, 5])
def test_densities_integrate_to_one(scale, df):
    """Importance sampling of a narrow normal over the same u, on the support's own measure."""
    for scenario in (GammaPoisson(), Categories(), TwoLevels()):
        x = scenario.data()
        program = inspect(scenario.model, None, x)
        rows, size = range(len(x)), 4000
        z, log_r = pv.Laplace(scale, df).sampler(program, rows)(size)
        base = GeometricPath(program, rows)
        u = base.unconstrain(z, size)  # (S, n, d)
        narrow = dist.Normal(u.mean(0), 0.3 * u.std(0)).to_event(1)
        log_p = narrow.log_prob(u) - base.values(u)[1]
        assert abs(unbiased(log_p - log_r, 0.0)) < 4


def test_where_log_p_is_not_concave_the_normal_is_made_definite():
    """A funnel, and the saddle between two modes, from which Newton's steps begin."""

    def funnel(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(torch.zeros(len(x)), 1.0))
            z = pyro.sample("z", dist.Normal(0.0, (v / 2).exp()))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def modes(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z.square(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1e-3))

    x = torch.tensor([-1.0, 0.1, 2.0, 3.0])
    w = drawn(funnel, funnel, x, num_particles=20_000, proposal=pv.Laplace(1.5, df=5))
    assert scores(w, pv.quadrature(funnel, x)).abs().max() < 4
    w = drawn(modes, guide, x, num_particles=20_000, proposal=pv.Laplace(2.0, df=3))
    assert scores(w, pv.quadrature(modes, x)).abs().max() < 4


REFUSE = "no gradient|common to all data|is a loop|masked by what is summed out"
ELSEWHERE = {"gplvm", "eight_schools", "stable"}  # two modes, or a funnel


@pytest.mark.parametrize(
    "case", [c for c in CASES if not c.refused and not c.singly], ids=lambda case: case.name
)
def test_other_peoples_programs_are_right_or_refused(case):
    model, guide, data, exact = case.make()
    try:
        w = drawn(model, guide, *data, num_particles=2000, proposal=pv.Laplace(), plate=case.plate)
    except ValueError as e:
        refusal = str(e)
    else:
        refusal = ""
    if refusal:
        assert re.search(REFUSE, refusal)
        assert "\n" not in refusal
        return
    with torch.no_grad():
        off = (w.log_evidence() - exact()).abs()
    if case.name in ELSEWHERE:
        assert w.log_evidence().isfinite().all()
    else:
        assert (off <= 4 * w.std_error() + 1e-6).all()


@pytest.mark.slow
def test_discrete_latents_that_the_guide_draws_are_summed_out():
    scenario = Mixture()
    x = scenario.data()

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(scenario.probs))
            pyro.sample("z", dist.Normal(x, 0.7).to_event(1))

    truth = scenario.log_evidence(x, (1 + 0.5**2) ** 0.5)
    for proposal in (pv.Laplace(1.3, df=5), pv.Refined(num_steps=5)):
        for compiled in (False, True):
            w = drawn(scenario.with_latent, guide, x, proposal=proposal, compile=compiled)
            assert scores(w, truth).abs().max() < 4


def test_masked_latents_leave_the_weights_as_they_are():
    """Of what is masked, p and q alike know nothing: a proposal's density there is left out."""
    x, keep = torch.randn(8), torch.arange(8) % 2 == 0

    def model(x, keep):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=keep):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x, keep):
        with pyro.plate("data", len(x)), pyro.poutine.mask(mask=keep):
            pyro.sample("z", dist.Normal(0.7 * x, 0.6))

    w = drawn(model, guide, x, keep, proposal=pv.Laplace(df=5))
    truth = torch.where(keep, dist.Normal(0.0, 1.25**0.5).log_prob(x), 0.0)
    assert ((w.log_evidence() - truth).abs() <= 4 * w.std_error()).all()


STARTS = [
    pv.Laplace(1.2),
    pv.Laplace(0.9, df=5),
    pv.Widened(1.3),
    pv.Defensive(0.2),
    pv.Refined(5),
]


@pytest.mark.parametrize("proposal", [*STARTS, "guide"], ids=repr)
def test_annealing_begins_there_and_is_unbiased(proposal):
    """Forward, and in reverse from exact draws of the posterior: E[1 / w'] = 1 / p(x)."""
    scenario = LinearGaussian.make(sigma=1.0)
    x, n = scenario.data(1).expand(400, -1).contiguous(), 400
    truth = scenario.log_evidence(x)
    guide = scenario.mean_field
    proposal = guide if proposal == "guide" else proposal
    options = {"num_temperatures": 5, "num_particles": 30, "seed": 0}
    w = pv.ais(scenario.model, x, guide=guide, proposal=proposal, **options)
    assert abs(unbiased(w.log_w, truth)) < 4
    if callable(proposal) or isinstance(proposal, pv.Defensive):  # whose 1 / w' has heavy tails
        return
    program = inspect(scenario.model, guide, x, block_size=n)
    kernel = tune(program, 5, "tuned", 2, 0, proposal)
    exact = dist.MultivariateNormal(scenario.posterior_mean(x), scenario.cov).sample()
    log_w, _ = anneal(program, range(n), 1, 0, kernel, exact)
    assert abs(unbiased(-log_w[0], -truth)) < 4
    assert -log_w.mean() < -truth.mean() + 3 * log_w.std() / n**0.5  # from above


def correlated():
    """A posterior of two dimensions with correlation -0.95."""
    weight = torch.tensor([[1.0, 1.0], [0.1, -0.1]])
    return LinearGaussian(weight, torch.zeros(2), 0.15)


def test_on_correlated_posteriors_it_beats_the_guide():
    scenario = correlated()
    cov = scenario.cov
    assert cov[0, 1] / (cov[0, 0] * cov[1, 1]).sqrt() < -0.95
    x = scenario.data(20)
    options = {"num_temperatures": 10, "num_particles": 50, "seed": 0}
    var = {
        start: pv.ais(
            scenario.model, x, guide=scenario.mean_field, proposal=proposal, **options
        ).log_w.var(0).mean()
        for start, proposal in (("guide", None), ("mode", pv.Laplace()))
    }  # fmt: skip
    assert var["mode"] < var["guide"] / 4


@pytest.mark.slow
def test_seeds_blocks_and_graphs():
    """Equal seeds, equal numbers; a graph's are the program's own to rounding."""
    scenario = BernoulliDecoder()
    x = scenario.data(20)
    options = {"proposal": pv.Laplace(), "num_particles": 50}

    def table(seed, **more):
        return pv.importance_sampling(
            scenario.model, scenario.guide, x, seed=seed, **options, **more
        ).log_w

    stream = torch.get_rng_state()
    one = table(1)
    assert torch.equal(one, table(1))
    assert torch.equal(torch.get_rng_state(), stream)
    assert not torch.equal(one, table(2))
    assert torch.equal(one, table(1, chunk_size=7))
    torch.testing.assert_close(one, table(1, compile=True), rtol=0, atol=1e-9)
    w = pv.importance_sampling(
        scenario.model, scenario.guide, x, seed=1, block_size=6, proposal=pv.Laplace(df=5),
        num_particles=4000,
    )  # fmt: skip
    assert scores(w, scenario.log_evidence(x)).abs().max() < 4


@pytest.mark.slow
def test_auto_and_workers():
    """Some data of a block are drawn alone; blocks are the same wherever they are done."""
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    x = scenario.data(20)
    w = drawn(scenario.model, scenario.mean_field, x, num_particles="auto", tolerance=0.03)
    assert scores(w, scenario.log_evidence(x)).abs().max() < 4
    options = {"estimators": [pv.Importance(50, proposal=pv.Laplace())], "progress": False}
    one, two = (
        pv.evaluate(
            scenario.model, scenario.mean_field, x, **options, seed=0, block_size=8, workers=n
        )
        for n in (1, 2)
    )
    assert one == two


@pytest.mark.parametrize("proposal", STARTS, ids=repr)
def test_annealing_by_graphs(proposal, monkeypatch):
    """Of full and short blocks."""
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    scenario = BernoulliDecoder()
    x = scenario.data(20)
    options = {"proposal": proposal, "num_temperatures": 3, "num_particles": 4, "seed": 0}
    plain, graph = (
        pv.ais(
            scenario.model, x, guide=scenario.guide, chunk_size=48, compile=compiled, **options
        ).log_w
        for compiled in (False, True)
    )
    torch.testing.assert_close(plain, graph, rtol=0, atol=1e-9)


def test_graphs_of_the_guide_and_of_the_prior_are_not_each_other(monkeypatch):
    """They are of one shape, and kept beside each other."""
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    scenario = BernoulliDecoder()
    pair = inspect(scenario.model, scenario.guide, scenario.data(5), block_size=5).compiled()
    alone = replace(pair, guide=None)
    v = GuidePath(GeometricPath(alone, range(5))).start(3)
    for program in (pair, alone):
        path, plain = (
            GuidePath(GeometricPath(p, range(5))) for p in (program, program.uncompiled())
        )
        torch.testing.assert_close(path.states(v).log_f, plain.states(v).log_f, rtol=0, atol=1e-9)


def test_programs_without_a_second_derivative():
    """Of distances to the third power, torch has the first one."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            far = torch.cdist(z, torch.ones(1, 2), p=3.0)
            pyro.sample("x", dist.Normal(far, 0.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))

    message = "no second derivative in its latents .*take pv.Refined"
    with pytest.raises(ValueError, match=message) as raised:
        drawn(model, guide, torch.zeros(3, 1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: pv.Laplace(0), ValueError, "scale is 0; give a positive number"),
        (lambda: pv.Laplace(df=-1), ValueError, "df is -1"),
        (lambda: pv.Laplace(num_steps=0), ValueError, "num_steps is 0"),
        (lambda: drawn(*pair(), proposal=pv.Laplace), TypeError, "proposal is .*pv.Laplace"),
        (lambda: drawn(*pair(), qmc=True), ValueError, "Laplace has no quasi-random draws"),
        (lambda: pv.ais(pair()[0], pair()[2], proposal="laplace"), TypeError, "proposal is"),
        *[
            (
                lambda p=p: pv.ais(pair()[0], pair()[2], proposal=p),
                ValueError,
                "made of the guide, and there is none; pass guide=, or take pv.Laplace",
            )
            for p in (pv.Widened(), pv.Defensive(), pv.Refined())
        ],
    ],
)
def test_options_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


def pair():
    scenario = LinearGaussian.make()
    return scenario.model, scenario.mean_field, scenario.data(3)


def test_the_mass_matrix_knows_correlations(monkeypatch):
    """Condition number 10^4 in five dimensions: 300 temperatures find p(x) from the prior."""
    generator = torch.Generator().manual_seed(0)
    turned, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator))
    precision = torch.logspace(0, 4, 5) - 0.999
    scenario = LinearGaussian(precision.sqrt()[:, None] * turned.T, torch.zeros(5), 1.0)
    x = scenario.data(16)
    truth = scenario.log_evidence(x)

    def annealed():
        return pv.ais(scenario.model, x, seed=0, num_temperatures=300, num_particles=16)

    w = annealed()
    assert abs((w.log_evidence() - truth).mean()) < 0.25
    monkeypatch.setattr(Mass, "factor", lambda self, u: torch.eye(u.shape[-1]))
    assert annealed().log_w.var(0).mean() > 5 * w.log_w.var(0).mean()


def test_many_dimensions_of_which_few_are_seen(monkeypatch):
    """Of 300 dimensions 20 are observed: low rank is exact; on a path from it, too."""
    scenario = LinearGaussian.make(x_dim=20, z_dim=300, sigma=1.0)
    x = scenario.data(5)
    truth = scenario.log_evidence(x)
    w = drawn(
        scenario.model, scenario.mean_field, x, num_particles=7, proposal=pv.Laplace(1.0),
        block_size=3,
    )  # fmt: skip
    torch.testing.assert_close(w.log_w, truth.expand(7, 5), rtol=0, atol=1e-8)
    path = pv.Laplace(0.8).path(inspect(scenario.model, None, x), range(5))
    cov = path.factor.times(path.factor.transposed(torch.eye(300)[:, None].expand(300, 5, 300)))
    torch.testing.assert_close(cov[:, 0], 0.64 * scenario.cov, rtol=0, atol=1e-8)
    torch.testing.assert_close(path.log_volume, 0.5 * cov.transpose(0, 1).logdet())
    v = torch.randn(4, 5, 300)
    torch.testing.assert_close(path.inward(path.outward(v)), v)
    torch.testing.assert_close(path.inward(path.outward(v)[0]), v[0])
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    for compiled in (False, True):
        w = pv.ais(scenario.model, x, proposal=pv.Laplace(1.0), num_temperatures=3, seed=0,
                   compile=compiled)  # fmt: skip
        torch.testing.assert_close(w.log_w, truth.expand(8, 5), rtol=0, atol=1e-8)


def test_many_dimensions_of_a_vae(monkeypatch, float32):
    """Better weights than the guide's, by Gauss and Newton and by Hessians, and no (d, d)."""
    torch.manual_seed(0)
    d, size = 300, 8
    vae = pv.VAE(x_dim=50, z_dim=d, hidden_dims=(30,))
    with torch.no_grad():
        for p in vae.decoder.parameters():
            p.mul_(2)
    x = torch.bernoulli(torch.full((size, 50), 0.5))
    large = []

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            large.extend(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    guide = drawn(vae.model, vae.guide, x, num_particles=1000, proposal=vae.guide)
    for exact in (False, True):
        if exact:
            monkeypatch.setattr(curvature, "FAMILIES", {})
        program = inspect(vae.model, vae.guide, x)
        with torch.no_grad(), Largest():
            pv.Laplace().path(program, range(size))
        assert max(large) < size * d * d / 2
        w = drawn(vae.model, vae.guide, x, num_particles=1000, proposal=pv.Laplace(1.0))
        assert w.log_w.var(0).mean() < guide.log_w.var(0).mean() / 3
