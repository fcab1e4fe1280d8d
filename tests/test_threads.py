"""Two threads that run programs wait for each other, and each gets what it would alone."""

import threading

import pyro
import torch
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae.threads import one_at_a_time


def together(*calls):
    """Results of calls that threads begin at the same moment."""
    found, start = {}, threading.Barrier(len(calls))

    def run(i, call):
        start.wait()
        found[i] = call()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(len(calls))]


def test_each_thread_gets_what_it_would_alone():
    scenario = LinearGaussian.make()
    x = scenario.data(130)

    def evaluated():
        return pv.evaluate(scenario.model, scenario.exact, x, num_particles=50, seed=0)

    def drawn():
        return pv.ais(scenario.model, x, num_temperatures=5, seed=0).log_evidence()

    def fitted():
        vae = pv.VAE(x_dim=5, z_dim=2, likelihood="normal")
        return pv.svi.fit(vae.model, vae.guide, x, num_epochs=3, seed=0).elbo

    torch.manual_seed(0)
    vae_alone = fitted()
    alone = evaluated()["importance"].value, drawn()
    before = dict(pyro.get_param_store().items())
    for _ in range(3):
        e, z, _ = together(evaluated, drawn, fitted)
        torch.testing.assert_close(e["importance"].value, alone[0], rtol=0, atol=0)
        torch.testing.assert_close(z, alone[1], rtol=0, atol=0)
    assert len(vae_alone) == 3
    assert pyro.poutine.runtime._PYRO_STACK == []
    assert set(pyro.get_param_store().keys()) == set(before)


def test_a_call_within_a_call_does_not_wait_for_itself():
    @one_at_a_time
    def inner():
        return 1

    @one_at_a_time
    def outer():
        return inner() + 1

    assert outer() == 2
    assert outer.__name__ == "outer"


def test_no_two_are_inside_at_once():
    inside, most = [], []

    @one_at_a_time
    def call():
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.02)
        inside.pop()

    together(*[call] * 4)
    assert most == [1, 1, 1, 1]
