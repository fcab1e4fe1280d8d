"""What all of a kind have in common, from the registries: a new one is tested by existing."""

import ast
import copy
import dataclasses
import inspect
import json
import re
from importlib import import_module
from math import isfinite
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from pyro.optim import Adam
from scenarios import LinearClasses, LinearGaussian, Mixture
from scipy import stats
from torch import log_softmax

import pyrovae as pv
from pyrovae import likelihoods
from pyrovae.checks import may_be_missing
from pyrovae.data import DataError, DataSet, Split, Splits
from pyrovae.data.base import sets
from pyrovae.errors import NoDensity
from pyrovae.evidence import estimators
from pyrovae.evidence.estimators.base import Estimator, known
from pyrovae.evidence.estimators.names import kind
from pyrovae.models import base
from pyrovae.models.base import Decodes, Encodes, HasPrior, Samples, named
from pyrovae.program import check_density, log_weights
from pyrovae.svi import objectives

ROOT = Path(pv.__file__).parent
for package in (pv.models, pv.data, estimators, pv.svi):
    for module in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")


def ours(classes):
    """Those of the package, in order: other test modules may have defined their own by now."""
    found = {c.name: c for c in classes if c.__module__.startswith("pyrovae.")}
    return [pytest.param(found[name], id=name) for name in sorted(found)]


MODELS = ours(base._known.values())
ESTIMATORS = ours(known().values())
OBJECTIVES = ours(objectives.known.values())
LIKELIHOODS = ours(likelihoods.families.values())
ALIKE = [c for c in LIKELIHOODS if c.id != "columns"]  # that is of columns, see test_columns.py
SETS = ours(sets.values())


def documented():
    """The functions that `pyrovae` itself or the reference names, by those names."""
    page = (ROOT.parent / "docs" / "api.md").read_text()
    names = [name for name in pv.__all__ if inspect.isfunction(getattr(pv, name))]
    found = {f"pyrovae.{name}": getattr(pv, name) for name in names}
    for path in re.findall(r"autofunction:: (\S+)", page):
        home, _, name = path.rpartition(".")
        found[path] = getattr(import_module(home), name)
    return {fn: name for name, fn in found.items()}  # each once


def parameters(fn):
    return list(inspect.signature(fn).parameters.values())


FUNCTIONS = [pytest.param(fn, id=name) for fn, name in documented().items()]
OF_PROGRAMS = [f for f in FUNCTIONS if [p.name for p in parameters(*f.values)][:1] == ["model"]]


def says(thing, *patterns):
    doc = inspect.getdoc(thing)
    missing = [p for p in patterns if not re.search(p, doc or "", re.M)]
    assert not missing, f"the docstring of {thing.__name__} says nothing like {missing}"


FORMULA, SHAPE, UNIT, SOURCE = (
    r"^\.\. math::$",
    r"`\([SNGKnk.D\d][^`]*\)`",
    r"\bnats\b",
    r"^References:$",
)


# functions


@pytest.mark.parametrize("fn", FUNCTIONS)
def test_functions_are_typed_and_described(fn):
    assert inspect.signature(fn).return_annotation is not inspect.Signature.empty
    untyped = [p.name for p in parameters(fn) if p.annotation is p.empty]
    assert not untyped
    says(fn, r"\A(Returns|Writes|Prints|Fits|Finds|Draws) ")
    if len(parameters(fn)) > 1:
        says(fn, *(rf"^ .*\b{p.name}\b.*: " for p in parameters(fn)))


@pytest.mark.parametrize("fn", OF_PROGRAMS)
def test_functions_of_programs_begin_alike(fn):
    """`f(model, guide, *data, <options by keyword>)`, with no `guide` where none is used."""
    first = [p.name for p in parameters(fn) if p.kind is not p.KEYWORD_ONLY]
    first = first[:-1] if parameters(fn)[-1].kind is inspect.Parameter.VAR_KEYWORD else first
    if "data" not in [p.name for p in parameters(fn)]:
        return  # of a Model, which says itself what it takes of a split
    assert first in (["model", "guide", "data"], ["model", "data"])
    given = [p for p in parameters(fn) if p.kind is p.KEYWORD_ONLY]
    if fn is log_weights:
        return  # a part of a step of training, which draws from the stream that it is on
    assert "guide" not in first or "guide" not in [p.name for p in given]
    if {"num_particles", "num_samples"} & {p.name for p in given} or "estimators" in str(given):
        (seed,) = [p for p in given if p.name == "seed"]
        assert (seed.default, seed.annotation) == (None, int | None)


def test_no_function_has_many_parameters():
    many = set()
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                a = node.args
                names = {p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)}
                if len(names - {"self", "cls"}) + (a.vararg is not None) > 8:
                    home = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                    many.add(f"{home}.{node.name}")
    assert not many, f"more than eight parameters: {many}"


# models


def splits():
    torch.manual_seed(1)
    x, y = torch.bernoulli(torch.full((30, 6), 0.4)), torch.arange(30) % 3
    part = Split(x, y)
    return Splits(part, part, part, (2, 3), None, {})


def no_log_p(model, data):
    """Whether a model observes nothing, as an autoencoder: no number is to be had of it."""
    try:
        check_density(model.model, *data)
    except NoDensity:
        return True
    return False


def made(cls):
    """A model for data, with what it must be told besides, and its data."""
    takes = parameters(cls.for_data)[1:]
    if cls.for_data.__func__ is base.Model.for_data.__func__:
        takes = [p for p in parameters(cls) if p.name != "x_dim"]
    plain = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = [p.name for p in takes if p.default is p.empty and p.kind not in plain]
    data = splits()
    model = cls.for_data(data, **dict.fromkeys(needed, 2))
    arrays = cls.arrays(data.test)
    for i in may_be_missing(model.model):
        arrays[i][i::2] = torch.nan if arrays[i].is_floating_point() else -1
    return model, arrays


@pytest.mark.parametrize("cls", MODELS)
def test_models_are_documented_programs(cls):
    says(cls, FORMULA, SHAPE, UNIT, SOURCE, r"^Args:$", r"^Example:$")
    assert named(cls.name) is cls
    for program in filter(None, (cls.model, cls.guide)):
        says(program, r"plated over the data")
        assert [p.name for p in parameters(program)[1:]] == list(cls.inputs)


def sums(model, *data):
    """Whether a latent asks Pyro to sum it out, for which it has an ELBO of its own."""
    sites = pyro.poutine.trace(model.model).get_trace(*data).nodes.values()
    return any("enumerate" in s["infer"] for s in sites if s["type"] == "sample")


@pytest.mark.parametrize("cls", MODELS)
def test_models_train_under_pyro(cls):
    """Its own SVI moves every parameter, also of the second model of a process; floats stay so."""
    for _ in range(2):
        model, data = made(cls)
        assert pv.check(model.model, model.guide, *data).ok != no_log_p(model, data)
        before = copy.deepcopy(dict(model.named_parameters()))
        guide = model.guide or (lambda *data: None)
        loss = TraceEnum_ELBO(max_plate_nesting=1) if sums(model, *data) else Trace_ELBO()
        assert isfinite(SVI(model.model, guide, Adam({"lr": 0.1}), loss).step(*data))
        assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] == []
    data = [d.float() if d.is_floating_point() else d for d in data]
    trace = pyro.poutine.trace(model.float().model).get_trace(*data)
    trace.compute_log_prob()
    assert {trace.nodes[s]["log_prob"].dtype for s in trace.observation_nodes} == {torch.float32}


@pytest.mark.parametrize("cls", MODELS)
def test_models_come_back(cls, tmp_path):
    model, data = made(cls)
    config = model.config()
    assert json.loads(json.dumps(config)) == config
    with torch.device("meta"):
        bare = cls.from_config(config)
    assert {p.device.type for p in bare.parameters()} == {"meta"}
    again = cls.from_config(config)
    assert again.config() == config
    again.load_state_dict(model.state_dict())
    pv.save(model, tmp_path)
    if no_log_p(model, data):
        assert torch.equal(pv.load(tmp_path).reconstruct(*data), model.reconstruct(*data))
        return
    asked = {} if model.guide else {"estimators": "exact"}
    tables = [
        pv.evaluate(m.model, m.guide, *data, num_particles=3, seed=0, **asked)
        for m in (model, again, pv.load(tmp_path))
    ]
    for e in tables[0].estimates:
        assert torch.equal(tables[0][e].value, tables[1][e].value)
        assert torch.equal(tables[0][e].value, tables[2][e].value)


@pytest.mark.parametrize("cls", MODELS)
def test_models_can_do_what_they_say(cls):
    model, (x, *_) = made(cls)
    if isinstance(model, HasPrior):
        prior = model.prior(x)
        assert prior.batch_shape == (30,)
        if isinstance(model, Encodes):
            assert model.encode(x).event_shape == prior.event_shape
            assert model.encode(x).batch_shape == (30,)
        if isinstance(model, Decodes):
            p = model.decode(prior.expand((5, 30)).sample())
            assert (p.batch_shape, p.event_shape) == ((5, 30), (6,))
    if isinstance(model, Samples):
        one, other = model.sample(7, seed=0), model.sample(7, seed=0)
        assert torch.equal(one, other)
        assert one.shape == (7, 6)
        assert not torch.equal(one, model.sample(7, seed=1))


# likelihoods


@pytest.mark.parametrize("cls", LIKELIHOODS)
def test_likelihoods_are_documented_families(cls):
    says(cls, FORMULA, UNIT, SOURCE)
    says(cls.forward, SHAPE)
    given = {"columns": [{"name": "age", "kind": "real"}]} if cls.name == "columns" else {}
    family = likelihoods.make(cls.name, **given)
    assert type(family) is type(likelihoods.make(cls, **given)) is cls
    assert likelihoods.make(family) is family
    config = family.config()
    assert list(config) == [p.name for p in parameters(cls) if "args" not in p.name]
    assert json.loads(json.dumps(config)) == config
    assert likelihoods.make(cls.name, **config).config() == config


def of_levels(x, loc, log_scale):
    up, low = (stats.logistic.cdf((x + h - loc) / log_scale.exp()) for h in (1 / 510, -1 / 510))
    return np.log(np.where(x == 1, 1, up) - np.where(x == 0, 0, low))


OF_PIXELS = {  # log P(x) of decoder outputs, as another library has it
    "bernoulli": lambda x, f: stats.bernoulli.logpmf(x, f.sigmoid()),
    "continuous-bernoulli": lambda x, f: torch.distributions.ContinuousBernoulli(
        logits=f
    ).log_prob(x),
    "normal": lambda x, f: stats.norm.logpdf(x, f),
    "student-t": lambda x, f: stats.t.logpdf(x, 4, f),
    "log-normal": lambda x, f: stats.lognorm.logpdf(x, 1, scale=f.exp()),
    "beta": lambda x, f, c: stats.beta.logpdf(
        x, *(m / ((-c).exp() + 1e-4) for m in (f.sigmoid(), (-f).sigmoid()))
    ),
    "poisson": lambda x, f: stats.poisson.logpmf(x, f.exp()),
    "negative-binomial": lambda x, f, r: stats.nbinom.logpmf(x, r.exp(), (r - f).sigmoid()),
    "binomial": lambda x, f: stats.binom.logpmf(x, 255, f.double().sigmoid()),
    "categorical": lambda x, *f: log_softmax(torch.stack(f), 0).gather(
        0, x.long().expand(1, *f[0].shape)
    )[0],
    "discretized-logistic": of_levels,
}


@pytest.mark.parametrize("cls", ALIKE)
def test_likelihoods_sum_what_others_say_over_pixels(cls):
    family, f = likelihoods.make(cls.name), torch.randn(2, 5, cls.outputs * 3, requires_grad=True)
    p = family(f)
    assert (p.batch_shape, p.event_shape) == ((2, 5), (3,))
    x = p.sample()[0]  # (5, 3)
    one = f.detach().unflatten(-1, (family.outputs, 3)).movedim(-2, 0)  # (outputs, 2, 5, 3)
    theirs = torch.as_tensor(OF_PIXELS[cls.name](x, *one)).sum(-1)
    torch.testing.assert_close(p.log_prob(x), theirs)
    p.log_prob(x).sum().backward()
    for given in (f, *family.parameters()):
        assert given.grad.isfinite().all()
    mean = x.float().mean(0).clamp(0.2, 0.8)
    assert family.start(mean).shape == (cls.outputs * 3,)


@pytest.mark.parametrize("cls", ALIKE)
def test_likelihoods_refuse_other_data(cls):
    p = likelihoods.make(cls.name)(torch.zeros(4, cls.outputs * 3))
    candidates = [torch.full((4, 3), v) for v in (0.5, -1.0, torch.nan)]
    other = next(x for x in candidates if not p.support.check(x).all())
    with pytest.raises(ValueError, match="support"):
        p.log_prob(other)
    vae = pv.VAE(3, 2, (2,), likelihood=cls.name)
    other = torch.where(other.isnan(), torch.inf, other)  # NaN is missing in data of a VAE
    assert not pv.check(vae.model, vae.guide, other).ok
    with pytest.raises(ValueError, match=r"\bx\b.* at row 0, column 0"):
        pv.svi.fit(vae.model, vae.guide, other, num_epochs=1, progress=False)


# estimators


def programs():
    """A program whose guide is its posterior, and one without continuous latents."""
    one, other = LinearGaussian.make(x_dim=3, z_dim=1), Mixture()
    return [
        (one.model, one.exact, one.data(6), one.log_evidence(one.data(6))),
        (other.model, other.no_guide, other.data(6), other.log_evidence(other.data(6))),
    ]


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_estimators_hold_their_options(cls):
    says(cls, FORMULA, SHAPE, UNIT, SOURCE)
    assert kind(cls.name) is kind(f"{cls.name}_2") is cls
    assert cls.__dataclass_params__.frozen
    e = cls()
    assert cls.of({}) == e == eval(repr(e), {cls.__name__: cls})
    assert hash(e) == hash(cls())
    assert len(repr(e)) < 200
    assert set(cls.keywords.values()) <= {f.name for f in dataclasses.fields(cls)}
    json.dumps(e.options())


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_estimators_have_the_same_verbs(cls):
    """What one does in its own way it does of the same arguments."""
    for name, verb in vars(Estimator).items():
        own = inspect.getattr_static(cls, name, None)
        if own is not verb and inspect.isroutine(verb) and not name.startswith("_"):
            assert type(own) is type(verb), name
            here, there = (parameters(getattr(c, name)) for c in (cls, Estimator))
            assert [p.name for p in here] == [p.name for p in there], name
            says(getattr(cls, name), r"\ARe(turns|ads) ")


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_estimators_find_a_known_answer(cls):
    """Per datum, in nats, float64, the same bytes for a seed: where the guide is the posterior."""
    refused = []
    for model, guide, x, truth in programs():
        try:
            e = pv.evaluate(model, guide, x, estimators=[cls()], seed=0)[cls.name]
        except ValueError as error:
            refused.append(error)
            continue
        assert e.value.shape == e.std_error.shape == e.num_draws.shape == (6,)
        assert e.value.dtype == torch.float64
        torch.testing.assert_close(e.value, truth, atol=0.05, rtol=0)
        assert len(e.verdict()) == 6
        tables = [cls()(model, guide, x, seed=0) for _ in "ab"]
        one, other = (t if torch.is_tensor(t) else t.log_evidence() for t in tables)
        torch.testing.assert_close(one, truth, atol=0.05, rtol=0)
        assert torch.equal(one, other)
    assert len(refused) < 2, refused


# objectives and data sets


@pytest.mark.parametrize("cls", OBJECTIVES)
def test_objectives_have_a_value_for_each_datum(cls):
    """Of the exact guide, that of whatever bounds log p(x)."""
    says(cls, FORMULA, SHAPE, UNIT, SOURCE)
    assert cls.__dataclass_params__.frozen
    for name in ("per_datum", "loss", "graph_loss", "prepared"):
        here, there = (parameters(getattr(c, name)) for c in (cls, pv.Objective))
        assert [p.name for p in here] == [p.name for p in there]
    assert objectives.objective_of(cls.name) == cls() == eval(repr(cls()), {cls.__name__: cls})
    known = LinearGaussian.make(x_dim=3, z_dim=1)
    data = (known.data(6),)
    if cls.name == "semi-supervised":  # it is of programs with a class
        known = LinearClasses()
        data = known.data(6)
    value = cls().per_datum(known.model, known.exact, *data)
    torch.testing.assert_close(value, known.log_evidence(data[0]))
    torch.testing.assert_close(cls().loss(known.model, known.exact, *data), -value.sum())
    torch.testing.assert_close(cls().graph_loss(known.model, known.exact, *data), -value.sum())


@pytest.mark.parametrize("cls", SETS)
def test_data_sets_are_read_or_missed_by_name(cls, tmp_path):
    says(cls, SHAPE, SOURCE)
    assert [p.name for p in parameters(cls.read)] == [p.name for p in parameters(DataSet.read)]
    assert cls().label == cls.name
    try:
        splits = pv.data.load(cls.name, root=tmp_path)
    except DataError as e:
        told = str(e)
    else:
        told, x = str(tmp_path), splits.test.x[:]
        assert (x.dtype, x.ndim) == (torch.float32, 2)
        assert splits.image_shape == cls.image_shape
        assert splits.protocol["data"] == cls.name
    assert str(tmp_path) in told  # where it is not there, where it was looked for


# results


def test_results_are_frozen_and_short():
    model, guide, x, _ = programs()[0]
    splits = pv.data.load("digits")
    vae = pv.VAE(3, 1, (2,), likelihood="normal")
    results = [
        pv.check(model, guide, x),
        pv.importance_sampling(model, guide, x, num_particles=20, seed=0),
        pv.bdmc(model, x, guide=guide, num_temperatures=3, seed=0),
        pv.calibrate(model, guide, x, num_samples=9, num_temperatures=3, seed=0),
        pv.svi.fit(vae.model, vae.guide, x, num_epochs=1, seed=0, progress=False),
        evidence := pv.evaluate(model, guide, x, num_particles=20, seed=0),
        *evidence.estimates.values(),
        splits,
        splits.train,
    ]
    for result in results:
        assert type(result).__dataclass_params__.frozen, type(result)
        assert len(repr(result)) < 2_000, type(result)
        assert "tensor(" not in repr(result)
    for name in pv.__all__:
        cls = getattr(pv, name)
        if dataclasses.is_dataclass(cls):
            assert cls.__dataclass_params__.frozen, name
