"""What is saved comes back as it was, or is refused."""

import os

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from scenarios import LinearGaussian

import pyrovae as pv
from pyrovae import runs
from pyrovae.models import base
from pyrovae.storage import StateError


def small(**changes):
    torch.manual_seed(0)
    return pv.VAE(**{"x_dim": 3, "z_dim": 2, "hidden_dims": (4,), **changes})


class OtherPrior(pv.VAE):
    def prior(self, x):
        return dist.Normal(x.new_full((len(x), self.z_dim), 3.0), 0.1).to_event(1)


def replaced_decoder():
    vae = small()
    vae.decoder = torch.nn.Linear(2, 3)
    return vae


def another_activation():
    vae = small()
    vae.decoder[1] = torch.nn.ReLU()
    return vae


def a_dropout_more():
    vae = small()
    vae.encoder.net.append(torch.nn.Dropout(0.5))
    return vae


def own_prior():
    vae = small()
    vae.prior = lambda x: dist.Normal(x.new_ones(len(x), 2), 1.0).to_event(1)
    return vae


def a_hook():
    vae = small()
    vae.decoder.register_forward_hook(lambda *a: 2 * a[-1])
    return vae


class Tempered(pv.likelihoods.Likelihood):
    name = "tempered"

    def __init__(self):
        super().__init__()
        self.temperature = 1.0

    def forward(self, f):
        return dist.Bernoulli(logits=f / self.temperature).to_event(1)


def forgetful_likelihood():
    vae = small(likelihood=Tempered)
    vae.likelihood.temperature = 2.0
    return vae


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: OtherPrior(3, 2, (4,)), "its class is not VAE but OtherPrior"),
        (replaced_decoder, "its configuration makes another"),
        (another_activation, "its decoder is not the one"),
        (a_dropout_more, "its encoder is not the one"),
        (own_prior, "its prior was replaced"),
        (a_hook, "its decoder is not the one"),
        (forgetful_likelihood, "its likelihood is not the one"),
    ],
)
def test_a_vae_that_could_not_be_loaded_is_refused(make, why, tmp_path):
    with pytest.raises(ValueError, match=rf"could not be loaded again: {why}.*pv.save\(\(m.model"):
        pv.save(make(), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_vae_of_earlier_versions_is_loaded(tmp_path):
    vae = small()
    old = {"class": "VAE", "config": vae.config(), "weights": vae.state_dict(), "facts": {}}
    pv.storage.save_state(tmp_path / runs.MODEL, old)
    assert torch.equal(pv.load(tmp_path).decoder[0].weight, vae.decoder[0].weight)


class Wide(pv.VAE):
    """Another prior, with a parameter of its own, known by its name."""

    name = "test-wide"

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.log_width = torch.nn.Parameter(torch.tensor(1.0))

    def prior(self, x):
        return dist.Normal(x.new_zeros(len(x), self.z_dim), self.log_width.exp()).to_event(1)


def test_a_model_of_your_own_comes_back(tmp_path, monkeypatch):
    wide = Wide(x_dim=3, z_dim=2, likelihood="normal")
    with torch.no_grad():
        wide.log_width.fill_(0.3)
    pv.save(wide, tmp_path)
    again = pv.load(tmp_path)
    assert type(again) is Wide
    assert again.log_width.item() == wide.log_width.item()
    assert again.config() == wide.config()
    monkeypatch.delitem(base._known, "test-wide")  # as where its module was not imported
    with pytest.raises(StateError, match=r"no model named 'test-wide'.*once its module is imp"):
        pv.load(tmp_path)


def test_the_oracle_comes_back(tmp_path):
    for sigma in (None, 0.5):
        oracle = pv.LinearGaussian(4, 2, sigma)
        pv.save(oracle, tmp_path)
        x = torch.randn(5, 4)
        assert torch.equal(pv.load(tmp_path).log_evidence(x), oracle.log_evidence(x))


def test_a_model_that_is_larger_than_its_file_is_not_made(tmp_path):
    class Padded(pv.Model):
        name = "test-padded"

        def __init__(self, n=1, layers=1):
            super().__init__()
            self.pad = torch.zeros(n)
            self.nets = [torch.nn.Linear(1, 1) for _ in range(layers)]

        def model(self, x):
            pass

    for config, why in (
        ({"n": 10**11}, "a tensor of 100,000,000,000 numbers, and 0 are there"),
        ({"layers": 10**6}, "more layers than there are weights"),
    ):
        state = {"class": "model", "name": "test-padded", "config": config, "weights": {}}
        pv.storage.save_state(tmp_path / runs.MODEL, state)
        with pytest.raises(StateError, match=f"no Padded that can be made: it has {why}"):
            pv.load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
def test_a_vae_comes_back_as_it_was(likelihood, dtype, tmp_path):
    vae = small(likelihood=likelihood).to(dtype)
    vae.note = "kept by nobody, and no matter"
    stream = torch.get_rng_state()
    pv.save(vae, tmp_path)
    assert torch.equal(torch.get_rng_state(), stream)
    x = torch.ones(4, 3, dtype=dtype)
    again = pv.load(tmp_path)
    options = {"num_particles": 7, "seed": 0}
    one, other = (pv.importance_sampling(v.model, v.guide, x, **options) for v in (vae, again))
    assert torch.equal(one.log_w, other.log_w)
    assert not again.training


def test_what_was_refused_is_saved_as_a_program(tmp_path):
    x = torch.ones(4, 3)
    for i, make in enumerate([lambda: OtherPrior(3, 2, (4,)), replaced_decoder]):
        vae, again = make(), make()
        with torch.no_grad():
            for p in vae.parameters():
                p.add_(0.1)
        pv.save((vae.model, vae.guide), tmp_path / str(i), x)
        pv.load(tmp_path / str(i), (again.model, again.guide), x)
        for (name, one), (_, other) in zip(
            vae.named_parameters(), again.named_parameters(), strict=True
        ):
            assert torch.equal(one, other), name


class Net(torch.nn.Module):
    """Batch statistics, a frozen layer, and a buffer that is never called."""

    def __init__(self):
        super().__init__()
        self.frozen = torch.nn.Linear(3, 3).requires_grad_(False)
        self.norm = torch.nn.BatchNorm1d(3, affine=False)
        self.out = torch.nn.Linear(3, 2)
        self.register_buffer("shift", torch.randn(2))

    def forward(self, x):
        return self.out(self.norm(self.frozen(x)))


def functions():
    net, scaler = Net(), torch.nn.Module()
    scaler.register_buffer("mean", torch.randn(3))

    def model(x):
        width = pyro.param("width", torch.rand(()) + 0.5, constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            loc = z.sum(-1, keepdim=True) + scaler.mean
            pyro.sample("x", dist.Normal(loc, width).to_event(1), obs=x)

    def guide(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x) + net.shift, 0.3).to_event(1))

    return model, guide


def pyro_modules():
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = PyroModule[torch.nn.Linear](2, 3)
            self.width = PyroParam(torch.rand(()) + 0.5, dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.linear(z), self.width).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = PyroModule[torch.nn.Linear](3, 2)
            self.norm = torch.nn.BatchNorm1d(2)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.norm(self.net(x)), 0.3).to_event(1))

    return Model(), Guide()


def autoguide():
    model = functions()[0]
    return model, AutoNormal(model, init_scale=0.3)


def listed_autoguides():
    def model(x):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + a, 1.0).to_event(1), obs=x)

    guide = AutoGuideList(model)
    guide.append(AutoNormal(pyro.poutine.block(model, hide=["a"])))
    guide.append(AutoNormal(pyro.poutine.block(model, expose=["a"])))
    return model, guide


def bayesian():
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.linear = PyroModule[torch.nn.Linear](3, 1)
            self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))

        def forward(self, x):
            loc = self.linear(x).squeeze(-1)
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(loc, 1.0), obs=x[:, 0])

    model = Model()
    return model, AutoNormal(model)


def linear():
    oracle = pv.LinearGaussian(3, 2, sigma=None)
    return oracle.model, oracle.guide


pytestmark = pytest.mark.filterwarnings("ignore:frozen.* was not registered")  # Pyro tells of it
PROGRAMS = [functions, pyro_modules, autoguide, listed_autoguides, bayesian, linear]


@pytest.mark.parametrize("make", PROGRAMS)
def test_a_program_made_anew_is_as_it_was(make, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(20, 3)
    pair = make()
    pv.svi.fit(*pair, x, num_epochs=3, batch_size=20, lr=0.1, seed=0, progress=False)

    def loss(model, guide):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            for fn in (model, guide):
                if isinstance(fn, torch.nn.Module):
                    fn.eval()
            return pyro.infer.Trace_ELBO(num_particles=5).loss(model, guide, x)

    pv.save(pair, tmp_path, x)
    with pyro.validation_enabled(False):
        before = loss(*pair)
        pyro.clear_param_store()
        torch.manual_seed(7)
        fresh = make()
        unlike = loss(*fresh)
        loaded = pv.load(tmp_path, fresh, x)
        assert loaded == fresh
        assert before != unlike
        assert loss(*fresh) == before
    pyro.clear_param_store()


def test_batch_statistics_frozen_weights_and_bare_buffers_are_among_them(tmp_path):
    pair = functions()
    x = torch.randn(20, 3)
    pv.svi.fit(*pair, x, num_epochs=2, seed=0, progress=False)
    pv.save(pair, tmp_path, x)
    state = pv.storage.load_state(tmp_path / runs.MODEL)
    assert set(state["parameters"]) == {"width", "net$$$out.weight", "net$$$out.bias"}
    assert {k.partition(".")[2] for k in state["buffers"]} == {
        "mean", "shift", "frozen.weight", "frozen.bias",
        "norm.running_mean", "norm.running_var", "norm.num_batches_tracked",
    }  # fmt: skip
    assert state["buffers"]["Net.norm.running_mean"].abs().sum() > 0
    pyro.clear_param_store()


def test_saving_and_loading_move_nothing_else(tmp_path):
    pair, x = functions(), torch.randn(20, 3)
    net = pair[1].__closure__[0].cell_contents
    pv.svi.fit(*pair, x, num_epochs=1, seed=0, progress=False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    stream = torch.get_rng_state()
    pv.save(pair, tmp_path, x)
    pv.load(tmp_path, pair, x)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)
    assert net.training
    pyro.clear_param_store()


def test_another_program_is_refused(tmp_path):
    x = torch.randn(10, 3)
    pair = linear()
    pv.save(pair, tmp_path, x)
    pair[0].__self__.decoder.weight.data += 1
    for other in (pv.LinearGaussian(3, 1), pv.LinearGaussian(3, 2), small(likelihood="normal")):
        with pytest.raises(StateError, match="are not those of this program: .*LinearGaussian"):
            pv.load(tmp_path, (other.model, other.guide), x)
    single = pv.LinearGaussian(3, 2, sigma=None).float()
    with pytest.raises(StateError, match="float64 .3,. for float32 .3,."):
        pv.load(tmp_path, (single.model, single.guide), x.float())
    with pytest.raises(StateError, match=r"holds a 'program', not a model; give the program too"):
        pv.load(tmp_path)
    pv.save(small(), tmp_path / "vae")
    with pytest.raises(StateError, match=r"holds a 'model', not a program; load it with"):
        pv.load(tmp_path / "vae", pair, x)


def test_mistakes_are_told(tmp_path):
    oracle = LinearGaussian.make()
    with pytest.raises(TypeError, match="was given a Linear; give a Model, or a pair"):
        pv.save(torch.nn.Linear(2, 2), tmp_path)
    with pytest.raises(TypeError, match="give its data after it"):
        pv.save((oracle.model, oracle.exact), tmp_path)
    pv.save((oracle.model, None), tmp_path, oracle.data(3))
    with pytest.raises(TypeError, match="give its data after it"):
        pv.load(tmp_path, (oracle.model, None))
    assert os.listdir(tmp_path) == [runs.MODEL]


def test_two_tensors_of_one_name_are_refused(tmp_path):
    nets = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def program(net):
        def model(x):
            pyro.module("net", net)
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(net(x), 1.0).to_event(1), obs=x)

        return model

    x = torch.randn(4, 3)
    program(nets[0])(x)  # as Pyro's own SVI leaves it, in the global store
    with pytest.raises(ValueError, match=r"two tensors go by the name 'net\$\$\$weight'"):
        pv.save((program(nets[1]), None), tmp_path, x)
    pyro.clear_param_store()
    pv.save((program(nets[1]), None), tmp_path, x)
