"""`python -m pyrovae latent`, on runs and programs."""

import json

import numpy as np
import pytest

from pyrovae import runs
from pyrovae.__main__ import main

pytestmark = pytest.mark.usefixtures("float32")
ONE = "--num-epochs 1 --num-particles 20 --estimators elbo importance --no-progress".split()
SMALL = [*ONE, *"--hidden-dims 8 --z-dim 2".split()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("latent") / "run"
    assert main(["svi", *SMALL, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_a_run_its_codes_and_what_other_trainings_give(folder, capsys):
    asked = ["latent", str(folder), "--z-dims", "3", "--betas", "2"]
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert "Rate: KL(q(z|x) || p(z))" in told
    assert "Information of x and z: between" in told
    drawn = {p.stem for p in (folder / "figures").glob("*.png")}
    made = {"latent_kl", "latent_components", "traversals", "interpolation", "rate_distortion"}
    assert {*made, "z_dim", "beta"} <= drawn
    lines = (folder / "latent.csv").read_text().splitlines()
    assert len(lines) == 1 + 359
    assert lines[0].startswith("datum,label,kl,z_1_mean,z_2_mean")
    trained = {p.name: p for p in (folder / "trained").iterdir()}
    assert set(trained) == {"z_dim-3", "beta-2"}
    assert runs.read_config(trained["z_dim-3"])["z_dim"] == 3
    assert runs.read_config(trained["beta-2"])["objective"] == "beta-elbo(2)"

    before = {name: (p / "evidence.nc").stat().st_mtime_ns for name, p in trained.items()}
    assert main([*asked, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert before == {n: (p / "evidence.nc").stat().st_mtime_ns for n, p in trained.items()}
    assert [t["value"] for t in result["z_dim"]] == [3]
    for t in (*result["z_dim"], *result["beta"]):
        rate, distortion = t["rate"][0], t["distortion"][0]
        assert -(rate + distortion) == pytest.approx(t["elbo"][0])
    evidence = runs.load_evidence(trained["z_dim-3"])
    assert result["z_dim"][0]["log_p"][0] == pytest.approx(evidence.best().mean)
    assert sum(result["sites"]["z"]["kl"]) == pytest.approx(result["rate"])

    # another training in the same folder takes away what was said of the one before
    assert main(["svi", *SMALL, "--seed", "1", "--out", str(folder), "--overwrite"]) == 0
    assert not (folder / "latent.csv").exists()
    assert not (folder / "figures" / "latent_kl.png").exists()
    assert main(["latent", str(folder), "--z-dims", "3"]) == 0
    assert runs.read_config(folder / "trained" / "z_dim-3")["seed"] == 1


@pytest.mark.slow
def test_a_model_of_layers_and_one_on_a_condition(tmp_path, capsys):
    for model, sites in (("hierarchical-vae", ("z2", "z1")), ("cvae", ("z",))):
        out = str(tmp_path / model)
        assert main(["svi", "--model", model, *ONE, "--out", out]) == 0
        assert "dimensions" in (tmp_path / model / "report.html").read_text()
        capsys.readouterr()
        assert main(["latent", out, "--json"]) == 0
        assert list(json.loads(capsys.readouterr().out)["sites"]) == list(sites)


PROGRAM = """
import pyro, torch, pyro.distributions as dist
def make():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x, 0.2**0.5).to_event(1))
    return model, guide
"""


@pytest.mark.slow
def test_a_program_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_latent.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 2)).astype("float32"))
    own = ["--program", "mine_latent:make", "--data", "x.npy", "--out", "found"]
    assert main(["latent", *own]) == 0
    assert "z              2       2" in capsys.readouterr().out
    assert (tmp_path / "found" / "latent.csv").exists()
    assert main(["latent", *own, "--z-dims", "2"]) == 2
    assert "--z-dims trains a run's model again" in capsys.readouterr().err


def test_what_is_not_there_is_said(capsys):
    assert main(["latent"]) == 2
    assert "give a run folder" in capsys.readouterr().err


def test_help_names_the_command_as_it_is_called(capsys):
    assert main(["latent", "--help"]) == 0
    told = capsys.readouterr().out
    assert "usage: python -m pyrovae latent [RUN]" in told
    assert "  python -m pyrovae latent runs/mnist\n" in told
    assert "pyrovae.latent" not in told
