import math
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from pyro.infer import Trace_ELBO
from scenarios import BernoulliDecoder, GlobalMean, LinearGaussian

import pyrovae as pv
from pyrovae.evidence.estimators import base
from pyrovae.program import evaluation
from pyrovae.rng import seeded


@pytest.fixture
def evidence():
    scenario = BernoulliDecoder()
    return pv.evaluate(
        scenario.model, scenario.guide, scenario.data(30), num_particles=500, seed=0,
        protocol={"binarize": "none"},
    )  # fmt: skip


def test_equals_the_estimators_themselves(evidence):
    scenario = BernoulliDecoder()
    x = scenario.data(30)
    post = pv.importance_sampling(scenario.model, scenario.guide, x, num_particles=500, seed=0)
    prior = pv.prior_sampling(scenario.model, x, num_particles=500, seed=0)
    for name, value, error in (
        ("elbo", post.elbo(), post.elbo_std_error()),
        ("importance", post.log_evidence(), post.std_error()),
        ("prior", prior.log_evidence(), prior.std_error()),
    ):
        torch.testing.assert_close(evidence[name].value, value)
        torch.testing.assert_close(evidence[name].std_error, error)
    torch.testing.assert_close(evidence["importance"].ess, post.ess())
    torch.testing.assert_close(evidence["importance"].pareto_k, post.pareto_k())
    torch.testing.assert_close(evidence["prior"].ess, prior.ess())


def test_elbo_equals_trace_elbo():
    scenario = BernoulliDecoder()
    x = scenario.data(10)
    ours = pv.evaluate(
        scenario.model, scenario.guide, x, estimators=["elbo"], num_particles=5000, seed=0
    )["elbo"]
    elbo = Trace_ELBO(num_particles=500, vectorize_particles=True)
    losses = [elbo.loss(scenario.model, scenario.guide, x) for _ in range(10)]
    theirs = -torch.tensor(losses) / len(x)
    error = math.hypot(ours.monte_carlo_error, theirs.std().item() / 10**0.5)
    assert abs(ours.mean - theirs.mean().item()) < 4 * error


def test_means_and_their_two_errors(evidence):
    e = evidence["importance"]
    n = len(e.value)
    assert e.mean == pytest.approx(e.value.mean().item())
    squares = e.std_error.numpy() ** 2
    assert e.monte_carlo_error == pytest.approx(
        np.hypot(squares.sum() ** 0.5 / n, squares.mean() / 2)
    )
    assert e.data_error == pytest.approx(e.value.numpy().std(ddof=1) / np.sqrt(n))


def test_bits_per_dimension_only_for_discrete_data(evidence):
    row = evidence.rows()[1]
    assert row["bits_per_dim"] == pytest.approx(-row["nats"] / 6 / math.log(2))
    scenario = LinearGaussian.make()
    dense = pv.evaluate(scenario.model, scenario.exact, scenario.data(3), num_particles=10, seed=0)
    assert dense.rows()[1]["bits_per_dim"] is None


def test_deterministic_and_factor_sites_are_no_data():
    scenario = BernoulliDecoder()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
            logits = pyro.deterministic("logits", scenario.logits(z), event_dim=1)
            pyro.sample("x", pyro.distributions.Bernoulli(logits=logits).to_event(1), obs=x)
            pyro.factor("twice", torch.full((len(x),), math.log(2)))

    x = scenario.data(5)
    options = {"num_particles": 50, "seed": 0, "block_size": 2}
    plain = pv.evaluate(scenario.model, scenario.guide, x, **options)
    ours = pv.evaluate(model, scenario.guide, x, **options)
    for name in ("elbo", "importance", "prior"):
        torch.testing.assert_close(ours[name].value, plain[name].value + math.log(2))
    assert ours.protocol["dims"] == 6
    assert ours.protocol["factors"] == "twice"
    assert "has factors beside what it observes (twice): where with them" in ours.reading()
    assert "factors" not in plain.protocol
    assert "factors" not in plain.reading()
    assert ours.rows()[0]["bits_per_dim"] is not None


def test_path_ends_at_the_estimate_and_rises(evidence):
    for name in ("importance", "prior"):
        e = evidence[name]
        assert evidence.num_samples[0] == 1
        assert evidence.num_samples[-1] == 500
        torch.testing.assert_close(e.path[-1], e.value)
        torch.testing.assert_close(e.path_std_error[-1], e.std_error)
        assert e.path.mean(1)[-1] > e.path.mean(1)[0]
    torch.testing.assert_close(evidence["importance"].path[0], evidence["elbo"].value)


def test_any_number_of_particles():
    scenario = BernoulliDecoder()
    for k in (1, 2, 7, 1000):
        evidence = pv.evaluate(
            scenario.model, scenario.guide, scenario.data(5), num_particles=k, seed=0, block_size=2
        )
        assert (evidence["prior"].num_draws == k).all()
        assert evidence["prior"].value.shape == (5,)
        assert repr(evidence)


def test_rows_that_do_not_fill_a_block_count_once():
    """With the exact posterior as guide, every estimate is exact: no row is dropped or doubled."""
    scenario = LinearGaussian.make()
    x = scenario.data(23)
    for block_size in (1, 5, 64):
        e = pv.evaluate(
            scenario.model, scenario.exact, x, estimators=["elbo", "importance"], seed=0,
            num_particles=9, block_size=block_size, chunk_size=10,
        )  # fmt: skip
        for name in ("elbo", "importance"):
            torch.testing.assert_close(e[name].value, scenario.log_evidence(x), rtol=0, atol=1e-10)


def test_reading_of_a_good_guide(evidence):
    text = evidence.reading()
    gap = evidence["importance"].mean - evidence["elbo"].mean
    assert f"The ELBO lies {gap:.3f}" in text
    assert "KL(q(z|x) || p(z|x))" in text
    assert re.search(r"can be trusted: k-hat .*0\.63.* 0\.0%", " ".join(text.split()))


def test_reading_of_naive_sampling_in_ten_dimensions():
    scenario = LinearGaussian.make(x_dim=20, z_dim=10, sigma=0.3)
    x = scenario.data(20)
    both = pv.evaluate(
        scenario.model, scenario.exact, x, estimators=["importance", "prior"], seed=0,
        num_particles=1000,
    )  # fmt: skip
    assert "Naive sampling, K = 1,000, falls" in both.reading()
    assert "20 data by importance sampling" in both.reading()
    alone = pv.evaluate(scenario.model, None, x, estimators=["prior"], seed=0, num_particles=1000)
    assert "cannot be trusted" in alone.reading()
    assert alone.rows()[0]["bad_khat"] > 0.9


def test_reading_of_all_data_as_one():
    """Their estimates have errors of samples alone, and are compared by those."""
    scenario, x = GlobalMean(), torch.randn(40)
    asked = {"estimators": ["importance", "prior"], "num_particles": 300, "seed": 0}
    found = pv.evaluate(scenario.model, scenario.exact, x - 4, plate=None, **asked)
    text = found.reading()
    assert text.startswith("log P(X) of this 1 datum by importance sampling, K = 300: ")
    assert "nan" not in text
    assert "Naive sampling, K = 300, falls" in text


def test_reading_of_a_guide_worse_than_the_prior():
    scenario = LinearGaussian.make(sigma=2.0)
    x = scenario.data(20)

    def astray(x):
        with pyro.plate("data", len(x)):
            loc = scenario.posterior_mean(x) + 4
            pyro.sample("z", pyro.distributions.Normal(loc, 0.3).to_event(1))

    text = pv.evaluate(scenario.model, astray, x, num_particles=1000, seed=0).reading()
    assert "by naive sampling" in text
    assert "Importance sampling, K = 1,000, falls" in text


def test_table_has_a_row_an_estimator(evidence):
    lines = evidence.table().splitlines()
    assert [line[:10] for line in lines[1:]] == ["ELBO      ", "importance", "naive samp"]
    assert "data s.e." in lines[0]
    assert len({len(line) for line in lines}) == 1


def test_to_xarray(evidence, tmp_path):
    ds = evidence.to_xarray()
    assert ds["value"].dims == ("estimator", "datum")
    np.testing.assert_array_equal(ds["value"].sel(estimator="prior"), evidence["prior"].value)
    for key in ("num_particles", "seed", "rows", "model_sha256", "torch", "binarize", "dtype"):
        assert key in ds.attrs
    pv.storage.write_dataset(tmp_path / "e.nc", ds)
    import xarray

    with xarray.open_dataset(tmp_path / "e.nc", engine="h5netcdf") as back:
        assert back.attrs["num_particles"] == 500
        xarray.testing.assert_equal(back.load(), ds)


def test_model_hash_tells_models_apart():
    x = torch.ones(3, 4)
    hashes = []
    for _ in range(2):
        vae = pv.VAE(4, 2)
        for _ in range(2):
            e = pv.evaluate(vae.model, vae.guide, x, num_particles=2, seed=0)
            hashes.append(e.protocol["model_sha256"])
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


def test_a_pyro_param_program_needs_no_module():
    def model(x):
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(loc, 1.0))
            pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)

    x = torch.randn(4)
    e = pv.evaluate(model, None, x, estimators=["prior"], num_particles=4000, seed=0)["prior"]
    truth = pyro.distributions.Normal(0.0, 2**0.5).log_prob(x)
    assert ((e.value - truth) / e.std_error).abs().max() < 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"estimators": ["importnace"]}, "did you mean importance"),
        ({"estimators": []}, "no estimator was asked for"),
        ({"num_particles": 0}, "num_particles is 0"),
        ({"plate": "rows"}, "no plate 'rows'"),
    ],
)
def test_bad_options(options, words):
    scenario = LinearGaussian.make()
    with pytest.raises(ValueError, match=words):
        pv.evaluate(scenario.model, scenario.exact, scenario.data(3), **options)
    with pytest.raises(ValueError, match="needs a guide"):
        pv.evaluate(scenario.model, None, scenario.data(3))


MEMORY = """
import re, sys
import torch
import pyrovae as pv
vae = pv.VAE(20, 5, (16,))
x = (torch.rand(int(sys.argv[1]), 20) < 0.5).float()
run = lambda n, k: pv.evaluate(vae.model, vae.guide, x[:n], num_particles=k, seed=0)
run(128, 100)
# not ru_maxrss, which begins with the peak of the process that started this one
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
before = peak()
run(int(sys.argv[1]), int(sys.argv[2]))
print((peak() - before) / 1024)
"""


def test_comes_back_from_xarray(evidence, tmp_path):
    path = tmp_path / "evidence.nc"
    evidence.to_xarray().to_netcdf(path, engine="h5netcdf")
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        again = pv.Evidence.from_xarray(dataset)
    assert repr(again) == repr(evidence)
    assert again.num_samples == evidence.num_samples
    assert dict(again.protocol) == dict(evidence.protocol)
    for name, e in evidence.estimates.items():
        assert again[name].verdict() == e.verdict()
        assert torch.equal(again[name].path, e.path)
        assert again[name].monte_carlo_error == e.monte_carlo_error  # of shared draws, too


GIVEN_BACK = """
import ctypes
import torch
from torch.utils._python_dispatch import TorchDispatchMode
import pyrovae as pv
fields = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
Mallinfo = type("Mallinfo", (ctypes.Structure,), {"_fields_": [(f, ctypes.c_int) for f in fields]})
mallinfo = ctypes.CDLL(None).mallinfo
mallinfo.restype = Mallinfo
held = []
class Watch(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        now = mallinfo()
        held.append(now.arena + now.hblkhd)  # bytes that the C library has from the system
        return operation(*args, **(kwargs or {}))
vae = pv.VAE(784, 50, (400,))
x = (torch.rand(256, 784) < 0.5).float()
run = lambda k: pv.evaluate(vae.model, vae.guide, x, num_particles=k, seed=0)
run(20)
with Watch():
    run(150)
print(sum(max(0, before - after) for before, after in zip(held, held[1:])) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep or return")
def test_chunks_of_draws_use_memory_again():
    """Decodes of 38,400 x 784 numbers take 115 MiB with each array, in chunks that are freed."""
    command = [sys.executable, "-W", "ignore", "-c", GIVEN_BACK]
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}  # Dask's, say
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert float(done.stdout) < 5  # MiB given back to the system between one operation and another


@pytest.mark.slow
def test_memory_is_bounded():
    """The two tables of 2,000 x 3,000 weights would take 96 MB; a block's takes 3."""
    command = [sys.executable, "-W", "ignore", "-c", MEMORY, "2000", "3000"]
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "100000"}  # what is freed is given back
    grown = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    assert float(grown) < 60  # MB


def test_all_estimators_beside_the_truth():
    scenario = BernoulliDecoder()
    x = scenario.data(40)
    truth = scenario.log_evidence(x)
    names = ["elbo", "importance", "jackknife", "prior", "ais", "quadrature"]
    evidence = pv.evaluate(
        scenario.model, scenario.guide, x, estimators=names, num_particles=1000,
        num_temperatures=20, num_chains=30, seed=0,
    )  # fmt: skip
    for name in ("importance", "jackknife", "prior", "ais"):
        off = (evidence[name].value - truth) / evidence[name].std_error
        assert abs(off.mean()) < 4 / 40**0.5, name
    assert (evidence["quadrature"].value - truth).abs().max() < 1e-6
    assert evidence["ais"].pareto_k.isfinite().all()
    assert evidence.reading().startswith(
        f"log P(X) of these 40 data by quadrature: {truth.mean():.3f} nats per datum"
    )
    assert "It is exact: estimated error at most" in evidence.reading()
    assert "the same, jackknife" in evidence.table()
    assert [row["num_draws"] for row in evidence.rows()] == [1000, 1000, 1000, 1000, 30, None]
    assert evidence.protocol["num_temperatures"] == 20
    direct = pv.ais(
        scenario.model, x, guide=scenario.guide, num_temperatures=20, num_particles=30, seed=0
    )
    torch.testing.assert_close(evidence["ais"].value, direct.log_evidence())


def test_annealing_is_read_where_importance_sampling_fails():
    scenario = LinearGaussian.make(x_dim=20, z_dim=10)
    x = scenario.data(50)

    def narrow(x):
        scenario.mean_field(x, scale=0.7)

    evidence = pv.evaluate(
        scenario.model, narrow, x, estimators=["elbo", "importance", "ais"],
        num_particles=200, seed=0,
    )  # fmt: skip
    text = evidence.reading()
    assert "by annealing, 100 temperatures x 8 particles" in text
    assert "Importance sampling, K = 200, " in text
    assert "A second way c" in text
    assert "48 of 512 data" in text
    assert "use ais" in evidence["importance"].verdict()
    assert evidence["ais"].pareto_k.isnan().all()
    alone = pv.evaluate(scenario.model, narrow, x, num_particles=200, seed=0)
    assert "add the estimator ais" in alone.reading().lower()
    assert "The guide costs at least that much" in alone.reading()
    assert "use ais: " in alone.reading()


def test_auto():
    scenario = BernoulliDecoder()
    x = scenario.data(50)
    evidence = pv.evaluate(
        scenario.model, scenario.guide, x, num_particles="auto", tolerance=0.03, seed=0
    )
    e = evidence["importance"]
    assert e.num_draws.unique().numel() > 1
    assert e.std_error.max() < 0.04
    assert (evidence["prior"].num_draws == 5000).all()
    assert evidence.num_samples == ()
    assert e.path.shape == (0, 50)
    assert evidence.budget(e) == f"K = {e.num_draws.min():,} to {e.num_draws.max():,}"
    assert evidence.budget(e) in evidence.reading()
    direct = pv.importance_sampling(
        scenario.model, scenario.guide, x, num_particles="auto", tolerance=0.03, seed=0
    )
    torch.testing.assert_close(e.value, direct.log_evidence())
    assert direct.verdict(0.03) == e.own_verdict()


def test_finished_blocks_are_not_computed_again():
    scenario = BernoulliDecoder()
    x = scenario.data(10)
    seen = []

    def model(x):
        seen.append(len(x))
        scenario.model(x)

    options = {
        "estimators": ["elbo", "importance", "prior", "ais", "quadrature"],
        "num_particles": 20, "num_temperatures": 9, "num_chains": 2, "seed": 0, "block_size": 4,
    }  # fmt: skip
    blocks = {}
    whole = pv.evaluate(model, scenario.guide, x, blocks=blocks, **options)
    runs = len(seen)
    assert sorted(blocks) == [
        "ais-0", "ais-second", "guide-0", "guide-4", "guide-8", "prior-0",
        "quadrature-0", "quadrature-4", "quadrature-8",
    ]  # fmt: skip
    plain = pv.evaluate(scenario.model, scenario.guide, x, **options)
    del blocks["guide-4"], blocks["quadrature-8"]
    seen.clear()
    with pytest.raises(TypeError, match="blocks is 'a folder'; give a dict"):
        pv.evaluate(model, scenario.guide, x, blocks="a folder", **options)
    again = pv.evaluate(model, scenario.guide, x, blocks=blocks, **options)
    assert len(seen) < runs / 3
    for e in (plain, again):
        for name in options["estimators"]:
            assert torch.equal(e[name].value, whole[name].value)
            assert torch.equal(e[name].std_error, whole[name].std_error)


def test_objects_and_names_are_the_same_estimators():
    scenario = BernoulliDecoder()
    x, pair = scenario.data(6), (scenario.model, scenario.guide)
    named = pv.evaluate(
        *pair,
        x,
        estimators=["elbo", "importance", "prior", "ais"],
        seed=0,
        num_particles=50,
        num_temperatures=5,
        num_chains=3,
    )
    objects = [pv.ELBO(50), pv.Importance(50), pv.Naive(50), pv.AIS(5, 3)]
    same = pv.evaluate(*pair, x, estimators=objects, seed=0)
    assert list(same.estimates) == list(named.estimates)
    assert dict(same.protocol) == dict(named.protocol)
    for name, e in same.estimates.items():
        assert torch.equal(e.value, named[name].value)
        assert torch.equal(e.path, named[name].path) or e.path.isnan().all()


def test_estimators_of_a_kind_stand_beside_each_other():
    """Of other numbers of draws, from other proposals, with quasi-random draws."""
    scenario = BernoulliDecoder()
    x = scenario.data(6)
    wide = pv.Importance(200, proposal=pv.Widened(1.5))
    few, sobol = pv.Importance(20), pv.Importance(64, qmc=True)
    evidence = pv.evaluate(
        scenario.model, scenario.guide, x, estimators=[few, wide, sobol, pv.ELBO(20)], seed=0
    )
    assert list(evidence.estimates) == ["importance", "importance_2", "importance_3", "elbo"]
    assert evidence["importance_2"].label == "importance sampling 2"
    options = [(20, None, False), (200, pv.Widened(1.5), False), (64, None, True)]
    for e, (num_particles, proposal, qmc) in zip(
        evidence.estimates.values(), options, strict=False
    ):
        alone = pv.importance_sampling(
            scenario.model,
            scenario.guide,
            x,
            num_particles=num_particles,
            proposal=proposal,
            qmc=qmc,
            seed=0,
        )
        torch.testing.assert_close(e.value, alone.log_evidence())
    assert evidence.protocol["num_particles"] == 20
    assert evidence.protocol["num_particles_guide_2"] == 200
    assert evidence["importance"].path[-1].isnan().all()  # the others' draws are more
    again = pv.Evidence.from_xarray(evidence.to_xarray())
    assert f"{again}" == f"{evidence}"
    annealed = [pv.AIS(3, 2), pv.AIS(6, 2)]
    words = pv.evaluate(scenario.model, scenario.guide, x, estimators=annealed, seed=0).reading()
    assert "3 temperatures x 2 particles" in words
    assert "6 temperatures x 2 particles" in words


def test_an_estimator_of_ones_own(monkeypatch):
    monkeypatch.setattr(base, "kinds", dict(base.kinds))

    @dataclass(frozen=True)
    class Smallest(pv.Estimator):
        """log p(x) from one draw of the guide: the least that can be done."""

        num_draws: int = 1
        name: ClassVar[str] = "smallest"
        label: ClassVar[str] = "one draw"
        needs_guide: ClassVar[bool] = True
        keywords: ClassVar[dict[str, str]] = {"num_smallest": "num_draws"}

        def weights(self, program, rows, work):
            with evaluation(), seeded(work.seed, 99, rows.start):
                z, log_q = program.propose(rows, self.num_draws)
                return pv.LogWeights(program.log_joint(z, rows, self.num_draws) - log_q)

    scenario = BernoulliDecoder()
    x, pair = scenario.data(6), (scenario.model, scenario.guide)
    names = ["smallest", "importance"]
    evidence = pv.evaluate(*pair, x, estimators=names, num_smallest=3, num_particles=50, seed=0)
    assert evidence.protocol["num_smallest"] == 3
    assert evidence["smallest"].num_draws.tolist() == [3] * 6
    assert (evidence["smallest"].value - evidence["importance"].value).abs().max() < 5
    assert "one draw" in evidence.table()
    assert f"{pv.Evidence.from_xarray(evidence.to_xarray())}" == f"{evidence}"
    with pytest.raises(TypeError, match="there is no option 'num_small'; did you mean"):
        pv.evaluate(*pair, x, estimators=names, num_small=3)


def test_an_estimator_alone_gives_its_table():
    scenario = BernoulliDecoder()
    x, pair = scenario.data(4), (scenario.model, scenario.guide)
    importance = pv.importance_sampling(*pair, x, num_particles=20, seed=0)
    assert torch.equal(pv.Importance(20)(*pair, x, seed=0).log_w, importance.log_w)
    assert torch.equal(pv.ELBO(20)(*pair, x, seed=0).log_w, importance.log_w)
    naive = pv.prior_sampling(scenario.model, x, num_particles=20, seed=0)
    assert torch.equal(pv.Naive(20)(*pair, x, seed=0).log_w, naive.log_w)
    annealed = pv.ais(
        scenario.model, x, guide=scenario.guide, num_temperatures=5, num_particles=3, seed=0
    )
    assert torch.equal(pv.AIS(5, 3)(*pair, x, seed=0).log_w, annealed.log_w)
    exact = pv.quadrature(scenario.model, x)
    assert torch.equal(pv.Quadrature()(scenario.model, None, x), exact)
    with pytest.raises(ValueError, match="'importance' needs a guide"):
        pv.Importance(20)(scenario.model, None, x)


def test_what_is_summed_out_is_exact():
    def mixture(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(2 * k, 1.0), obs=x)

    x = torch.linspace(-2, 3, 7)
    evidence = pv.evaluate(mixture, None, x, estimators=["exact"], seed=0)
    both = [dist.Normal(2.0, 1.0).log_prob(x) + math.log(0.3)]
    both += [dist.Normal(0.0, 1.0).log_prob(x) + math.log(0.7)]
    torch.testing.assert_close(evidence["exact"].value, torch.stack(both).logsumexp(0))
    assert set(evidence["exact"].verdict()) == {"ok"}
    assert evidence.best().name == "exact"
    assert evidence.budget(evidence["exact"]) == ""
    assert "It is exact" in evidence.reading()
    scenario = BernoulliDecoder()
    with pytest.raises(ValueError, match="'exact' sums out all latents, and here it cannot"):
        pv.evaluate(scenario.model, scenario.guide, scenario.data(3), estimators=["exact"])
