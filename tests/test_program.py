import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from scenarios import BernoulliDecoder, GammaPoisson, GlobalMean, LinearGaussian

import pyrovae as pv
from pyrovae.data.rows import spooled
from pyrovae.program import evaluation, first, inspect

Z = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1)


def plain_log_w(model, guide, x, z):
    """log p(x, z) - log q(z|x) of one datum at a time, one particle, with Pyro's own trace."""
    out = torch.zeros(len(z), len(x))
    for s in range(len(z)):
        for n in range(len(x)):
            at = {"z": z[s, n : n + 1]}
            p, q = (
                poutine.trace(poutine.condition(f, data=at)).get_trace(x[n : n + 1])
                for f in (model, guide)
            )
            out[s, n] = p.log_prob_sum() - q.log_prob_sum()
    return out


@pytest.mark.parametrize("make", [LinearGaussian.make, BernoulliDecoder])
def test_densities_equal_single_traces(make):
    scenario = make()
    x = scenario.data(4)
    guide = getattr(scenario, "mean_field", None) or scenario.guide
    program = inspect(scenario.model, guide, x)
    z, log_q = program.propose(range(4), 3)
    log_w = program.log_joint(z, range(4), len(log_q)) - log_q
    torch.testing.assert_close(log_w, plain_log_w(scenario.model, guide, x, z["z"]))


def test_loss_and_gradients_equal_trace_elbo():
    """Our per-datum densities, which can be captured, are those of Pyro's ELBO, which cannot."""
    vae = pv.VAE(x_dim=5, z_dim=2, hidden_dims=(4,))
    x = (torch.rand(6, 5) < 0.5).double()
    program = inspect(vae.model, vae.guide, x)
    torch.manual_seed(1)
    z, log_q = program.propose(range(6), 1)
    ours = -(program.log_joint(z, range(6), len(log_q)) - log_q).sum()
    grads = torch.autograd.grad(ours, list(vae.parameters()))
    torch.manual_seed(1)
    # a plate of one particle draws the same noise as no plate
    theirs = Trace_ELBO().differentiable_loss(vae.model, vae.guide, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    torch.testing.assert_close(grads, torch.autograd.grad(theirs, list(vae.parameters())))


def test_scale_changes_nothing():
    scenario, x = LinearGaussian.make(), LinearGaussian.make().data(5)
    scaled = [poutine.scale(f, scale=2.0) for f in (scenario.model, scenario.mean_field)]
    ours = pv.importance_sampling(*scaled, x, num_particles=50, seed=0)
    plain = pv.importance_sampling(
        scenario.model, scenario.mean_field, x, num_particles=50, seed=0
    )
    assert torch.equal(ours.log_w, plain.log_w)


class Subsampling(LinearGaussian):
    """The same program, of which each run sees 4 random rows."""

    def model(self, x):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            z = pyro.sample("z", self.prior(len(rows)))
            pyro.sample("x", self.likelihood(z), obs=x[rows])

    def exact(self, x):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            mean = self.posterior_mean(x[rows])
            pyro.sample("z", dist.MultivariateNormal(mean, self.cov))


@pytest.mark.parametrize("n", [4, 10, 100])
def test_subsampling_changes_nothing(n):
    scenario = Subsampling.make()
    x = scenario.data(n)
    w = pv.importance_sampling(scenario.model, scenario.exact, x, num_particles=7, seed=0)
    torch.testing.assert_close(w.log_w, scenario.log_evidence(x).expand(7, n), rtol=0, atol=1e-10)


def test_blocks_as_large_as_the_subsample():
    scenario = Subsampling.make()
    x = scenario.data(11)
    w = pv.importance_sampling(
        scenario.model, scenario.exact, x, num_particles=7, seed=0, block_size=4
    )
    truth = scenario.log_evidence(x).expand(7, 11)
    torch.testing.assert_close(w.log_w, truth, rtol=0, atol=1e-10)


def test_minibatch_of_a_larger_plate():
    """`subsample_size=len(x)`, as minibatch programs write it: the factor N / n is no evidence."""
    scenario = LinearGaussian.make()

    def model(x):
        with pyro.plate("data", 1000, subsample_size=len(x)):
            z = pyro.sample("z", scenario.prior(len(x)))
            pyro.sample("x", scenario.likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("data", 1000, subsample_size=len(x)):
            mean = scenario.posterior_mean(x)
            pyro.sample("z", dist.MultivariateNormal(mean, scenario.cov))

    x = scenario.data(4)
    w = pv.importance_sampling(model, guide, x, num_particles=3, seed=0)
    torch.testing.assert_close(w.log_w, scenario.log_evidence(x).expand(3, 4), rtol=0, atol=1e-10)


def test_mask_removes_exactly_the_masked_terms():
    scenario = LinearGaussian.make()
    x = scenario.data(6)
    keep = torch.tensor([True, False, True, True, False, True])

    def masked(x, keep):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", scenario.prior(len(x)))
            with poutine.mask(mask=keep):
                pyro.sample("x", scenario.likelihood(z), obs=x)

    def guide(x, keep):
        scenario.mean_field(x)

    w = pv.importance_sampling(masked, guide, x, keep, num_particles=50, seed=0)
    full = pv.importance_sampling(scenario.model, scenario.mean_field, x, num_particles=50, seed=0)
    assert torch.equal(w.log_w[:, keep], full.log_w[:, keep])
    prior = pv.prior_sampling(masked, x, keep, num_particles=5, seed=0)
    assert (prior.log_w[:, ~keep] == 0).all()


def test_nested_plates_inside_the_data_plate():
    """z_n, then 3 repeated measurements of it: a linear-Gaussian model."""
    scenario = LinearGaussian(torch.ones(3, 1), torch.zeros(3), 0.5)

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0))
            with pyro.plate("repeats", 3, dim=-1):
                pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            mean = scenario.posterior_mean(x)
            pyro.sample("z", dist.Normal(mean, scenario.cov.sqrt()))

    x = scenario.data(70)
    w = pv.importance_sampling(model, guide, x, num_particles=4, seed=0)
    torch.testing.assert_close(w.log_w, scenario.log_evidence(x).expand(4, 70), rtol=0, atol=1e-10)


def test_two_data_arguments():
    scenario = LinearGaussian.make()
    x, y = scenario.data(9), torch.randn(9, 5)

    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", scenario.prior(len(x)))
            likelihood = dist.Normal(z @ scenario.weight.T + scenario.mean + y, scenario.sigma)
            pyro.sample("x", likelihood.to_event(1), obs=x)

    def guide(x, y):
        scenario.exact(x - y)

    w = pv.importance_sampling(model, guide, x, y, num_particles=3, seed=0, block_size=4)
    truth = scenario.log_evidence(x - y).expand(3, 9)
    torch.testing.assert_close(w.log_w, truth, rtol=0, atol=1e-10)


def test_global_latents_give_joint_weights():
    scenario, x = GlobalMean(), torch.randn(5)
    w = pv.importance_sampling(
        scenario.model, scenario.exact, x, num_particles=6, plate=None, seed=0
    )
    torch.testing.assert_close(w.log_w, scenario.log_evidence(x).expand(6), rtol=0, atol=1e-10)


class Reshaping(LinearGaussian):
    """Does not broadcast over a leading particle dimension."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(len(x)))
            pyro.sample("x", self.likelihood(z.view(len(x), 2)), obs=x)


class WronglyBroadcasting(LinearGaussian):
    """Broadcasts, but takes the first particle's latents for all."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(len(x)))
            pyro.sample("x", self.likelihood(z.reshape(-1, len(x), 2)[0]), obs=x)


@pytest.mark.parametrize("program", [Reshaping, WronglyBroadcasting])
def test_programs_that_do_not_broadcast_take_particles_as_rows(program):
    scenario = program.make()
    x = scenario.data(5)
    guides = scenario.exact, scenario.mean_field
    first, wide = (
        pv.importance_sampling(scenario.model, g, x, num_particles=400, seed=0) for g in guides
    )
    torch.testing.assert_close(
        first.log_w, scenario.log_evidence(x).expand(400, 5), rtol=0, atol=1e-10
    )
    prior = pv.prior_sampling(scenario.model, x, num_particles=2000, seed=0)
    annealed = pv.ais(scenario.model, x, num_particles=50, num_temperatures=20, seed=0)
    for w in (wide, prior, annealed):
        assert ((w.log_evidence() - scenario.log_evidence(x)) / w.std_error()).abs().max() < 4
    report = pv.check(scenario.model, scenario.exact, x)
    assert report.ok
    assert "particles as further rows" in report.verdict


def test_a_program_of_fixed_size_that_does_not_broadcast_runs_one_by_one():
    scenario = LinearGaussian.make()
    x = scenario.data(5)

    def model(x):
        with pyro.plate("data", 5):
            z = pyro.sample("z", scenario.prior(5))
            pyro.sample("x", scenario.likelihood(z.view(5, 2)), obs=x)

    def exact(x):
        with pyro.plate("data", 5):
            pyro.sample("z", dist.MultivariateNormal(scenario.posterior_mean(x), scenario.cov))

    words = r"does not broadcast .* after site 'z' of shape \(3, 5, 2\)"
    with pytest.warns(UserWarning, match=words) as caught:
        w = pv.importance_sampling(model, exact, x, num_particles=4, seed=0, block_size=3)
    assert [c.filename for c in caught] == [__file__]
    torch.testing.assert_close(w.log_w, scenario.log_evidence(x).expand(4, 5), rtol=0, atol=1e-10)
    report = pv.check(model, exact, x, block_size=3)
    assert not report.ok
    assert "one particle at a time" in report.verdict


def make(latent_in=True, observe=True, plate="data", size=None):
    def model(x):
        n = size or len(x)
        if not latent_in:
            z = pyro.sample("z", Z)
        with pyro.plate(plate, n):
            if latent_in:
                z = pyro.sample("z", Z)
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x if observe else None)

    return model


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", Z)


def point(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(torch.zeros(2), event_dim=1))


def misnamed(x):
    with pyro.plate("data", len(x)):
        pyro.sample("zz", Z)


def superfluous(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", Z)
        pyro.sample("u", Z)


@pytest.mark.parametrize(
    ("model", "guide", "words"),
    [
        (make(latent_in=False), guide, "latent site 'z' stands outside plate 'data'"),
        (make(plate="rows"), None, "no plate 'data', only 'rows'"),
        (make(size=7), None, "plate 'data' has 7 elements but the data have 5 rows"),
        (make(observe=False), guide, "observes nothing"),
        (make(), point, r"a point \(Delta\) at site 'z'"),
        (make(), misnamed, "misses latent site 'z'"),
        (make(), superfluous, "samples 'u', which is no latent site"),
    ],
)
def test_programs_without_per_datum_weights(model, guide, words):
    x = torch.randn(5)
    with pytest.raises(ValueError, match=words):
        inspect(model, guide, x)
    report = pv.check(model, guide, x)
    assert not report.ok
    assert report.verdict in report.report


def test_no_plate_at_all():
    def model(x):
        pyro.sample("x", dist.Normal(pyro.sample("z", Z).sum(), 1.0), obs=x[0])

    with pytest.raises(ValueError, match="only none at all"):
        pv.prior_sampling(model, torch.randn(3), num_particles=2)


def test_fixed_size_program_takes_all_rows_as_one_block():
    scenario = LinearGaussian.make()
    x = scenario.data(100)

    def model(x):
        with pyro.plate("data", 100):
            z = pyro.sample("z", scenario.prior(100))
            pyro.sample("x", scenario.likelihood(z), obs=x)

    def exact(x):
        with pyro.plate("data", 100):
            mean = scenario.posterior_mean(x).expand(100, -1)
            pyro.sample("z", dist.MultivariateNormal(mean, scenario.cov))

    w = pv.importance_sampling(model, exact, x, num_particles=3, seed=0)
    torch.testing.assert_close(
        w.log_w, scenario.log_evidence(x).expand(3, 100), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("row", [1, 70])
def test_value_outside_its_support(row):
    vae = pv.VAE(x_dim=4, z_dim=2)
    x = torch.zeros(100, 4)
    x[row, 2] = 0.5
    words = rf"outside \{{0, 1\}} but site 'x' is Bernoulli: 0.5 at row {row}, column 2; binarize"
    for call in (pv.importance_sampling, pv.evaluate):
        with pytest.raises(ValueError, match=words):
            call(vae.model, vae.guide, x, num_particles=2)
    with pytest.raises(ValueError, match=words):
        pv.svi.fit(vae.model, vae.guide, x, num_epochs=1)
    assert "binarize" in pv.check(vae.model, vae.guide, x).verdict


def test_observed_value_of_another_shape():
    """Five numbers where five vectors belong would broadcast to 25 silently."""
    scenario = LinearGaussian.make()
    words = r"site 'x' observes a value of shape \(5,\) where its distribution Normal has \(5, 5\)"
    with pytest.raises(ValueError, match=words):
        pv.evaluate(scenario.model, scenario.exact, scenario.data(1)[0])


def test_bad_data():
    vae, x = pv.VAE(x_dim=4, z_dim=2), torch.ones(5, 4)
    program = vae.model, vae.guide
    with pytest.raises(TypeError, match="the data are list; give tensors"):
        pv.importance_sampling(*program, x.tolist(), num_particles=2)
    scenario = LinearGaussian.make()
    numbers = scenario.data(5).numpy()
    with pytest.raises(TypeError, match="the data are ndarray; give tensors"):
        pv.prior_sampling(scenario.model, numbers, num_particles=2)
    with pytest.raises(TypeError, match="site 'x' has a value of type ndarray; give tensors"):
        pv.prior_sampling(lambda x, y: scenario.model(y), x, numbers, num_particles=2)
    with pytest.raises(TypeError, match="the data are ndarray; give tensors"):
        pv.svi.fit(*program, x.numpy(), progress=False)
    with pytest.raises(TypeError, match="the data are nothing"):
        pv.importance_sampling(*program, num_particles=2)
    with pytest.raises(ValueError, match=r"lengths \[5, 4\]"):
        pv.importance_sampling(*program, x, x[:4], num_particles=2)
    with pytest.raises(ValueError, match=r"lengths \[0\]"):
        pv.importance_sampling(*program, x[:0], num_particles=2)
    with pytest.raises(ValueError, match=r"takes floating \(N, 4\)"):
        pv.importance_sampling(*program, x[:, :3], num_particles=2)
    x = scenario.data(5)
    x[3, 1] = torch.nan  # which is no gap to a program that does not say so
    with pytest.raises(ValueError, match="nan at row 3, column 1"):
        pv.importance_sampling(scenario.model, scenario.exact, x, num_particles=2)


def test_check_prints_sites_and_verdict(capsys):
    scenario = GammaPoisson()
    report = pv.check(scenario.model, scenario.exact, scenario.data())
    assert report.ok
    assert capsys.readouterr().out == f"{report.report}\n"
    assert repr(report) == str(report) == "Check(ok=True)"  # to print it is not to print twice
    lines = report.report.splitlines()
    assert lines[0].split() == "model rate latent Gamma batch (5,) event () plates data".split()
    assert lines[1].split()[:4] == "model x observed Poisson".split()
    assert lines[-1].startswith("ok: 5 data in plate 'data'")


def test_check_explains_a_program_that_fails():
    def model(x):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    assert "fails when run: mat1" in pv.check(model, None, torch.ones(3)).verdict


def test_evaluation_mode_is_restored():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
            self.modes = []

        def forward(self, x):
            self.modes.append(self.training)
            return self.net(x)

    net = Net()
    net.net[0].eval()
    mean = net.net[1].running_mean.clone()
    with evaluation():
        assert not net(torch.randn(4, 2)).requires_grad
    assert net.modes == [False]
    assert net.training
    assert net.net[1].training
    assert not net.net[0].training
    assert torch.equal(net.net[1].running_mean, mean)


def test_estimators_touch_nothing_of_the_program():
    vae = pv.VAE(x_dim=4, z_dim=2)
    vae.encoder.net.insert(1, torch.nn.Dropout(0.5))
    x = torch.ones(6, 4)
    weights = {k: v.clone() for k, v in vae.state_dict().items()}
    stream = torch.get_rng_state()
    first = pv.evaluate(vae.model, vae.guide, x, num_particles=20, seed=0)
    again = pv.evaluate(vae.model, vae.guide, x, num_particles=20, seed=0)
    assert torch.equal(first["importance"].value, again["importance"].value)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(m.training for m in vae.modules())
    assert all(torch.equal(v, weights[k]) for k, v in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters())
    assert len(pyro.get_param_store()) == 0


def test_the_store_keeps_what_pyro_param_learned():
    def model(x):
        loc = pyro.param("loc", lambda: torch.zeros(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc.expand(len(x), -1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    pv.prior_sampling(model, torch.randn(4), num_particles=2)
    assert list(pyro.get_param_store().keys()) == ["loc"]


def test_no_warnings_for_a_good_program():
    scenario = LinearGaussian.make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pv.importance_sampling(
            scenario.model, scenario.exact, scenario.data(3), num_particles=3, seed=0
        )


def test_parameters_that_the_first_look_makes_are_counted():
    def model(x):
        loc = pyro.param("first_look", torch.zeros(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc.expand(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    with pyro.get_param_store().scope():
        assert "1 parameters" in pv.check(model, None, torch.zeros(9, 2), block_size=4).verdict


def test_what_cannot_run_on_all_rows_is_not_tried_on_them(monkeypatch):
    sizes, x = [], torch.ones(100, 2)

    def mistyped(x):
        sizes.append(len(x))
        return x.shpae

    with pytest.raises(AttributeError, match="shpae"):
        inspect(mistyped, None, x)
    assert sizes == [64]

    def of_fixed_size(x):
        sizes.append(len(x))
        return x + torch.ones(100, 2)

    with pytest.raises(ValueError, match="no plate 'data'"):
        inspect(of_fixed_size, None, *spooled([x]))
    assert sizes == [64, 64, 100]
    monkeypatch.setattr(first, "fits_memory", lambda size: size < x.nbytes)
    with pytest.raises(RuntimeError, match="size of tensor"):
        inspect(of_fixed_size, None, *spooled([x]))
    assert sizes == [64, 64, 100, 64]
