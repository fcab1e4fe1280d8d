import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from scenarios import GlobalMean, LinearGaussian

import pyrovae as pv
from pyrovae import storage
from pyrovae.rng import seeded
from pyrovae.svi.training import Training
from pyrovae.svi.validation import Scores

fit = partial(pv.svi.fit, progress=False)


def data(n=20, dim=4):
    return (torch.rand(n, dim) < 0.5).to(torch.get_default_dtype())


def copy(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def moved(before, module):
    return {k: not torch.equal(v, before[k]) for k, v in module.state_dict().items()}


class Exact(LinearGaussian):
    """One idle parameter, and the exact guide: the ELBO is log p(x) whatever is drawn."""

    def model(self, x):
        pyro.param("idle", torch.zeros(()))
        super().model(x)

    def exact(self, x):
        idle = pyro.param("idle", torch.zeros(()))
        with pyro.plate("data", len(x)):
            mean = self.posterior_mean(x) + 0 * idle
            pyro.sample("z", dist.MultivariateNormal(mean, self.cov))


def test_pyros_own_svi_trains_every_parameter_of_two_models():
    x = data()
    for _ in range(2):
        vae = pv.VAE(x_dim=4, z_dim=2, hidden_dims=(3,))
        before = copy(vae)
        SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(x)
        assert all(moved(before, vae).values())


def test_equals_pyros_svi():
    """The same draws and plain gradient steps: fit and SVI end at the same parameters and ELBO."""
    x, ours, theirs = data(), pv.VAE(4, 2, (3,)), pv.VAE(4, 2, (3,))
    theirs.load_state_dict(ours.state_dict())
    result = fit(
        ours.model, ours.guide, x, num_epochs=30, batch_size=20, lr=0.1, seed=5,
        optimizer=torch.optim.SGD,
    )  # fmt: skip
    svi = SVI(theirs.model, theirs.guide, pyro.optim.SGD({"lr": 0.1 / 20}), Trace_ELBO())
    with seeded(5):
        losses = [svi.step(x) for _ in range(30)]
    for k, v in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[k], v, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.tensor(result.elbo), -torch.tensor(losses) / 20)


def test_elbo_weighs_data_not_batches():
    """Batches of 4, 4 and 2, and validation of 1024, 1024 and 452, give the mean over the data."""
    scenario = Exact.make()
    x, valid = scenario.data(10), scenario.data(2500, seed=2)
    result = fit(
        scenario.model, scenario.exact, x, valid=valid, num_epochs=1, batch_size=4, lr=1e-9
    )
    assert result.elbo[0] == pytest.approx(scenario.log_evidence(x).mean().item(), abs=1e-9)
    truth = scenario.log_evidence(valid).mean().item()
    assert result.valid_elbo[0] == pytest.approx(truth, abs=1e-9)


def test_elbo_rises_to_the_evidence():
    """A guide of the exact posterior's form learns to be it."""
    scenario = LinearGaussian.make(x_dim=5, z_dim=1)
    x = scenario.data(50)

    def guide(x):
        weight = pyro.param("weight", torch.zeros(5, 1))
        shift = pyro.param("shift", torch.zeros(1))
        scale = pyro.param("scale", torch.ones(1), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ weight + shift, scale).to_event(1))

    fit(scenario.model, guide, x, num_epochs=1500, lr=0.03, lr_schedule="one-cycle", seed=0)
    w = pv.importance_sampling(scenario.model, guide, x, num_particles=100, seed=0)
    gap = (scenario.log_evidence(x) - w.elbo()).mean()  # a KL divergence, zero at the optimum
    assert gap.abs() < 0.005
    scale = pyro.get_param_store()["scale"]  # what pyro.param learned stays for the user
    torch.testing.assert_close(scale[0], scenario.cov[0, 0].sqrt(), rtol=0.02, atol=0)


def test_fixed_module_names_train_all_the_same():
    """pyro.module("decoder", ...) by a second model: under SVI it silently never trains."""
    x = data()

    def make():
        encoder, decoder = torch.nn.Linear(4, 2), torch.nn.Linear(2, 4)

        def model(x):
            pyro.module("decoder", decoder)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
                pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

        def guide(x):
            pyro.module("encoder", encoder)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

        return model, guide, torch.nn.ModuleList([encoder, decoder])

    first = make()
    SVI(*first[:2], pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(x)
    second = make()
    before = copy(second[2])
    fit(*second[:2], x, num_epochs=1)
    assert all(moved(before, second[2]).values())


class Half(PyroModule):
    """Model or guide with submodule `net`, the same name in both."""

    def __init__(self, decode):
        super().__init__()
        self.decode = decode
        self.net = PyroModule[torch.nn.Linear](3, 3)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            if not self.decode:
                pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))
                return
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.net(z)).to_event(1), obs=x)


def test_pyro_modules_with_equal_submodule_names_train():
    model, guide = Half(decode=True), Half(decode=False)
    before = copy(model), copy(guide)
    fit(model, guide, data(dim=3), num_epochs=2)
    assert all(moved(before[0], model).values())
    assert all(moved(before[1], guide).values())


def test_pyro_params_of_pyro_modules_train_under_local_setting():
    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = PyroParam(torch.ones(3), constraint=dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x, self.scale).to_event(1))

    for local in (False, True):
        with pyro.settings.context(module_local_params=local):
            model, guide = Half(decode=True), Guide()
            fit(model, guide, data(dim=3), num_epochs=2)
            assert not torch.equal(guide.scale, torch.ones(3))
        assert len(pyro.get_param_store()) == 0


def test_plain_nets_are_refused():
    net = torch.nn.Linear(2, 4)
    known = torch.nn.Linear(4, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=net(z)).to_event(1), obs=x)

    def guide(x, register=True):
        if register:
            pyro.module("known", known)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(known(x), 1.0).to_event(1))

    for g in (guide, partial(guide, register=False)):
        with pytest.raises(ValueError, match=r"would get a gradient but Pyro does not know it"):
            fit(model, g, data(), num_epochs=1)
    assert net.weight.grad is None


def test_nothing_to_train():
    scenario = LinearGaussian.make()
    with pytest.raises(ValueError, match="no parameter gets a gradient"):
        fit(scenario.model, scenario.exact, scenario.data(5), num_epochs=1)


def test_leaves_the_world_as_it_was():
    vae, x = pv.VAE(4, 2), data()
    stream = torch.get_rng_state()
    result = fit(vae.model, vae.guide, x, valid=x, num_epochs=2, batch_size=8, seed=1)
    assert torch.equal(torch.get_rng_state(), stream)
    assert len(pyro.get_param_store()) == 0
    other = pv.VAE(4, 2)
    other.load_state_dict(vae.state_dict())
    again = fit(vae.model, vae.guide, x, valid=x, num_epochs=2, batch_size=8, seed=1)
    assert again.elbo != result.elbo  # it starts where the first one ended
    same = fit(other.model, other.guide, x, valid=x, num_epochs=2, batch_size=8, seed=1)
    assert same.elbo == again.elbo


def test_validation_trains_nothing_and_does_not_move_the_stream():
    x = data()
    weights = []
    for valid in (None, data(7)):
        with seeded(0):
            vae = pv.VAE(4, 2)
        vae.encoder.net.insert(1, torch.nn.Dropout(0.2))
        last = {}

        def keep(state, last=last):
            last.update(state["parameters"])

        fit(
            vae.model, vae.guide, x, valid=valid, num_epochs=3, batch_size=8, seed=0,
            callback=keep,
        )  # fmt: skip
        assert vae.training
        weights.append(last)
    for k, v in weights[0].items():
        assert torch.equal(v, weights[1][k])


def test_keeps_the_best_and_stops_early():
    vae, x = pv.VAE(4, 2, (16,)), data(12)
    valid = data(12)
    states = []
    result = fit(
        vae.model, vae.guide, x, valid=valid, num_epochs=400, lr=0.05, patience=5, seed=0,
        callback=states.append,
    )  # fmt: skip
    assert result.stopped_early
    best = max(range(len(result.valid_elbo)), key=lambda i: result.valid_elbo[i])
    assert result.best_epoch == best + 1
    assert len(result.elbo) == result.best_epoch + 5
    kept = states[result.best_epoch]["parameters"]  # the first state is that before training
    named = {k.replace("VAE.", "").replace("$$$", "."): v for k, v in kept.items()}
    for k, v in vae.state_dict().items():
        assert torch.equal(v, named[k])
    assert "best epoch" in repr(result)


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_resume_is_bit_for_bit(schedule, tmp_path):
    x, valid = torch.rand(30, 4), data(9)

    def run(**options):
        with seeded(3):
            vae = pv.VAE(4, 2)
        result = fit(
            vae.model, vae.guide, x, valid=valid, num_epochs=6, batch_size=8, lr=0.01, seed=4,
            lr_schedule=schedule, transform=partial(pv.data.binarize, seed=None), **options,
        )  # fmt: skip
        return result, vae.state_dict()

    class Stop(Exception):
        pass

    def stop(state):
        storage.save_state(tmp_path / "state", state)
        if len(state["elbo"]) == 3:
            raise Stop

    whole, weights = run()
    with pytest.raises(Stop):
        run(callback=stop)
    resumed, again = run(resume=storage.load_state(tmp_path / "state"))
    assert resumed.elbo == whole.elbo
    assert resumed.valid_elbo == whole.valid_elbo
    assert all(torch.equal(v, weights[k]) for k, v in again.items())


def test_resume_of_another_program_or_schedule():
    vae, other, x = pv.VAE(4, 2), pv.VAE(4, 3), data()
    states = []
    fit(vae.model, vae.guide, x, num_epochs=1, lr_schedule="one-cycle", callback=states.append)
    with pytest.raises(ValueError, match="resume with the model that was trained"):
        fit(other.model, other.guide, x, num_epochs=2, resume=states[-1])
    with pytest.raises(ValueError, match="asks for constant"):
        fit(vae.model, vae.guide, x, num_epochs=2, resume=states[-1])


def batch_normed():
    """A guide with batch statistics, a buffer that validation and evaluation depend on."""
    with seeded(3):
        oracle = pv.LinearGaussian(4, 2)
        net = torch.nn.Sequential(torch.nn.BatchNorm1d(4, affine=False), torch.nn.Linear(4, 2))

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 0.5).to_event(1))

    return oracle.model, guide, net


def test_buffers_are_resumed_and_those_of_the_best_epoch_kept(tmp_path):
    with seeded(0):
        x, valid = 5 + 3 * torch.randn(30, 4), 5 + 3 * torch.randn(9, 4)

    def run(**options):
        model, guide, net = batch_normed()
        options = {"num_epochs": 9, "batch_size": 8, "lr": 2.0, "seed": 4, **options}
        return fit(model, guide, x, valid=valid, **options), net.state_dict()

    states = []
    whole, buffers = run(callback=lambda state: states.append(state))
    assert whole.best_epoch < 9
    kept = states[whole.best_epoch]["buffers"]["Sequential.0.running_mean"]
    assert torch.equal(buffers["0.running_mean"], kept)
    assert not torch.equal(kept, states[-1]["buffers"]["Sequential.0.running_mean"])
    storage.save_state(tmp_path / "state", states[3])
    resumed, again = run(resume=storage.load_state(tmp_path / "state"))
    assert resumed.valid_elbo == whole.valid_elbo
    assert all(torch.equal(v, buffers[k]) for k, v in again.items())
    with pytest.raises(ValueError, match="resume with the model that was trained"):
        run(resume={**states[3], "buffers": {}})


def test_options_of_a_resumed_run_take_effect_or_are_refused():
    x, states, steps = data(), [], []

    class Watched(torch.optim.Adam):
        def step(self, closure=None):
            steps.append((self.param_groups[0]["lr"], self.param_groups[0]["params"][0].grad))
            return super().step(closure)

    def run(resume=None, **options):
        with seeded(3):
            vae = pv.VAE(4, 2)
        options = {"num_epochs": 1, "optimizer": Watched, "lr": 1e-3, "batch_size": 5} | options
        steps.clear()
        fit(vae.model, vae.guide, x, resume=resume, callback=states.append, seed=0, **options)
        return [lr for lr, _ in steps]

    run()
    begun = states[-1]
    assert run(begun, num_epochs=3, lr=0.5) == [0.5] * 8
    assert states[-1]["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert len(run(begun, num_epochs=2, batch_size=10)) == 2
    run(begun, num_epochs=2, clip_norm=1e-6)
    assert all(grad.norm() <= 1e-6 for _, grad in steps)
    for other, words in (
        (
            partial(Watched, betas=(0.5, 0.999)),
            r"with betas \[0.9, 0.999\], and this run asks for",
        ),
        (partial(Watched, weight_decay=0.1), "with weight_decay 0"),
        (torch.optim.SGD, "asks for none; resume with its own optimizer"),
    ):
        with pytest.raises(storage.StateError, match=words):
            run(begun, num_epochs=2, optimizer=other)
    run(num_epochs=4, lr_schedule="one-cycle")
    inside = states[-2]
    with pytest.raises(storage.StateError, match="inside a one-cycle schedule with lr 0.001"):
        run(inside, num_epochs=4, lr_schedule="one-cycle", lr=0.5)
    assert len(run(inside, num_epochs=4, lr_schedule="one-cycle")) == 4


def test_a_finished_cycle_begins_anew_over_the_epochs_added():
    vae, x = pv.VAE(4, 2), data()
    states, rates = [], []

    class Watched(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    def train(num_epochs, lr, resume=None):
        return fit(
            vae.model, vae.guide, x, num_epochs=num_epochs, batch_size=5, lr=lr,
            lr_schedule="one-cycle", optimizer=Watched, resume=resume, callback=states.append,
        )  # fmt: skip

    train(5, 0.1)
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    rates.clear()
    result = train(15, 0.01, resume=states[-1])
    assert len(result.elbo) == 15
    assert len(rates) == 40
    assert max(rates) == pytest.approx(0.01, rel=0.05)
    assert rates[0] < 1e-3
    assert rates[-1] < 1e-4
    with pytest.raises(ValueError, match="one-cycle with 20 steps left, .* with 40"):
        train(20, 0.01, resume=states[-6])


def test_saved_names_are_the_same_in_every_process():
    for _ in range(2):
        vae, states = pv.VAE(4, 2), []
        fit(vae.model, vae.guide, data(), num_epochs=1, callback=states.append)
        assert "VAE.decoder$$$0.weight" in states[0]["parameters"]


def test_divergence_names_step_rows_and_parameter():
    vae = pv.VAE(4, 2, likelihood="normal").float()
    x = torch.randn(20, 4, dtype=torch.float32)
    x[13] = 1e38
    before = {}

    def remember(state):
        before.update(state["parameters"])

    with pytest.raises(
        pv.svi.Diverged, match="loss is (inf|nan) .* worst gradient: VAE"
    ) as caught:
        fit(vae.model, vae.guide, x, num_epochs=1, batch_size=20, seed=0, callback=remember)
    assert caught.value.step == 0
    assert caught.value.epoch == 1
    assert 13 in caught.value.rows
    assert "VAE" in caught.value.parameter
    now = {k: v for k, v in vae.state_dict().items()}
    for k, v in before.items():
        assert torch.equal(v, now[k.replace("VAE.", "").replace("$$$", ".")])
    assert all(v.isfinite().all() for v in now.values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_data_that_are_not_finite_are_refused(value):
    vae, x = pv.VAE(4, 2, likelihood="normal"), torch.randn(20, 4)
    x[7, 2] = value

    def model(x):  # of a user's, in which NaN does not say that something is missing
        vae.model(x)

    program = (vae.model if value == torch.inf else model), vae.guide
    for options in ({}, {"valid": x}):
        with pytest.raises(ValueError, match=f"{value} at row 7, column 2"):
            fit(*program, torch.randn(20, 4) if options else x, **options)


def test_tuples_of_tensors():
    x, y = torch.randn(20, 2), torch.randn(20)
    seen = set()

    def model(x, y):
        slope = pyro.param("slope", torch.zeros(2))
        seen.add(len(x))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("y", dist.Normal(x @ slope + z, 0.1), obs=y)

    def guide(x, y):
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc.expand(len(x)), 1.0))

    fit(model, guide, (x, y), valid=[x, y], num_epochs=1, batch_size=15)
    assert {15, 5} <= seen
    assert pyro.get_param_store()["slope"].abs().sum() > 0
    with pytest.raises(ValueError, match="lengths"):
        fit(model, guide, (x, y[:3]))


def test_objectives():
    vae, x = pv.VAE(4, 2), data()
    calls = []

    def objective(model, guide, x):
        calls.append(len(x))
        return Trace_ELBO().differentiable_loss(model, guide, x)

    for given in (objective, TraceMeanField_ELBO(), Trace_ELBO(num_particles=2)):
        result = fit(vae.model, vae.guide, x, num_epochs=1, objective=given)
        assert math.isfinite(result.elbo[0])
    assert calls
    for wrong in (RenyiELBO(), 3, Trace_ELBO):
        with pytest.raises(TypeError, match="no differentiable loss"):
            fit(vae.model, vae.guide, x, objective=wrong)


def test_clip_norm_bounds_the_step():
    vae, x = pv.VAE(4, 2), data()
    before = torch.cat([p.detach().flatten().clone() for p in vae.parameters()])
    fit(
        vae.model, vae.guide, x, num_epochs=1, lr=1.0, clip_norm=1e-3,
        optimizer=torch.optim.SGD,
    )  # fmt: skip
    after = torch.cat([p.detach().flatten() for p in vae.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_norms_of_gradients_are_told_as_they_were_before_clipping():
    """Of an optimizer that takes no step, so that they are the same with and without clipping."""
    x, steps = data(10), []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            params = self.param_groups[0]["params"]
            steps.append(torch.cat([p.grad.flatten() for p in params]).norm().item())

    vae, states = pv.VAE(4, 2), []
    result = fit(
        vae.model, vae.guide, x, num_epochs=2, batch_size=4, optimizer=Watched,
        callback=states.append, seed=0,
    )  # fmt: skip
    means = [
        sum(n * s for n, s in zip((4, 4, 2), part, strict=True)) / 10
        for part in (steps[:3], steps[3:])
    ]
    assert result.grad_norm == pytest.approx(means)
    assert states[-1]["grad_norm"] == list(result.grad_norm)
    again = fit(
        vae.model, vae.guide, x, num_epochs=2, batch_size=4, optimizer=Watched, clip_norm=1e-6,
        seed=0,
    )  # fmt: skip
    assert again.grad_norm == result.grad_norm
    old = {k: v for k, v in states[-1].items() if k != "grad_norm"}
    resumed = fit(
        vae.model, vae.guide, x, num_epochs=3, batch_size=4, optimizer=Watched, resume=old
    )
    assert [math.isnan(n) for n in resumed.grad_norm] == [True, True, False]


def test_one_cycle_rises_to_lr_and_falls():
    rates = []

    class Watched(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    vae = pv.VAE(4, 2)
    fit(
        vae.model, vae.guide, data(), num_epochs=20, batch_size=5, lr=0.01, optimizer=Watched,
        lr_schedule="one-cycle",
    )  # fmt: skip
    assert max(rates) == pytest.approx(0.01, rel=1e-2)
    assert rates[0] < 1e-3
    assert rates[-1] < 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_epochs": 0}, "num_epochs is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": torch.inf}, "lr is inf"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0"),
        ({"patience": 3}, "patience needs validation data"),
        ({"lr_schedule": "cosine"}, "choose constant or one-cycle"),
    ],
)
def test_options_out_of_range(options, words):
    vae = pv.VAE(4, 2)
    with pytest.raises(ValueError, match=words):
        fit(vae.model, vae.guide, data(), **options)


def test_a_validation_elbo_that_is_not_finite_is_never_the_best():
    weight = torch.zeros(1, requires_grad=True)

    def training():
        return Training({"weight": weight}, {}, torch.optim.SGD([weight], lr=0.1))

    first = training()
    first.plan("constant", 0.1, 9)
    first.advance(-1.0, 1.0, Scores(math.nan), 1.0)
    assert first.best_epoch == 0
    with pytest.raises(pv.svi.Diverged, match="ELBO is nan after the last .* lower lr"):
        first.finish(stopped_early=False)
    resumed = training()
    resumed.restore(first.state())
    for elbo, best in ((-math.inf, 0), (-3.0, 3), (math.nan, 3), (-4.0, 3)):
        resumed.advance(-1.0, 1.0, Scores(elbo), 1.0)
        assert resumed.best_epoch == best
    assert resumed.finish(stopped_early=False).best_epoch == 3


def test_validation_after_a_step_too_far():
    vae, x = pv.VAE(4, 2, likelihood="normal"), torch.randn(20, 4)
    with pytest.raises(pv.svi.Diverged, match="the validation ELBO is nan") as caught:
        fit(vae.model, vae.guide, x, valid=x, num_epochs=1, batch_size=20, lr=1e200, seed=0)
    assert caught.value.step is caught.value.rows is None


def test_looking_at_the_first_batch_moves_no_stream():
    """A transform that draws is called to check, to find the parameters, and to train."""
    vae, x, drawn = pv.VAE(4, 2), data(), []

    def transform(x):
        drawn.append(torch.rand(()).item())
        return x

    fit(vae.model, vae.guide, x, num_epochs=1, batch_size=20, seed=0, transform=transform)
    _, found, trained = drawn
    assert found == trained


def scaled_by_the_user(x):
    """`GlobalMean`, each batch of 10 standing for 60 rows."""
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)), poutine.scale(scale=60 / len(x)):
        pyro.sample("x", dist.Normal(m, 1.0), obs=x)


@pytest.mark.parametrize("model", [GlobalMean().model, scaled_by_the_user])
@pytest.mark.parametrize("batch_size", [10, 60])
def test_latents_common_to_all_data_count_once_in_an_epoch(model, batch_size):
    """Of whatever batches, Q becomes the posterior of all data."""
    x = 0.5 + torch.randn(60)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(()))
        scale = pyro.param("scale", torch.tensor(0.3), constraint=dist.constraints.positive)
        pyro.sample("m", dist.Normal(loc, scale))

    options = dict(num_epochs=150 if batch_size == 10 else 500, lr=0.03, lr_schedule="one-cycle")
    fit = pv.svi.fit(model, guide, x, batch_size=batch_size, seed=0, progress=False, **options)
    exact = 61**-0.5
    loc, scale = (pyro.get_param_store()[name].item() for name in ("loc", "scale"))
    assert abs(loc - x.sum() / 61) < 0.3 * exact
    assert scale == pytest.approx(exact, rel=0.15)
    if model is not scaled_by_the_user:
        assert fit.elbo[-1] == pytest.approx(GlobalMean().log_evidence(x).item() / 60, abs=0.03)
