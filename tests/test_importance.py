"""The estimators against exact answers, then as statistics."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import BernoulliDecoder, GammaPoisson, LinearGaussian, Mixture, TwoLevels

import pyrovae as pv
from pyrovae.evidence.samplers.sampler import ImportanceSampler
from pyrovae.evidence.samplers.scheme import Scheme


@pytest.mark.parametrize("scenario", [LinearGaussian.make, GammaPoisson])
@pytest.mark.parametrize(
    ("num_particles", "block_size", "chunk_size"),
    [(1, 64, 4096), (7, 64, 4096), (1000, 64, 4096), (7, 1, 1), (7, 2, 6), (1000, 3, 1000)],
)
def test_exact_posterior_gives_exact_weights(scenario, num_particles, block_size, chunk_size):
    scenario = scenario()
    x = scenario.data(5) if isinstance(scenario, LinearGaussian) else scenario.data()
    w = pv.importance_sampling(
        scenario.model,
        scenario.exact,
        x,
        num_particles=num_particles,
        seed=0,
        block_size=block_size,
        chunk_size=chunk_size,
    )
    truth = scenario.log_evidence(x)
    assert w.log_w.shape == (num_particles, 5)
    torch.testing.assert_close(w.log_w, truth.expand(num_particles, 5), rtol=0, atol=1e-10)
    torch.testing.assert_close(w.log_evidence(), truth, rtol=0, atol=1e-10)
    assert not w.bad().any()


def test_a_mixture_is_exact():
    """Its discrete latent is summed out by enumeration; the guide has nothing to do."""
    scenario = Mixture()
    x = scenario.data()
    w = pv.importance_sampling(scenario.model, scenario.no_guide, x, num_particles=3, seed=0)
    truth = scenario.log_evidence(x)
    torch.testing.assert_close(w.log_w, truth.expand(3, 13), rtol=0, atol=1e-10)
    one = pv.importance_sampling(scenario.model, scenario.no_guide, x[:1], num_particles=1)
    torch.testing.assert_close(one.log_w, truth[None, :1], rtol=0, atol=1e-10)
    naive = pv.prior_sampling(scenario.model, x, num_particles=20_000, seed=0)
    ratio = (naive.log_w - truth).exp()
    assert ((ratio.mean(0) - 1) / ratio.std(0) * 20_000**0.5).abs().max() < 4


def test_mixtures_inside_plates_are_exact():
    """A component for each of three parts, and one for the datum above them."""
    probs, loc = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([-1.0, 0.5, 2.0])

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            a = pyro.sample("a", dist.Categorical(probs.expand(len(x), 1, 3)))
            with pyro.plate("parts", 3, dim=-1):
                b = pyro.sample("b", dist.Bernoulli(torch.tensor([0.1, 0.6, 0.9])[a]))
                pyro.sample("x", dist.Normal(loc[a] + 3 * b, 1.0), obs=x)

    x = torch.randn(5, 3)
    p_b = torch.tensor([0.1, 0.6, 0.9])
    ones = dist.Normal(loc + 3, 1.0).log_prob(x[..., None]) + p_b.log()
    zeros = dist.Normal(loc, 1.0).log_prob(x[..., None]) + (1 - p_b).log()
    truth = (probs.log() + torch.logaddexp(ones, zeros).sum(1)).logsumexp(-1)
    w = pv.importance_sampling(model, lambda x: None, x, num_particles=2, seed=0)
    torch.testing.assert_close(w.log_w, truth.expand(2, 5), rtol=0, atol=1e-10)


def test_discrete_latents_beside_continuous_ones():
    scenario = Mixture()
    x = scenario.data()
    w = pv.importance_sampling(scenario.with_latent, scenario.guide, x, num_particles=4000, seed=0)
    truth = scenario.log_evidence(x, (1 + 0.5**2) ** 0.5)
    assert ((w.log_evidence() - truth) / w.std_error()).abs().max() < 4


def test_levels_and_nested_plates():
    scenario = TwoLevels()
    x = scenario.data()
    w = pv.importance_sampling(scenario.model, scenario.guide, x, num_particles=4000, seed=0)
    assert ((w.log_evidence() - scenario.log_evidence(x)) / w.std_error()).abs().max() < 4


def test_mean_field_guide():
    scenario = LinearGaussian.make(x_dim=6, z_dim=3)
    x = scenario.data(50)
    truth, kl = scenario.log_evidence(x), scenario.mean_field_kl()
    w = pv.importance_sampling(scenario.model, scenario.mean_field, x, num_particles=4000, seed=0)
    z = (w.log_evidence() - truth) / w.std_error()
    assert abs(z.mean()) < 4 / 50**0.5
    gap = w.log_evidence() - w.elbo()
    error = (w.std_error().square() + w.elbo_std_error().square()).sqrt()
    assert kl > 0.1
    assert abs(((gap - kl) / error).mean()) < 4 / 50**0.5


@pytest.mark.parametrize("proposal", ["guide", "prior"])
@pytest.mark.parametrize("make", [BernoulliDecoder, GammaPoisson, LinearGaussian.make])
def test_weights_are_unbiased(make, proposal):
    """mean(exp(log w - log p(x))) = 1 within 4 standard errors, for each datum."""
    scenario = make()
    x = scenario.data() if isinstance(scenario, GammaPoisson) else scenario.data(5)
    guide = {
        BernoulliDecoder: getattr(scenario, "guide", None),
        GammaPoisson: getattr(scenario, "wide", None),
        LinearGaussian: lambda x: scenario.mean_field(x, scale=1.2),
    }[type(scenario)]
    if proposal == "guide":
        w = pv.importance_sampling(scenario.model, guide, x, num_particles=20_000, seed=0)
    else:
        w = pv.prior_sampling(scenario.model, x, num_particles=20_000, seed=0)
    ratio = (w.log_w - scenario.log_evidence(x)).exp()
    z = (ratio.mean(0) - 1) / (ratio.std(0) / 20_000**0.5)
    assert z.abs().max() < 4


@pytest.mark.parametrize("proposal", ["guide", "prior"])
def test_unbiased_on_twenty_seeds(proposal):
    scenario = LinearGaussian.make(sigma=1.0)
    x = scenario.data(5)
    truth = scenario.log_evidence(x)
    for seed in range(20):
        options = {"num_particles": 2000, "seed": seed}
        if proposal == "guide":
            w = pv.importance_sampling(scenario.model, scenario.mean_field, x, **options)
        else:
            w = pv.prior_sampling(scenario.model, x, **options)
        ratio = (w.log_w - truth).exp()
        assert abs(ratio.mean() - 1) < 4 * ratio.std() / ratio.numel() ** 0.5, seed


def test_quadrature_agrees():
    scenario = BernoulliDecoder()
    x = scenario.data(20)
    w = pv.importance_sampling(scenario.model, scenario.guide, x, num_particles=5000, seed=0)
    z = (w.log_evidence() - scenario.log_evidence(x)) / w.std_error()
    assert z.abs().max() < 4
    assert not w.bad().any()


def test_naive_sampling_is_wrong_at_ten_dimensions_and_flagged():
    scenario = LinearGaussian.make(x_dim=20, z_dim=10, sigma=0.3)
    x = scenario.data(20)
    w = pv.prior_sampling(scenario.model, x, num_particles=5000, seed=0)
    short = scenario.log_evidence(x) - w.log_evidence()
    assert short.mean() > 10  # nats
    assert w.std_error().max() <= 1  # what it says of itself
    assert w.bad().double().mean() > 0.9
    assert w.ess().median() < 5
    exact = pv.importance_sampling(scenario.model, scenario.exact, x, num_particles=5, seed=0)
    assert not exact.pareto_k().any()


def test_chunks_do_not_change_the_draws():
    scenario = LinearGaussian.make()
    x = scenario.data(10)
    tables = [
        pv.importance_sampling(
            scenario.model, scenario.mean_field, x, num_particles=23, seed=3, chunk_size=size
        ).log_w
        for size in (1, 50, 4096)
    ]
    torch.testing.assert_close(tables[0], tables[1])
    torch.testing.assert_close(tables[0], tables[2])


@pytest.mark.parametrize("block_size", [1, 3, 10])
@pytest.mark.parametrize("proposal", ["guide", "prior"])
def test_blocks_change_the_draws_and_not_the_target(proposal, block_size):
    scenario = BernoulliDecoder()
    x = scenario.data(10)
    options = {"num_particles": 4001, "seed": 0, "block_size": block_size, "chunk_size": 1000}
    if proposal == "guide":
        w = pv.importance_sampling(scenario.model, scenario.guide, x, **options)
    else:
        w = pv.prior_sampling(scenario.model, x, **options)
    assert w.log_w.shape == (4001, 10)
    assert ((w.log_evidence() - scenario.log_evidence(x)) / w.std_error()).abs().max() < 4


def test_a_block_depends_on_seed_and_first_row_alone():
    scenario = LinearGaussian.make()
    x = scenario.data(10)
    options = {"num_particles": 5, "seed": 0, "block_size": 4}
    all_rows = pv.importance_sampling(scenario.model, scenario.mean_field, x, **options)
    fewer = pv.importance_sampling(scenario.model, scenario.mean_field, x[:4], **options)
    torch.testing.assert_close(all_rows.log_w[:, :4], fewer.log_w)


def test_seeds():
    scenario, x = LinearGaussian.make(), LinearGaussian.make().data(4)

    def draw(seed):
        return pv.importance_sampling(
            scenario.model, scenario.mean_field, x, num_particles=3, seed=seed
        ).log_w

    stream = torch.get_rng_state()
    assert torch.equal(draw(1), draw(1))
    assert torch.equal(torch.get_rng_state(), stream)
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(draw(None), draw(None))
    torch.manual_seed(5)
    first = draw(None)
    torch.manual_seed(5)
    assert torch.equal(first, draw(None))


def test_guide_encodes_a_block_once_and_the_model_decodes_every_sample():
    vae = pv.VAE(x_dim=4, z_dim=2)
    seen = {"encoder": 0, "decoder": 0}

    def count(name):
        def hook(module, args, out):
            seen[name] += args[0].shape[:-1].numel()

        return hook

    vae.encoder.register_forward_hook(count("encoder"))
    vae.decoder.register_forward_hook(count("decoder"))
    program = pv.program.inspect(vae.model, vae.guide, torch.ones(10, 4))
    seen["encoder"] = seen["decoder"] = 0
    sampler = ImportanceSampler(program, Scheme(1003), seed=0, chunk_size=40)
    tables = [sampler.log_weights(r).log_w for r in program.blocks(4)]
    assert [t.shape for t in tables] == [(1003, 4), (1003, 4), (1003, 2)]
    assert seen["encoder"] == 10
    assert seen["decoder"] == 10 * 1003 + 10  # and once to check the data's support


def test_float32_programs_stay_float32():
    vae = pv.VAE(x_dim=4, z_dim=2).float()
    x = torch.ones(5, 4, dtype=torch.float32)
    w = pv.importance_sampling(vae.model, vae.guide, x, num_particles=100, seed=0)
    assert w.log_w.dtype == torch.float64
    assert next(vae.parameters()).dtype == torch.float32
    double = vae.double()
    w64 = pv.importance_sampling(double.model, double.guide, x.double(), num_particles=100, seed=0)
    assert (w.log_evidence() - w64.log_evidence()).abs().max() < 1.0


def test_nan_parameters_name_the_datum():
    def guide(x):
        with pyro.plate("data", len(x)):
            loc = torch.where(x[:, :1] > 50, torch.nan, 0.0).expand(-1, 2)
            pyro.sample("z", dist.Normal(loc, 1.0, validate_args=False).to_event(1))

    scenario = LinearGaussian.make()
    x = scenario.data(100)
    x[77] += 1000
    with pytest.raises(ValueError, match="log w is nan at particle 0 of datum 77"):
        pv.importance_sampling(scenario.model, guide, x, num_particles=3, seed=0)


@pytest.mark.parametrize("name", ["num_particles", "block_size", "chunk_size"])
@pytest.mark.parametrize("value", [0, -3, 2.5])
def test_sizes_are_positive_integers(name, value):
    scenario, x = LinearGaussian.make(), LinearGaussian.make().data(4)
    options = {"num_particles": 3, name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}; give a positive integer"):
        pv.prior_sampling(scenario.model, x, **options)


def test_autoguides_of_pyro_work():
    scenario = LinearGaussian(2 * torch.eye(3, 2), torch.zeros(3), 0.5)
    x = scenario.data(8)
    guide = pyro.infer.autoguide.AutoNormal(scenario.model, init_scale=0.5)
    pv.svi.fit(scenario.model, guide, x, num_epochs=800, batch_size=8, lr=0.05, seed=0)
    w = pv.importance_sampling(scenario.model, guide, x, num_particles=4000, seed=0)
    assert not w.bad().any()
    assert ((w.log_evidence() - scenario.log_evidence(x)) / w.std_error()).abs().max() < 4
