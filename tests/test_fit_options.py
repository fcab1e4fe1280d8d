"""What chooses the best epoch, what is averaged over steps, and Muon."""

import math
from contextlib import suppress
from functools import partial
from itertools import count

import pyro
import pyro.distributions as dist
import pytest
import torch
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae import storage
from pyrovae.evidence.estimators.names import estimator
from pyrovae.rng import seeded
from pyrovae.svi.optimizers import Muon

fit = partial(pv.svi.fit, progress=False, seed=0)


def data(n=20):
    return (torch.rand(n, 4) < 0.5).to(torch.get_default_dtype())


def made():
    with seeded(3):
        return pv.VAE(4, 2, (5,))


def copy(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


class Stop(Exception):
    pass


# a criterion


def test_an_estimator_chooses_the_epoch():
    """It is that of the parameters that are returned, of the first rows, by a fixed seed."""
    vae, x, valid = made(), data(), data(30)
    importance = pv.Importance(20)
    result = fit(
        vae.model, vae.guide, x, valid=valid, num_epochs=9, batch_size=5, lr=0.1,
        criterion=importance, criterion_rows=7,
    )  # fmt: skip
    best = max(range(9), key=lambda i: result.criterion[i])
    assert result.best_epoch == best + 1
    values = importance.values(vae.model, vae.guide, valid[:7], seed=0)
    assert result.criterion[best] == pytest.approx(values.mean().item(), abs=1e-12)
    assert f"criterion {result.criterion[best]:.3f}" in repr(result)
    plain = made()
    assert fit(
        plain.model, plain.guide, x, valid=valid, num_epochs=9, batch_size=5, lr=0.1
    ).valid_elbo == result.valid_elbo  # fmt: skip


def test_patience_and_the_best_go_by_it():
    vae, x, falling = made(), data(), count()
    seen = []

    def criterion(model, guide, x, seed):
        seen.append(len(x))
        torch.rand(3)  # which moves no stream of the training
        return torch.full((len(x),), -float(next(falling)))

    result = fit(
        vae.model, vae.guide, x, valid=x, num_epochs=9, lr=0.01, patience=2, criterion=criterion
    )
    assert result.valid_elbo[2] > result.valid_elbo[0]
    assert result.best_epoch == 1
    assert len(result.elbo) == 3
    assert result.stopped_early
    assert seen == [2, 20, 20, 20]  # tried before training
    plain = made()
    assert fit(plain.model, plain.guide, x, num_epochs=3, lr=0.01).elbo == result.elbo


def test_a_criterion_of_all_numbers_not_finite_is_none():
    vae, x = made(), data()
    with pytest.raises(pv.svi.Diverged, match="the criterion is nan after the last"):
        fit(
            vae.model, vae.guide, x, valid=x, num_epochs=2,
            criterion=lambda model, guide, x, seed: torch.full((len(x),), math.nan),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("criterion", "error", "words"),
    [
        ("importance", TypeError, "criterion is 'importance'; give a pv.Estimator, such as"),
        (lambda *_, seed: 3.0, TypeError, "the criterion gives .*3.0.* of 2 data"),
        (lambda *_, seed: torch.zeros(()), TypeError, r"gives \(\) of 2 data; .* a tensor \(N,\)"),
        (pv.Exact(), ValueError, "sums out all latents"),
    ],
)
def test_a_criterion_that_cannot_be_had_is_refused_before_training(criterion, error, words):
    vae, x = made(), data()
    before, states = copy(vae), []
    with pytest.raises(error, match=words):
        fit(vae.model, vae.guide, x, valid=x, criterion=criterion, callback=states.append)
    assert equal(copy(vae), before)
    assert not states


def test_a_criterion_needs_validation_data_and_keeps_to_them():
    vae, x, states = made(), data(), []
    with pytest.raises(ValueError, match="criterion needs validation data"):
        fit(vae.model, vae.guide, x, criterion=pv.ELBO(9))
    for options in ({}, {"valid": x}, {"valid": x, "criterion": pv.ELBO(9)}):
        fit(vae.model, vae.guide, x, num_epochs=1, callback=states.append, **options)
    run = partial(fit, vae.model, vae.guide, x, num_epochs=2)
    for state, options, words in (
        (states[1], {"valid": x}, "trained without validation data, and this run is with"),
        (states[3], {}, "trained with validation data, and this run is without"),
        (states[3], {"valid": x, "criterion": pv.ELBO(9)}, "trained without a criterion"),
        (states[5], {"valid": x}, "trained with a criterion, and this run is without"),
    ):
        with pytest.raises(storage.StateError, match=words):
            run(resume=state, **options)
    assert len(run(resume=states[5], valid=x, criterion=pv.ELBO(9)).criterion) == 2


def test_rows_of_a_loader_and_constants():
    """The criterion gets what the estimator would: tensors alone, in order."""
    oracle = LinearGaussian.make()
    x, got = oracle.data(9), []

    def model(x, flag):
        pyro.param("idle", torch.zeros(()))
        oracle.model(x)

    def guide(x, flag):
        assert flag == "on"
        idle = pyro.param("idle", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample(
                "z", dist.MultivariateNormal(oracle.posterior_mean(x) + 0 * idle, oracle.cov)
            )

    result = fit(
        model, guide, (x, "on"), valid=(x, "on"), num_epochs=1, criterion=pv.Importance(3),
        criterion_rows=5,
    )  # fmt: skip
    truth = oracle.log_evidence(x[:5]).mean().item()
    assert result.criterion[0] == pytest.approx(truth, abs=1e-9)  # of the exact guide

    def criterion(model, guide, x, seed):
        got.append(x)
        return torch.zeros(len(x))

    vae, x = made(), data(9)
    loader = torch.utils.data.DataLoader(x, batch_size=4)
    result = fit(
        vae.model, vae.guide, x, valid=loader, num_epochs=1, criterion=criterion, criterion_rows=6
    )
    assert torch.equal(got[1], x[:6])
    again = fit(made().model, vae.guide, x, valid=x, num_epochs=1)
    assert len(again.valid_elbo) == len(result.valid_elbo) == 1


@pytest.mark.parametrize("name", ["elbo", "iwae", "prior", "ais"])
def test_values_are_those_of_evaluate(name):
    vae, x = made(), data(70)  # two blocks
    e = estimator(name, num_particles=64, num_temperatures=3)
    values = e.values(vae.model, vae.guide, x, seed=1)
    evidence = pv.evaluate(vae.model, vae.guide, x, estimators=[e], seed=1)
    assert torch.equal(values, evidence[name].value)


# an average


def watched(vae, steps):
    """SGD that takes down all parameters after each of its steps."""

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            steps.append(copy(vae))

    return Watched


def test_what_is_scored_kept_and_returned_is_the_average():
    vae, x, steps, scored, shown, states = made(), data(), [], [], [], []

    def criterion(model, guide, x, seed):
        scored.append(copy(vae))
        return torch.zeros(len(x)) + len(scored)

    def callback(state):
        shown.append(copy(vae))
        states.append(state)

    fit(
        vae.model, vae.guide, x, valid=x, num_epochs=3, batch_size=8, lr=0.3, ema=0.7,
        optimizer=watched(vae, steps), criterion=criterion, callback=callback,
    )  # fmt: skip
    assert len(steps) == 9
    for epoch in (1, 2, 3):
        done = steps[: 3 * epoch]
        weights = torch.tensor([0.7 ** (len(done) - 1 - i) for i in range(len(done))])
        weights /= weights.sum()
        for k, v in scored[epoch].items():
            mean = sum(w * step[k] for w, step in zip(weights, done, strict=True))
            torch.testing.assert_close(v, mean, rtol=1e-9, atol=1e-12)
        assert equal(shown[epoch], scored[epoch])
    assert equal(copy(vae), scored[3])
    last = {
        k.replace("VAE.", "").replace("$$$", "."): v for k, v in states[3]["parameters"].items()
    }
    assert equal(last, steps[-1])
    plain, free = made(), []
    fit(
        plain.model, plain.guide, x, num_epochs=3, batch_size=8, lr=0.3,
        optimizer=watched(plain, free),
    )  # fmt: skip
    assert all(map(equal, steps, free))  # it does not change the way that training goes


def test_without_validation_the_last_average_is_returned():
    vae, x, steps = made(), data(), []
    fit(
        vae.model, vae.guide, x, num_epochs=1, batch_size=10, lr=0.3, ema=0.5,
        optimizer=watched(vae, steps),
    )  # fmt: skip
    for k, v in vae.state_dict().items():
        torch.testing.assert_close(v, (steps[0][k] + 2 * steps[1][k]) / 3, rtol=1e-9, atol=1e-12)


def test_buffers_are_not_averaged():
    with seeded(0):
        x = 5 + 3 * torch.randn(24, 4)
        oracle, net = pv.LinearGaussian(4, 2), torch.nn.BatchNorm1d(4, affine=False)
        head = torch.nn.Linear(4, 2)
    states = []

    def guide(x):
        pyro.module("net", net)
        pyro.module("head", head)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(head(net(x)), 0.5).to_event(1))

    fit(oracle.model, guide, x, num_epochs=2, batch_size=8, ema=0.9, callback=states.append)
    [kept] = [v for k, v in states[-1]["buffers"].items() if k.endswith("running_mean")]
    assert torch.equal(net.running_mean, kept)
    assert not any("running" in k for k in states[-1]["averages"])


def test_an_average_is_compiled_too(compiler):
    results, x = [], data()
    for compiled in (False, True):
        vae = made()
        fit(vae.model, vae.guide, x, num_epochs=2, batch_size=10, ema=0.9, compile=compiled)
        results.append(copy(vae))
    for k, v in results[0].items():
        torch.testing.assert_close(v, results[1][k])


def test_an_average_may_begin_end_and_change_on_the_way():
    x, states = data(), []

    def run(resume=None, num_epochs=2, **options):
        vae = made()
        states.clear()
        fit(
            vae.model, vae.guide, x, num_epochs=num_epochs, resume=resume,
            callback=states.append, **options,
        )  # fmt: skip
        return states[-1]

    plain, averaged = run(), run(ema=0.9)
    assert plain["averages"] == {}
    assert averaged["averaged_steps"] == 2
    begun = run(plain, 3, ema=0.9)
    assert begun["averaged_steps"] == 1
    assert equal(begun["averages"], begun["parameters"])
    assert run(averaged, 3)["averages"] == {}
    assert run(averaged, 3, ema=0.5)["averaged_steps"] == 3
    for wrong, words in (
        ({"averages": {"a": torch.zeros(2)}}, "resume with the model that was trained"),
        ({"averaged_steps": 0}, "its averages are over 0 steps"),
        ({"averaged_steps": "1"}, "its averages are over 1 steps"),
    ):
        with pytest.raises(storage.StateError, match=words):
            run({**averaged, **wrong}, 3, ema=0.9)


# Muon


def steps_of(program, optimizer, **options):
    """Parameters before, gradients, and parameters after one step."""
    seen = []

    class Watched(optimizer):
        def step(self, closure=None):
            params = [p for group in self.param_groups for p in group["params"]]
            before = [p.detach().clone() for p in params]
            super().step(closure)
            seen.append(
                [(b, p.grad, p.detach().clone()) for b, p in zip(before, params, strict=True)]
            )

    fit(*program, data(), num_epochs=1, batch_size=20, optimizer=Watched, **options)
    return seen[0]


def test_muon_moves_matrices_along_an_orthogonal_one_and_the_rest_as_adam():
    lr, matrices = 0.01, 0
    vae = made()
    for before, grad, after in steps_of((vae.model, vae.guide), Muon, lr=lr):
        step = (before - after) / lr
        if before.ndim == 2:
            matrices += 1
            u, s, vt = torch.linalg.svd(grad, full_matrices=False)
            size = 0.2 * max(grad.shape) ** 0.5
            along = (u.T @ step @ vt.T).diagonal() / size
            large = s > 0.05 * s[0]  # of small ones five steps of Newton and Schulz leave less
            assert ((along > 0.6) & (along < 1.3))[large].all()
            off = u.T @ step @ vt.T / size - along.diag()
            assert off.abs().max() < 0.1
        else:
            torch.testing.assert_close(step, grad / (grad.abs() + 1e-8), rtol=1e-6, atol=1e-6)
    assert matrices == sum(p.ndim == 2 for p in vae.parameters())


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_muon_of_vectors_or_matrices_alone(shape):
    def model(x):
        w = pyro.param("w", torch.ones(shape)).sum()
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0).expand([len(x), 4]).to_event(1), obs=x)

    elbo = fit(model, None, data(), num_epochs=5, lr=0.1, optimizer="muon").elbo
    assert elbo[-1] > elbo[0]


def test_muon_takes_the_rates_of_a_cycle_and_no_other_optimizers_state():
    vae, x, rates, states = made(), data(), [], []

    class Watched(Muon):
        def step(self, closure=None):
            rates.append({group["lr"] for group in self.param_groups})
            return super().step(closure)

    run = partial(fit, vae.model, vae.guide, x, batch_size=2, callback=states.append)
    run(num_epochs=4, lr=0.1, lr_schedule="one-cycle", optimizer=Watched)
    assert all(len(both) == 1 for both in rates)
    assert max(max(both) for both in rates) == pytest.approx(0.1, rel=0.02)
    for name, other in (("adam", "muon"), ("muon", "adam")):
        run(num_epochs=1, optimizer=name)
        with pytest.raises(storage.StateError, match="resume with its own optimizer"):
            run(num_epochs=2, optimizer=other, resume=states[-1])


def test_muon_takes_the_loss_again_as_any_optimizer():
    p = torch.ones(2, 2, requires_grad=True)
    optimizer = Muon([p], lr=0.1)

    def loss():
        optimizer.zero_grad()
        value = p.sum() ** 2
        value.backward()
        return value

    assert optimizer.step(loss) == 16.0
    assert p.sum() < 4


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"optimizer": "mun"}, ValueError, "optimizer is 'mun'; did you mean muon"),
        ({"optimizer": 3}, TypeError, "optimizer is 3"),
        ({"ema": 1.0}, ValueError, "ema is 1.0; give a number above 0 and below 1"),
        ({"ema": 0.0}, ValueError, "ema is 0.0"),
        ({"criterion_rows": 0}, ValueError, "criterion_rows is 0"),
    ],
)
def test_options_out_of_range(options, error, words):
    vae = made()
    with pytest.raises(error, match=words):
        fit(vae.model, vae.guide, data(), **options)


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_all_of_them_resume_bit_for_bit(schedule, tmp_path):
    x, valid = data(30), data(9)

    def run(**options):
        vae = made()
        result = fit(
            vae.model, vae.guide, x, valid=valid, num_epochs=6, batch_size=8, lr=0.01, ema=0.8,
            optimizer="muon", criterion=pv.IWAE(4, num_particles=8), criterion_rows=5,
            lr_schedule=schedule, **options,
        )  # fmt: skip
        return result, vae.state_dict()

    def stop(state):
        storage.save_state(tmp_path / "state", state)
        if len(state["elbo"]) == 3:
            raise Stop

    whole, weights = run()
    with suppress(Stop):
        run(callback=stop)
    resumed, again = run(resume=storage.load_state(tmp_path / "state"))
    assert resumed.criterion == whole.criterion
    assert resumed.valid_elbo == whole.valid_elbo
    assert len(set(whole.criterion)) == 6
    assert equal(again, weights)
