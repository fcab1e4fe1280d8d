"""Programs whose numbers would be wrong, and those that only look so: each with another answer."""

import math
import re
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import autoguide
from scenarios import GlobalMean, LinearGaussian

import pyrovae as pv
from pyrovae.errors import GuideError

MADE = LinearGaussian.make()
SCENARIO = LinearGaussian(MADE.weight.double(), MADE.mean.double(), MADE.sigma)


def agrees(w, truth):
    off = (w.log_evidence() - truth).abs()
    return bool((off <= 4 * w.std_error() + 1e-9).all())


class Ragged:
    """Hidden Markov chains of different lengths, padded and masked."""

    start = torch.tensor([0.6, 0.3, 0.1]).double()
    step = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]).double()
    loc = torch.tensor([-1.0, 0.5, 2.0]).double()

    def model(self, x, lengths):
        with pyro.plate("data", len(x)):
            z = None
            for t in pyro.markov(range(x.shape[1])):
                with poutine.mask(mask=t < lengths):
                    z = pyro.sample(f"z{t}", dist.Categorical(self.step[z] if t else self.start))
                    pyro.sample(f"x{t}", dist.Normal(self.loc[z], 1.0), obs=x[:, t])

    def log_evidence(self, x, lengths):
        """The forward algorithm, a chain at a time."""
        out = []
        for row, length in zip(x, lengths.tolist(), strict=True):
            a = self.start
            for t in range(length):
                a = a @ self.step if t else a
                a = a * dist.Normal(self.loc, 1.0).log_prob(row[t]).exp()
            out.append(a.sum().log())
        return torch.stack(out)


def test_masked_steps_that_are_summed_out_add_nothing():
    chains = Ragged()
    x, lengths = torch.randn(4, 5), torch.tensor([5, 2, 1, 3])
    truth = chains.log_evidence(x, lengths)
    w = pv.importance_sampling(chains.model, lambda *d: None, x, lengths, num_particles=2)
    torch.testing.assert_close(w.log_w, truth.expand(2, 4))


def test_masked_steps_of_a_continuous_chain():
    """A linear-Gaussian chain: what is masked is left out of p and q alike."""

    def model(x, lengths):
        with pyro.plate("data", len(x)):
            z = torch.zeros(len(x))
            for t in range(x.shape[1]):
                with poutine.mask(mask=t < lengths):
                    z = pyro.sample(f"z{t}", dist.Normal(z, 1.0))
                    pyro.sample(f"x{t}", dist.Normal(z, 1.0), obs=x[:, t])

    def guide(x, lengths, hide=True):
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                with poutine.mask(mask=t < lengths if hide else True):
                    pyro.sample(f"z{t}", dist.Normal(x[:, t] / 2, 0.9))

    x, lengths = torch.randn(3, 3), torch.tensor([3, 1, 2])
    walk = torch.tril(torch.ones(3, 3)) @ torch.tril(torch.ones(3, 3)).T + torch.eye(3)
    truth = torch.stack(
        [
            dist.MultivariateNormal(torch.zeros(n), walk[:n, :n]).log_prob(row[:n])
            for row, n in zip(x, lengths.tolist(), strict=True)
        ]
    )
    options = {"num_particles": 4_000, "seed": 0}
    hidden = pv.importance_sampling(model, guide, x, lengths, **options)
    shown = pv.importance_sampling(model, lambda *d: guide(*d, hide=False), x, lengths, **options)
    assert agrees(hidden, truth)
    assert torch.equal(hidden.log_w, shown.log_w)  # what the guide masks decides nothing
    assert agrees(pv.ais(model, x, lengths, guide=guide, num_particles=200, seed=0), truth)

    def leaking(x, lengths):
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=lengths > 1):
                z = pyro.sample("z0", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def of_one(x, lengths):
        with pyro.plate("data", len(x)):
            pyro.sample("z0", dist.Normal(x[:, 0] / 2, 0.9))

    with pytest.raises(ValueError, match="'z0' is masked where what is observed still depends"):
        pv.importance_sampling(leaking, of_one, x, lengths, num_particles=2)


def test_missing_values_by_obs_mask():
    """x1 is missing where its mask says so: the evidence is that of the rest."""

    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            a = pyro.sample("a", dist.Normal(z, 0.5), obs=x[:, 0], obs_mask=seen)
            pyro.sample("b", dist.Normal(z + a, 0.7), obs=x[:, 1])

    x, seen = torch.randn(90, 2), torch.rand(90) < 0.6
    # a = z + .5 e, b = 2 z + .5 e + .7 f
    cov = torch.tensor([[1.25, 2.25], [2.25, 4.74]])
    both = dist.MultivariateNormal(torch.zeros(2), cov).log_prob(x)
    truth = torch.where(seen, both, dist.Normal(0.0, 4.74**0.5).log_prob(x[:, 1]))
    pyro.set_rng_seed(0)
    guide = autoguide.AutoNormal(model, init_scale=0.8)
    for block_size in (90, 7):
        w = pv.importance_sampling(
            model, guide, x, seen, num_particles=20_000, seed=0, block_size=block_size
        )
        assert ((w.log_evidence() - truth).abs() <= 4 * w.std_error() + 0.02).float().mean() > 0.97


def exact(x):
    SCENARIO.exact(x)


def observing(x):
    pyro.factor("penalty", torch.tensor(-3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("label", dist.Normal(torch.zeros(len(x)), 1.0), obs=torch.ones(len(x)))
        pyro.sample("z", dist.MultivariateNormal(SCENARIO.posterior_mean(x), SCENARIO.cov))


def test_what_the_guide_observes_is_no_part_of_it():
    x = SCENARIO.data(6)
    truth = SCENARIO.log_evidence(x)
    w = pv.importance_sampling(SCENARIO.model, observing, x, num_particles=3, seed=0)
    torch.testing.assert_close(w.log_w, truth.expand(3, 6))
    w = pv.ais(SCENARIO.model, x, guide=observing, num_particles=3, num_temperatures=5, seed=0)
    torch.testing.assert_close(w.log_w, truth.expand(3, 6))


def auxiliary(kind):
    """u ~ N(mean, cov), and z made of it."""

    def guide(x):
        with pyro.plate("data", len(x)):
            q = dist.MultivariateNormal(SCENARIO.posterior_mean(x), SCENARIO.cov)
            infer = {"is_auxiliary": True}
            if kind == "more":
                v = pyro.sample("v", dist.Normal(torch.zeros(len(x)), 1.0), infer=infer)
                q = dist.MultivariateNormal(q.loc + 0.1 * v[:, None], SCENARIO.cov)
            u = pyro.sample("u", q, infer=infer)
            if kind == "noisy":
                pyro.sample("z", dist.Normal(u, 0.1).to_event(1))
                return
            log_density = torch.zeros(len(x))
            z = u
            if kind in ("scaled", "unscaled"):
                z = 2 * u
            if kind == "scaled":
                log_density = log_density - 2 * torch.tensor(2.0).log()
            if kind == "singular":
                z = u[:, :1].expand(-1, 2)
            pyro.sample("z", dist.Delta(z, log_density, event_dim=1))

    return guide


def test_auxiliaries_that_are_the_latents_in_other_coordinates():
    x = SCENARIO.data(5)
    truth = SCENARIO.log_evidence(x)
    w = pv.importance_sampling(SCENARIO.model, auxiliary("same"), x, num_particles=3, seed=0)
    torch.testing.assert_close(w.log_w, truth.expand(3, 5))
    w = pv.importance_sampling(
        SCENARIO.model, auxiliary("scaled"), x, num_particles=20_000, seed=0
    )
    assert agrees(w, truth)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("noisy", r"auxiliary 'u' beside the latents.* r\(u\|z, x\)"),
        ("more", r"auxiliary 'v', 'u' beside the latents"),
        ("singular", "auxiliary 'u' beside the latents"),
        ("unscaled", "'z' has a log_density that is off by 1.39 nats"),
    ],
)
def test_other_auxiliaries(kind, words):
    with pytest.raises(ValueError, match=words):
        pv.importance_sampling(SCENARIO.model, auxiliary(kind), SCENARIO.data(5), num_particles=2)


@pytest.mark.parametrize("plate", ["data", None])
def test_a_point_beside_auxiliaries(plate):
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(len(x)), 1.0))
            b = pyro.sample("b", dist.LogNormal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(a, b), obs=x)

    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoDelta(poutine.block(model, expose=["a"])))
    guide.append(autoguide.AutoNormal(poutine.block(model, expose=["b"])))
    with pytest.raises(ValueError, match=r"a point \(Delta\) at site 'a'"):
        pv.importance_sampling(model, guide, torch.randn(4), num_particles=5, plate=plate)


def test_an_autoguide_of_all_data_at_once():
    x = SCENARIO.data(4)
    guide = autoguide.AutoMultivariateNormal(SCENARIO.model)
    with pytest.raises(ValueError, match="for all data together and 'z' of each datum"):
        pv.importance_sampling(SCENARIO.model, guide, x, num_particles=5)
    w = pv.importance_sampling(SCENARIO.model, guide, x, num_particles=50_000, plate=None, seed=0)
    assert w.log_evidence().isfinite()


def centred(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", SCENARIO.prior(len(x)))
        pyro.sample("x", SCENARIO.likelihood(z + x.mean()), obs=x)


def normalised(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", SCENARIO.prior(len(x)))
        z = torch.nn.functional.batch_norm(z.reshape(-1, 2), None, None, training=True)
        pyro.sample("x", SCENARIO.likelihood(z), obs=x)


def walking(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", SCENARIO.prior(len(x)))
        pyro.sample("x", SCENARIO.likelihood(z.cumsum(-2)), obs=x)


def leaning(x):
    with pyro.plate("data", len(x)):
        mean = SCENARIO.posterior_mean(x) + 0.1 * x.mean()
        pyro.sample("z", dist.MultivariateNormal(mean, SCENARIO.cov))


def dropping(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", SCENARIO.prior(len(x)))
        pyro.sample("x", SCENARIO.likelihood(torch.nn.functional.dropout(z)), obs=x)


def fixed(x):
    with pyro.plate("data", 6):
        z = pyro.sample("z", SCENARIO.prior(6))
        pyro.sample("x", SCENARIO.likelihood(z + x.mean()), obs=x)


@pytest.mark.parametrize(
    ("model", "guide", "words"),
    [
        (centred, exact, "rows depend on each other: log p of the model"),
        (normalised, None, "rows depend on each other"),
        (walking, exact, "rows depend on each other"),
        (SCENARIO.model, leaning, "rows depend on each other: log p of the guide"),
        (fixed, exact, "rows depend on each other"),
        (dropping, exact, "from run to run at the same latents.* dropout"),
    ],
)
def test_rows_that_depend_on_each_other(model, guide, words):
    x = SCENARIO.data(6)
    with pytest.raises(ValueError, match=words):
        pv.evaluate(model, guide, x, estimators=["prior" if guide is None else "importance"])
    found = pv.check(model, guide, x, block_size=4)
    assert not found.ok
    assert not found


def test_columns_taken_for_rows():
    """As many rows as columns, and the columns are the data: the first axis is not theirs."""

    def model(x):
        with pyro.plate("data", x.shape[1]):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 0.5).expand([x.shape[1], len(x)])
                        .to_event(1), obs=x.T)  # fmt: skip

    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    cov = 0.25 * torch.eye(4) + torch.ones(4, 4)
    truth = dist.MultivariateNormal(torch.zeros(4), cov).log_prob(x.T)
    torch.testing.assert_close(pv.quadrature(model, x), truth, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="another axis of length 4 counts the data, put it first"):
        pv.quadrature(model, x[:, :4])


NARROW = {
    "positive": (dist.Normal(0.0, 1.0), dist.HalfNormal(1.0), "from HalfNormal.* 0 to inf"),
    "cut": (dist.Uniform(0.0, 1.0), dist.Uniform(0.0, 0.9), "0 to 0.9 where .* 0 to 1"),
    "box": (dist.Normal(0.0, 1.0), dist.Uniform(-3.0, 3.0), "from -3 to 3 where .* -inf to inf"),
    "stretched": (
        dist.TransformedDistribution(
            dist.Beta(2.0, 2.0), dist.transforms.AffineTransform(0.0, 10.0)
        ),
        dist.Uniform(0.0, 9.0),
        "0 to 9 where .* 0 to 10",
    ),
}


@pytest.mark.parametrize("kind", NARROW)
def test_a_guide_narrower_than_its_latent(kind):
    prior, proposal, words = NARROW[kind]

    def program(fn):
        def run(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", fn.expand([len(x)]))
                if fn is prior:
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        return run

    x = torch.randn(4)
    with pytest.raises(ValueError, match=words):
        pv.importance_sampling(program(prior), program(proposal), x, num_particles=5)
    whole = program(dist.Normal(0.0, 2.0)) if kind in ("positive", "box") else program(prior)
    assert whole is program or pv.check(program(prior), program(prior.expand([1])), x)


def test_plates_of_another_size_in_the_guide():
    def guide(x):
        with pyro.plate("data", 4):
            pyro.sample("z", SCENARIO.prior(4))

    with pytest.raises(ValueError, match="6 elements in the model and 4 in the guide"):
        pv.importance_sampling(SCENARIO.model, guide, SCENARIO.data(6), num_particles=2)


def rowwise(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", SCENARIO.prior(len(x)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", SCENARIO.likelihood(z), obs=x)


def rowwise_guide(x):
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.MultivariateNormal(SCENARIO.posterior_mean(x), SCENARIO.cov))


def turned(x):
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample(
            "z", dist.MultivariateNormal(SCENARIO.posterior_mean(x)[:, None], SCENARIO.cov)
        )


def test_latents_of_each_row_in_another_plate_are_not_common():
    """Taken for common, they would give log E_q p(x|z) for log p(x)."""
    for n in (6, 70):
        with pytest.raises(ValueError, match="'z' stands outside plate 'data' and seems to have"):
            pv.importance_sampling(rowwise, rowwise_guide, SCENARIO.data(n), num_particles=3)
    with pytest.raises(ValueError, match="dimension -1 of the model and -2 of the guide"):
        pv.importance_sampling(SCENARIO.model, turned, SCENARIO.data(6), num_particles=3)


def test_points_of_latents_common_to_all_data_are_parameters():
    x = torch.randn(7)

    def point(x):
        pyro.sample("m", dist.Delta(torch.tensor(0.3)))

    truth = dist.Normal(0.3, 1.0).log_prob(x)
    for guide in (point, autoguide.AutoDelta(GlobalMean().model, init_loc_fn=lambda s: truth[0])):
        value = 0.3 if guide is point else truth[0]
        w = pv.importance_sampling(GlobalMean().model, guide, x, num_particles=2, block_size=3)
        torch.testing.assert_close(w.log_w, dist.Normal(value, 1.0).log_prob(x).expand(2, 7))
    with pytest.raises(ValueError, match="'m' is a point|point .* at site 'm'"):
        pv.importance_sampling(GlobalMean().model, point, x, num_particles=2, plate=None)


def test_latents_common_to_all_data_give_the_predictive_density():
    x = torch.randn(7)
    n = len(x)
    mean, var = x.sum() / (n + 1), 1 / (n + 1)
    truth = dist.Normal(mean, (1 + var) ** 0.5).log_prob(x)

    def posterior(_):
        pyro.sample("m", dist.Normal(mean, var**0.5))

    for block_size in (64, 3):
        w = pv.importance_sampling(
            GlobalMean().model, posterior, x, num_particles=20_000, seed=0, block_size=block_size
        )
        assert agrees(w, truth)
    prior = pv.prior_sampling(GlobalMean().model, x, num_particles=20_000, seed=0)
    assert agrees(prior, dist.Normal(0.0, 2**0.5).log_prob(x))
    with pytest.raises(ValueError, match="'m' is common to all data"):
        pv.ais(GlobalMean().model, x, guide=posterior, num_particles=2)


def in_a_loop(x):
    for i in pyro.plate("data", len(x)):
        z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
        k = pyro.sample(f"k{i}", dist.Bernoulli(0.3))
        pyro.sample(f"x{i}", dist.Normal(z + k, 1.0), obs=x[i])


def guide_in_a_loop(x):
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"z{i}", dist.Normal(x[i] / 2, 0.9))


def test_a_data_plate_that_is_a_loop():
    x = torch.randn(9)
    parts = [dist.Normal(k, 2**0.5).log_prob(x) for k in (0.0, 1.0)]
    truth = torch.logaddexp(parts[0] + torch.tensor(0.7).log(), parts[1] + torch.tensor(0.3).log())
    for block_size in (64, 4):
        options = {"num_particles": 4_000, "seed": 0, "block_size": block_size}
        assert agrees(pv.importance_sampling(in_a_loop, guide_in_a_loop, x, **options), truth)
        assert agrees(pv.prior_sampling(in_a_loop, x, **options), truth)
    with pytest.raises(ValueError, match="plate 'data' is a loop"):
        pv.ais(in_a_loop, x, guide=guide_in_a_loop, num_particles=2)

    def chain(x):
        z = torch.tensor(0.0)
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{i}", dist.Normal(z, 1.0))
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[i])

    with pytest.raises(ValueError, match="rows depend on each other"):
        pv.prior_sampling(chain, x, num_particles=2)


def test_a_plate_without_a_size():
    def model(x):
        with pyro.plate("data"):
            SCENARIO_Z = pyro.sample("z", SCENARIO.prior(len(x)))
            pyro.sample("x", SCENARIO.likelihood(SCENARIO_Z), obs=x)

    x = SCENARIO.data(70)
    w = pv.importance_sampling(model, exact, x, num_particles=3, seed=0)
    torch.testing.assert_close(w.log_w, SCENARIO.log_evidence(x).expand(3, 70))


def test_a_plate_without_a_size_makes_no_rows():
    x = torch.tensor([0.3, -1.0, 0.8])

    def model(x, size=None):
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + torch.zeros(3), 1.0), obs=x)

    def guide(x, size=None):
        with pyro.plate("data", size):
            pyro.sample("z", dist.Normal(0.5, 1.0))

    message = "has no size, and site 'z' in it is one value for all 3 rows; write `pyro.plate"
    for call in (
        lambda: pv.importance_sampling(model, guide, x, num_particles=2),
        lambda: pv.prior_sampling(model, x, num_particles=2),
        lambda: pv.quadrature(model, x),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    sized = partial(model, size=3)
    truth = dist.Normal(0.0, 2**0.5).log_prob(x)
    torch.testing.assert_close(pv.quadrature(sized, x), truth, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="has no size, and the program is given no data"):
        pv.prior_sampling(lambda: model(x), num_particles=2)


def test_data_along_another_axis():
    def model(x):
        with pyro.plate("data", x.shape[1]):
            z = pyro.sample("z", SCENARIO.prior(x.shape[1]))
            pyro.sample("x", SCENARIO.likelihood(z), obs=x.T)

    def guide(x):
        SCENARIO.exact(x.T)

    x = SCENARIO.data(70)
    w = pv.importance_sampling(model, guide, x.T.contiguous(), num_particles=3, seed=0)
    torch.testing.assert_close(w.log_w, SCENARIO.log_evidence(x).expand(3, 70))


def test_arguments_that_are_no_data():
    def model(x, y, flag, size, net):
        assert y is None
        assert flag == "train"
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", SCENARIO.prior(len(x)).expand([len(x)]))
            pyro.sample("x", SCENARIO.likelihood(net(z)[..., :size]), obs=x)

    def guide(x, *_):
        SCENARIO.exact(x)

    x = SCENARIO.data(70)
    arguments = x, None, "train", 2, torch.nn.Identity()
    w = pv.importance_sampling(model, guide, *arguments, num_particles=3, seed=0)
    torch.testing.assert_close(w.log_w, SCENARIO.log_evidence(x).expand(3, 70))
    found = pv.check(model, guide, *arguments)
    assert found.ok
    assert found


def test_a_program_that_holds_its_data_itself():
    x = SCENARIO.data(70)
    w = pv.importance_sampling(
        lambda: SCENARIO.model(x), lambda: SCENARIO.exact(x), num_particles=3, seed=0
    )
    torch.testing.assert_close(w.log_w, SCENARIO.log_evidence(x).expand(3, 70))


def test_a_model_without_latents():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(1.0, 2.0), obs=x)

    x = torch.randn(5)
    truth = dist.Normal(1.0, 2.0).log_prob(x)
    w = pv.prior_sampling(model, x, num_particles=2, seed=0)
    torch.testing.assert_close(w.log_w, truth.expand(2, 5))
    evidence = pv.evaluate(model, lambda x: None, x, num_particles=30, seed=0)
    torch.testing.assert_close(evidence["importance"].value, truth)


@pytest.mark.parametrize(
    "first", ["nothing", *(pytest.param(f, marks=pytest.mark.slow) for f in ("check", "plates"))]
)
def test_a_guide_with_parameters_for_each_datum(first):
    n = 100
    x = SCENARIO.data(n)
    truth = SCENARIO.log_evidence(x)

    def by_hand(x):
        loc = pyro.param("loc", lambda: torch.zeros(len(x), 2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    for guide in (by_hand, autoguide.AutoNormal(SCENARIO.model, init_scale=1.0)):
        pyro.clear_param_store()
        if first == "check":
            assert pv.check(SCENARIO.model, guide, x).ok
        if first == "plates":
            pv.plots.plates(SCENARIO.model, guide, x)
        for block_size in (64, 7):
            evidence = pv.evaluate(
                SCENARIO.model,
                guide,
                x,
                estimators=["importance", "ais"],
                num_particles=50,
                num_temperatures=30,
                num_chains=20,
                block_size=block_size,
                seed=0,
            )
        e = evidence["ais"]
        assert len(e.value) == n
        assert ((e.value - truth).abs() <= 4 * e.std_error + 0.01).double().mean() > 0.9


def test_a_discrete_site_of_the_guide_is_summed_out_by_annealing():
    locs, probs = torch.tensor([-2.0, 2.0]), torch.tensor([0.3, 0.7])

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(probs))
            z = pyro.sample("z", dist.Normal(locs[k], 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=torch.stack([-x, x], -1)))
            pyro.sample("z", dist.Normal(0.8 * x + 0.2 * locs[k], 0.6))

    x = torch.tensor([-2.5, -0.5, 0.4, 3.0])
    log_x = dist.Normal(locs, 1.25**0.5).log_prob(x[:, None])
    truth = (probs.log() + log_x).logsumexp(1)
    options = {"guide": guide, "num_temperatures": 20, "num_particles": 50, "seed": 0}
    assert agrees(pv.ais(model, x, **options), truth)
    bounds = pv.bdmc(model, x, **options)
    truth = (
        probs.log() + dist.Normal(locs, 1.25**0.5).log_prob(bounds.data[0][:, None])
    ).logsumexp(1)
    torch.testing.assert_close(bounds.upper, truth, atol=0.1, rtol=0)


def test_errors_of_draws_that_all_data_have_in_common_go_together():
    """q(m) is drawn for all data at once: many data do not make the error of their mean small."""
    x = torch.full((130,), 0.5) + 0.01 * torch.randn(130)

    def posterior(_):
        pyro.sample("m", dist.Normal(0.0, 1.0))

    truth = dist.Normal(0.0, 2**0.5).log_prob(x).mean()
    off, said = [], []
    for seed in range(20):
        evidence = pv.evaluate(
            GlobalMean().model,
            posterior,
            x,
            estimators=["importance"],
            num_particles=320,
            seed=seed,
        )
        e = evidence["importance"]
        off.append(e.mean - truth)
        said.append(e.monte_carlo_error)
    assert 0.5 < torch.tensor(off).std() / torch.tensor(said).mean() < 1.6
    assert set(e.verdict()) <= {"not contradicted", "more samples"}
    assert re.search(r"given what .* of m\b", evidence.reading())
    for call in (
        lambda: pv.importance_sampling(
            GlobalMean().model, posterior, x, num_particles=9, proposal=pv.Widened(2.0)
        ),
        lambda: pv.to_arviz(GlobalMean().model, posterior, x, num_particles=9),
    ):
        with pytest.raises(ValueError, match="'m' is common to all data"):
            call()


def test_fit_hands_on_what_is_no_data():
    vae = pv.VAE(x_dim=4, z_dim=1, hidden_dims=(3,))

    def model(x, y, flag):
        assert y is None
        assert flag
        vae.model(x)

    def guide(x, y, flag):
        vae.guide(x)

    x = torch.ones(9, 4)
    options = {"num_epochs": 2, "seed": 0, "progress": False}
    there = pv.svi.fit(model, guide, (x, None, True), valid=(x, None, True), **options)
    assert len(there.valid_elbo) == 2


OWN = "^the distribution of site '{}' is made of the very values that it scores"


def refused(model, *data, site="x", exact=True, **options):
    """Holds that log p is refused, for what it reads and for nothing else."""
    found = pv.check(model, None, *data, **options)
    assert re.search(OWN.format(site), found.verdict), found.verdict
    for name in ("exact", "prior") if exact else ("prior",):
        with pytest.raises(ValueError, match=OWN.format(site)) as raised:
            pv.evaluate(model, None, *data, estimators=[name], num_particles=2, **options)
        assert "\n" not in str(raised.value)


def exactly(model, *data, **options):
    """log p(x) of a model that has no latents, or discrete ones alone."""
    assert pv.check(model, None, *data, **options)
    w = pv.importance_sampling(model, lambda *d: None, *data, num_particles=1, **options)
    return w.log_w[0]


def reading(loc, scale=1.0):
    """A program that observes x, (N, D), about a location made of it."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc(x), scale).to_event(1), obs=x)

    return model


def network(*widths):
    layers = [torch.nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)]
    return torch.nn.Sequential(*(m for layer in layers for m in (layer, torch.nn.Tanh())))


@pytest.mark.parametrize("size", [1, 3, 64])
def test_an_autoencoder_has_no_density(size):
    x = torch.randn(70, 5)
    refused(reading(network(5, 8, 2, 8, 5)), x, block_size=size)
    refused(reading(torch.relu), x)  # which reads no number below 0

    def of_pixels(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=net(x)).to_event(1), obs=x)

    net, x = network(784, 100, 5, 100, 784), torch.zeros(70, 784)
    x[:, 300:500] = torch.bernoulli(torch.full((70, 200), 0.3))  # most pixels are always black
    refused(of_pixels, x, block_size=size)


def before(x):
    """The sum of the columns before each."""
    return torch.cat([torch.zeros(len(x), 1), x.cumsum(1)[:, :-1]], 1)


@pytest.mark.parametrize("width", [2, 30])
@pytest.mark.parametrize("turned", [False, True])
def test_columns_may_depend_on_those_before_them(width, turned):
    def order(x):
        return x.flip(1) if turned else x

    x = torch.randn(6, width)
    truth = dist.Normal(0.3 * order(before(order(x))), 1.0).log_prob(x).sum(1)
    model = reading(lambda x: 0.3 * order(before(order(x))))
    torch.testing.assert_close(exactly(model, x), truth)
    refused(reading(lambda x: 0.3 * order(order(x).cumsum(1))), x)
    refused(reading(lambda x: 0.3 * x.mean(1, keepdim=True).expand_as(x)), x)


def regressing(of):
    """The last column given all others; given itself as well where `of` says so."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(of(x).sum(1), 1.0), obs=x[:, -1])

    return model


def test_covariates_may_stand_beside_what_is_observed():
    def given(x, y):
        with pyro.plate("data", len(x)):
            scale = 1 + y[:, :1] ** 2
            pyro.sample("x", dist.Normal(y @ weight, scale).to_event(1), obs=x)

    x, y, weight = torch.randn(9, 4), torch.randn(9, 3), torch.randn(3, 4)
    truth = dist.Normal(y @ weight, 1 + y[:, :1] ** 2).log_prob(x).sum(1)
    torch.testing.assert_close(exactly(given, x, y), truth)
    for width in (4, 20):
        x = torch.randn(9, width)
        truth = dist.Normal(x[:, :-1].sum(1), 1.0).log_prob(x[:, -1])
        torch.testing.assert_close(exactly(regressing(lambda x: x[:, :-1]), x), truth)
        refused(regressing(lambda x: x), x)


def test_sites_may_depend_on_those_before_them():
    def model(x, y, own):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Poisson(1 + 3 * y), obs=x[:, 0])
            rate = 1 + a + (x[:, 1] if own else 0)
            pyro.sample("b", dist.Poisson(rate), obs=x[:, 1])
            pyro.sample("y", dist.Bernoulli(torch.full((len(x),), 0.3)), obs=y)

    x, y = torch.poisson(torch.full((9, 2), 3.0)), torch.arange(9) % 2 * 1.0
    a, b = x.T
    truth = dist.Poisson(1 + 3 * y).log_prob(a) + dist.Poisson(1 + a).log_prob(b)
    truth = truth + dist.Bernoulli(0.3).log_prob(y)
    torch.testing.assert_close(exactly(partial(model, own=False), x, y), truth)
    refused(partial(model, own=True), x, y, site="b")


@pytest.mark.parametrize("inside", [False, True])
def test_what_is_masked_may_be_read(inside):
    """An entry that does not count is given; each row has others."""

    def model(x, seen, leaks):
        loc = torch.where(seen & (not leaks), 0.0, x).sum(1, keepdim=True)
        with pyro.plate("data", len(x)) as _:
            fn = dist.Normal(loc.expand_as(x), 1.0)
            if inside:
                pyro.sample("x", fn.mask(seen).to_event(1), obs=x)
                return
            with pyro.plate("columns", x.shape[1], dim=-2), poutine.mask(mask=seen.T):
                pyro.sample("x", dist.Normal(loc.expand_as(x).T, 1.0), obs=x.T)

    x, seen = torch.randn(9, 3), torch.rand(9, 3) < 0.6
    loc = torch.where(seen, 0.0, x).sum(1, keepdim=True)
    truth = (dist.Normal(loc, 1.0).log_prob(x) * seen).sum(1)
    torch.testing.assert_close(exactly(partial(model, leaks=False), x, seen), truth)
    refused(partial(model, leaks=True), x, seen)


def test_mixtures_of_which_one_part_reads_what_it_scores():
    def model(x, own):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.3))
            loc = k[..., None] * (x if own else before(x))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    x = torch.randn(9, 3)
    parts = [dist.Normal(k * before(x), 1.0).log_prob(x).sum(1) for k in (0, 1)]
    truth = torch.logaddexp(parts[0] + math.log(0.7), parts[1] + math.log(0.3))
    torch.testing.assert_close(exactly(partial(model, own=False), x), truth)
    refused(partial(model, own=True), x)


def subsampled(x, scale):
    with pyro.plate("data", len(x), subsample_size=4) as i:
        pyro.sample("x", dist.Normal(scale * before(x)[i] + (1 - scale) * x[i], 1.0).to_event(1),
                    obs=x[i])  # fmt: skip


def looped(x, scale, size=None):
    for i in pyro.plate("data", len(x), subsample_size=size):
        loc = scale * before(x)[i] + (1 - scale) * x[i]
        pyro.sample(f"x{i}", dist.Normal(loc, 1.0).to_event(1), obs=x[i])


def of_rows(x, scale):
    """Each row but the first, given the row before."""
    loc = scale * x[:-1] + (1 - scale) * x[1:]
    pyro.sample("x", dist.Normal(loc, 1.0).to_event(2), obs=x[1:])


looped_in_parts = partial(looped, size=4)


@pytest.mark.parametrize("model", [subsampled, looped, looped_in_parts, of_rows])
def test_other_data_plates_of_what_reads_itself(model):
    plate = None if model is of_rows else "data"
    x = torch.randn(8, 3)
    loc, value = (x[:-1], x[1:]) if plate is None else (before(x), x)
    truth = dist.Normal(loc, 1.0).log_prob(value).sum(1)
    truth = truth.sum() if plate is None else truth
    torch.testing.assert_close(exactly(partial(model, scale=1.0), x, plate=plate), truth)
    refused(partial(model, scale=0.9), x, site="x.?", plate=plate)


@pytest.mark.parametrize("kind", ["deterministic", "point", "skip"])
def test_what_a_site_reads_by_way_of_another(kind):
    """A code that is a site is made of x all the same; so is what skips the latents."""
    scenario = LinearGaussian.make()
    x = scenario.data(7)

    def model(x, share):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", scenario.prior(len(x)))
            code = share * x
            if kind == "deterministic":
                code = pyro.deterministic("code", code, event_dim=1)
            if kind == "point":
                code = pyro.sample("code", dist.Delta(code, event_dim=1))
            fn = scenario.likelihood(z)
            pyro.sample("x", dist.Normal(fn.mean + code, fn.stddev).to_event(1), obs=x)

    evidence = pv.evaluate(
        partial(model, share=0.0), None, x, estimators=["prior"], num_particles=20_000, seed=0
    )
    off = (evidence["prior"].value - scenario.log_evidence(x)).abs()
    assert (off <= 4 * evidence["prior"].std_error).all()
    refused(partial(model, share=0.3), x, exact=False)


def test_values_made_of_several_columns():
    """A step moves with two levels and may know one; a difference with a covariate, likewise."""

    def model(x, own):
        loc = 0.3 * x[:, :-1] + (0.3 * x[:, 1:] if own else 0)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x[:, 1:] - x[:, :-1])

    def beside(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.3 * y, 1.0).to_event(1), obs=x - y)

    for width in (2, 5, 30):
        x, y = torch.randn(2, 9, width)
        truth = dist.Normal(0.3 * y, 1.0).log_prob(x - y).sum(1)
        torch.testing.assert_close(exactly(beside, x, y), truth)
        truth = dist.Normal(0.3 * x[:, :-1], 1.0).log_prob(x.diff(dim=1)).sum(1)
        torch.testing.assert_close(exactly(partial(model, own=False), x), truth)
        refused(partial(model, own=True), x)


def test_exact_tells_a_latent_that_it_cannot_sum_out():
    """From all else that is wrong with a program, for which no other estimator is to be asked."""
    with pytest.raises(GuideError, match="'exact' sums out all latents.* misses latent site 'z'"):
        pv.Exact()(SCENARIO.model, None, SCENARIO.data(3))
    with pytest.raises(ValueError, match=OWN.format("x")):
        pv.Exact()(reading(lambda x: 0.9 * x), None, torch.randn(4, 2))
