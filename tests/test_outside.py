"""A model from outside the package, with another prior and other nets, through every command."""

import html
import importlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import pyrovae as pv
from pyrovae import likelihoods, runs
from pyrovae.__main__ import main
from pyrovae.data.base import sets
from pyrovae.evidence.estimators.base import kinds
from pyrovae.models import base
from pyrovae.report import panel

pytestmark = pytest.mark.usefixtures("float32")
MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae import report
from pyrovae.models.base import Encodes
from pyrovae.nn import MLP, Encoder
from pyrovae.program import evaluation
from pyrovae.rng import seeded


class Shifted(torch.nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.ones(z_dim))

    def forward(self, x):
        return dist.Normal(self.loc.expand(len(x), -1), 1.0).to_event(1)


class Mine(pv.Model):
    """Two layers of its own, a prior that is learned, and no VAE among its ancestors."""

    name = "test-mine"

    def __init__(
        self,
        x_dim: int,
        z_dim: int = 3,
        widths: tuple[int, ...] = (4,),
        tanh: bool = False,
        slope: float = 0.1,
    ):
        super().__init__()
        self.kept = {"x_dim": x_dim, "z_dim": z_dim, "widths": list(widths)}
        self.kept |= {"tanh": tanh, "slope": slope}
        self.p_z, self.encoder = Shifted(z_dim), Encoder(x_dim, widths, z_dim)
        layers = [torch.nn.LeakyReLU(slope), MLP(z_dim, widths[::-1], x_dim)]
        self.decoder = torch.nn.Sequential(*layers, *[torch.nn.Tanh()] * tanh)

    def config(self):
        return self.kept

    def prior(self, x):
        return self.p_z(x)

    def encode(self, x):
        return dist.Normal(*self.encoder(x)).to_event(1)

    def decode(self, z):
        return dist.Bernoulli(logits=self.decoder(z)).to_event(1)

    def model(self, x):
        self.register(p_z=self.p_z, decoder=self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.decode(z), obs=x)

    def guide(self, x):
        self.register(encoder=self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encode(x))


class Leaky(pv.likelihoods.Bernoulli):
    """Pixels that flip with a small probability."""

    name = "test-leaky"

    def forward(self, f):
        return dist.Bernoulli(0.98 * torch.sigmoid(f) + 0.01).to_event(1)


class Stripes(pv.data.DataSet):
    name = "test-stripes"
    image_shape = 2, 3

    def read(self, root, download):
        return stripes()


def stripes():
    """Rows of six pixels, by their label."""
    y = torch.arange(90) % 3
    x = torch.arange(6) // 2 == y[:, None]
    return pv.data.Split((x ^ (torch.arange(90) % 7 == 0)[:, None]).float(), y)


@dataclass(frozen=True)
class Twice(pv.Estimator):
    """Importance sampling of twice the particles."""

    num_particles: int = 10
    factor: float = 2.0

    name: ClassVar[str] = "test-twice"
    needs_guide: ClassVar[bool] = True
    rank: ClassVar[int] = 9

    def weights(self, program, rows, work):
        size = int(self.factor * self.num_particles)
        with evaluation(), seeded(work.seed, 99, rows.start):
            z, log_q = program.propose(rows, size)
            return pv.LogWeights(program.log_joint(z, rows, size) - log_q)


class Counts(report.Panel):
    """How many data have which label."""

    name = "test-counts"
    title = "Labels & counts"

    def has_what_it_needs(self, shown):
        return shown.y is not None

    def html(self, shown):
        return f"<p>{len(shown.y)} labels, <b>{len(set(shown.y.tolist()))}</b> kinds.</p>"


class Mean(report.Picture):
    name = "test-mean"
    title = "The mean of <i>X</i>."
    needs = (Encodes,)

    def figure(self, shown):
        return pv.plots.images([shown.x.mean(0)[None]], ["mean"], shown.shape, "The mean")


class Conditional(pv.Model):
    """P(X | Y), with a guide that looks at both."""

    name = "test-conditional"
    inputs = ("x", "y")

    def __init__(self, x_dim: int):
        super().__init__()
        self.x_dim = x_dim
        self.decoder, self.encoder = torch.nn.Linear(3, x_dim), Encoder(x_dim + 1, (4,), 2)

    def config(self):
        return {"x_dim": self.x_dim}

    def encode(self, x, y):
        return dist.Normal(*self.encoder(torch.cat([x, y[..., None].to(x)], -1))).to_event(1)

    def decode(self, z, y):
        f = torch.cat([z, y[..., None].to(z).expand(*z.shape[:-1], 1)], -1)
        return dist.Bernoulli(logits=self.decoder(f)).to_event(1)

    def model(self, x, y):
        self.register(decoder=self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", self.decode(z, y), obs=x)

    def guide(self, x, y):
        self.register(encoder=self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.encode(x, y))


class Guideless(pv.Model):
    """A mixture, whose latent can be summed out."""

    name = "test-guideless"

    def __init__(self, x_dim: int):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.randn(2, x_dim))

    def config(self):
        return {"x_dim": self.logits.shape[1]}

    def model(self, x):
        self.register(whole=self)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(x.new_ones(2) / 2))
            pyro.sample("x", dist.Bernoulli(logits=self.logits[k]).to_event(1), obs=x)


class Nameless(Mine):
    pass


class Forgetful(Mine):
    name = "test-forgetful"

    def config(self):
        return {"x_dim": 64}


class Empty(pv.Model):
    name = "test-empty"

    def __init__(self, x_dim: int):
        super().__init__()
        self.net = torch.nn.Linear(2, x_dim)

    def config(self):
        return {"x_dim": 64}


class Unconfigured(Mine):
    name = "test-unconfigured"

    def __init__(self, x_dim: int):
        super().__init__(x_dim, 2)

    def config(self):
        return {}
'''
QUICK = "--num-particles 20 --no-progress --estimators elbo importance".split()
MINE = ["--model", "outside_models.Mine"]
EVERYTHING = "--data outside_models.Stripes --likelihood outside_models.Leaky".split()
TWICE = "--estimators importance outside_models.Twice --estimators.test-twice.factor 3".split()
TWICE += ["--num-particles", "20"]
OPTIONS = "--model.z_dim 2 --model.widths 5 4 --model.tanh true --model.slope=0.2".split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the module, and a run of its model; not to be altered."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "outside_models.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", ["", *sys.path])
        args = ["svi", *MINE, *OPTIONS, *QUICK, "--num-epochs", "2", "--out", "run"]
        assert main(args) == 0
        args = ["svi", *EVERYTHING, *TWICE, "--num-epochs", "2", "--out", "all", "--no-progress"]
        assert main([*args, "--binarize", "none", "--z-dim", "2", "--hidden-dims", "4"]) == 0
        yield folder
    sys.modules.pop("outside_models", None)
    for known in (base._known, sets, kinds, likelihoods.families, panel._known):
        for name in [n for n, c in known.items() if c.__module__ == "outside_models"]:
            del known[name]


@pytest.fixture
def folder(trained, tmp_path, undrawn, monkeypatch):
    """A copy of it, where the commands run."""
    shutil.copytree(trained, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path / "own"


def test_the_run_is_that_of_the_model(trained):
    config = yaml.safe_load((trained / "run" / "config.yaml").read_text())
    options = {"z_dim": 2, "widths": [5, 4], "tanh": True, "slope": 0.2}
    assert config["model"] == "outside_models.Mine"
    assert config["model_options"] == options
    mine = pv.load(trained / "run")
    assert type(mine).__name__ == "Mine"
    assert mine.config() == {"x_dim": 64, **options}
    assert not torch.equal(mine.p_z.loc, torch.ones(2))
    pv.save(mine, trained / "copy")
    assert torch.equal(pv.load(trained / "copy").p_z.loc, mine.p_z.loc)
    assert runs.load_evidence(trained / "run").protocol["model"] == "outside_models.Mine"
    page = (trained / "run" / "report.html").read_text()
    assert "digits, Mine with 2 latent dimensions" in page
    assert "svi --config run/config.yaml --model outside_models.Mine" in page
    figures = {path.stem for path in (trained / "run" / "figures").iterdir()}
    assert {"samples", "reconstructions", "latent_space", "manifold"} <= figures


def test_its_run_is_evaluated_resumed_and_shown(folder, capsys):
    assert main(["evidence", "run", *MINE, "--rows", "20", *QUICK]) == 0
    assert "evidence run --model outside_models.Mine" in (folder / "run/report.html").read_text()
    (folder / "run" / "report.html").unlink()
    assert main(["report", "run", *MINE]) == 0
    assert (folder / "run" / "report.html").exists()
    resumed = ["svi", *MINE, "--resume", "--out", "run", "--num-epochs", "3", *QUICK]
    assert main(resumed) == 0
    assert len(runs.read_metrics(folder / "run")["elbo"]) == 3
    assert pv.load(folder / "run").config()["z_dim"] == 2
    capsys.readouterr()
    assert main([*resumed, "--model.z_dim", "3"]) == 5
    assert "resume with that" in capsys.readouterr().err


@pytest.mark.slow
def test_data_likelihood_and_estimator_from_outside(folder, capsys):
    config = yaml.safe_load((folder / "all" / "config.yaml").read_text())
    assert config["data"] == "outside_models.Stripes"
    assert config["likelihood"] == "outside_models.Leaky"
    assert config["estimators"] == ["importance", "outside_models.Twice"]
    assert config["estimator_options"] == {"test-twice": {"factor": 3}}
    known = runs.load_evidence(folder / "all")
    assert known["test-twice"].num_draws.tolist() == [30] * 18
    assert known.protocol["data"] == "test-stripes"
    again = ["svi", "--resume", "--out", "all", *EVERYTHING, *TWICE, "--num-epochs", "3"]
    assert main([*again, "--no-progress"]) == 0
    assert main(["evidence", "all", *EVERYTHING, "--rows", "9", *TWICE, "--no-progress"]) == 0
    page = (folder / "all" / "report.html").read_text()
    assert f"config all/config.yaml {' '.join(EVERYTHING[2:] + EVERYTHING[:2])}" in page
    line = next(line for line in page.splitlines() if "pyrovae.evidence all" in line)
    assert runs.load_evidence(folder / "all")["test-twice"].num_draws.tolist() == [30] * 9
    before = (folder / "all" / "evidence.csv").read_bytes()
    command = shlex.split(html.unescape(line).rpartition("pyrovae.evidence ")[2])
    assert main(["evidence", *command, "--no-progress"]) == 0
    assert (folder / "all" / "evidence.csv").read_bytes() == before
    assert main(["report", "all", *EVERYTHING]) == 0
    assert (folder / "all" / "report.html").read_text() == page
    capsys.readouterr()
    assert main(["evidence", "all", *EVERYTHING[2:], "--data", "outside_models.stripes"]) == 0
    assert "sampling, K = 5,000" in capsys.readouterr().out
    assert (folder / "all" / "evidence-stripes" / "evidence.nc").exists()
    assert main(["evidence", "all", *EVERYTHING, *TWICE, "--dry-run"]) == 0


PANELS = ["--panels", "outside_models.Counts", "outside_models.Mean"]


def test_panels_from_outside(folder):
    page = folder / "all" / "report.html"
    assert main(["report", "all", *EVERYTHING, *PANELS]) == 0
    text = page.read_text()
    section = '<section aria-labelledby="panel-test-counts">\n  <h2 id="panel-test-counts">'
    assert f"{section}Labels &amp; counts</h2>\n<p>18 labels, <b>3</b> kinds.</p>\n" in text
    assert 'alt="The mean. mean: 1 images of mean 0.' in text
    assert text.count("The mean of &lt;i&gt;X&lt;/i&gt;.</figcaption>") == 1
    order = [text.index(f'id="{i}"') for i in ("explore", "pictures", "panel-test-counts")]
    assert order == sorted(order) < [text.index('id="data-heading"')]
    assert main(["evidence", "all", *EVERYTHING, *QUICK, *PANELS]) == 0
    assert "panel-test-counts" in page.read_text()
    assert main(["report", "all", *EVERYTHING]) == 0
    assert "panel-test-counts" not in page.read_text()
    assert "panels" not in (folder / "all" / "config.yaml").read_text()


def test_a_conditional_model(folder, capsys):
    args = ["--model", "outside_models.Conditional"]
    stripes = ["--data", "outside_models.stripes", "--binarize", "none"]
    assert main(["svi", *args, *stripes, "--num-epochs", "2", *QUICK, "--out", "y"]) == 0
    assert main(["evidence", "y", *args, *stripes[:2], *QUICK, *PANELS]) == 0
    text = (folder / "y" / "report.html").read_text()
    assert "panel-test-counts" in text
    assert "The mean of" not in text  # which needs Q(z|X) of x alone
    assert {p.stem for p in (folder / "y" / "figures").iterdir()} >= {"training", "histogram"}
    np.save("x.npy", np.ones((5, 6), np.float32))
    capsys.readouterr()
    assert main(["evidence", "y", *args, "--data", "x.npy", *QUICK]) == 3
    assert "Conditional takes y, and these data have none" in capsys.readouterr().err


def test_a_model_without_a_guide(folder, capsys):
    module = importlib.import_module("outside_models")
    args = ["--model", "outside_models.Guideless"]
    shutil.copytree("run", "none")
    pv.save(module.Guideless(64), "none")
    config = {**yaml.safe_load(Path("none/config.yaml").read_text()), "model": args[1]}
    runs.write_config(Path("none"), {**config, "model_options": {}})
    assert main(["evidence", "none", *args, *QUICK]) == 2
    assert "needs a guide" in capsys.readouterr().err
    assert main(["evidence", "none", *args, "--rows", "5"]) == 0
    assert list(runs.load_evidence(Path("none")).estimates) == ["exact"]
    assert main(["report", "none", *args]) == 0
    assert "A Guideless" in (folder / "none" / "report.html").read_text()


@pytest.mark.parametrize(
    ("args", "again"),
    [
        (["evidence", "all", *EVERYTHING[:2], *QUICK], "likelihood outside_models.Leaky"),
        (["evidence", "all", *EVERYTHING[2:], *QUICK], "data outside_models.Stripes"),
        (["report", "all", *EVERYTHING[2:]], "data outside_models.Stripes"),
        (["svi", "--resume", "--out", "all", *TWICE, *EVERYTHING[:2]], "likelihood"),
        (["svi", "--resume", "--out", "all", *TWICE, *EVERYTHING[2:]], "data"),
        (
            ["svi", "--resume", "--out", "all", *EVERYTHING],
            "estimators importance outside_models.Twice",
        ),
    ],
)
def test_what_is_not_named_again(folder, args, again, capsys):
    assert main(args) == 2
    err = capsys.readouterr().err
    assert f"name it again: --{again}" in err


@pytest.mark.parametrize(
    "args",
    [
        ["evidence", "run", *QUICK],
        ["report", "run"],
        ["svi", "--resume", "--out", "run", *QUICK],
        ["svi", "--config", "run/config.yaml", "--out", "again"],
    ],
)
def test_no_code_is_imported_because_a_file_names_it(folder, args, capsys):
    assert main(args) == 2
    err = capsys.readouterr().err
    assert "no code is imported because a file names it" in err
    assert "name it again: --model outside_models.Mine" in err


def test_a_run_of_another_model_is_told(folder, capsys):
    assert main(["evidence", "run", "--model", "vae", *QUICK]) == 2
    assert "run holds a Mine, not a vae" in capsys.readouterr().err
    assert main(["evidence", *MINE, *QUICK]) == 2
    assert "--model is of a run; give its folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_that_has_not_imported_it(folder):
    code = "import pyrovae as pv; pv.load('run')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "no model named 'test-mine'" in done.stderr
    code = f"import outside_models; {code}"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    command = [sys.executable, "-m", "pyrovae", "evidence", "run", *MINE, "--rows", "150", *QUICK]
    for more in (["--dry-run"], ["--workers", "2"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([*MINE, "--model.z_dims", "3"], "has no option z_dims; did you mean z_dim?; it takes"),
        ([*MINE, "--hidden-dims", "3"], "has no option hidden_dims"),
        ([*MINE, "--model.z_dim", "x"], "--model.z_dim is 'x'; expected"),
        ([*MINE, "--model.z_dim"], "--model.z_dim needs a value"),
        (["--model", "outside_models.Nameless"], "no subclass of pyrovae.Model with a name of"),
        (
            ["--model", "outside_models.Forgetful", "--model.z_dim", "2"],
            "could not be loaded again: its configuration makes another",
        ),
        (["--model", "outside_models.Empty"], "outside_models.Empty has no model; give the class"),
        (
            ["--model", "outside_models.Unconfigured"],
            "missing 1 required positional argument: 'x_dim'); let config() say all",
        ),
        (["--model", "outside_models.Other"], "no subclass of pyrovae.Model with a name of"),
        (["--model", "nowhere_models.Mine"], "there is no module 'nowhere_models'"),
        (["--data", "outside_models.Mine"], "Mine is no pyrovae.data.DataSet, and no function"),
        (["--data", "outside_models.Nowhere"], "Nowhere is no pyrovae.data.DataSet, and no fun"),
        (["--estimators", "outside_models.Mine"], "is no subclass of pyrovae.Estimator with a"),
        (["--likelihood", "outside_models.Mine"], "is no subclass of pyrovae.likelihoods.Like"),
        (["--model", "conv-va"], "did you mean conv-vae"),
        (["--model", "linear-gaussian"], "the model linear-gaussian needs --model.z_dim"),
        (["--model.prior", "os.system"], "there is no prior named 'os.system'"),
        (
            ["--model", "vae", "--program", "a:b", "--model.z_dim", "3"],
            "give --program or --model",
        ),
    ],
)
def test_mistakes(folder, args, said, capsys):
    assert main(["svi", *args, "--out", "other"]) == 2
    err = capsys.readouterr().err
    assert said in err, err
    assert not (folder / "other" / "config.yaml").exists()


def test_options_of_the_vae_have_two_names(folder):
    short, long = (
        ["svi", "--num-epochs", "1", *QUICK, "--out", name, *options.split()]
        for name, options in (
            ("short", "--z-dim 2 --hidden-dims 3 --likelihood bernoulli"),
            ("long", "--model.z_dim 2 --model.hidden_dims 3"),
        )
    )
    assert main(short) == main(long) == 0
    assert runs.saved_sha256(folder / "short") == runs.saved_sha256(folder / "long")
    for name in ("config.yaml", "model.safetensors"):
        assert (folder / "short" / name).read_bytes() == (folder / "long" / name).read_bytes()


@pytest.mark.slow
def test_convolutions_on_the_command_line(folder, capsys):
    sizes = "--model conv-vae --model.channels 4 8 --z-dim 2 --binarize static".split()
    assert main(["svi", *sizes, *QUICK, "--num-epochs", "2", "--out", "conv"]) == 0
    assert main(["evidence", "conv", "--rows", "150", "--workers", "2", *QUICK]) == 0
    assert main(["svi", "--resume", "--out", "conv", "--num-epochs", "3", *QUICK]) == 0
    assert main(["report", "conv"]) == 0
    assert pv.load(folder / "conv").channels == (4, 8)
