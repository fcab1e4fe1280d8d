import diagrams
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.infer.inspect import get_model_relations

import pyrovae as pv
from pyrovae.program import relations


def named(nodes):
    return {n.name: n for n in nodes}


@pytest.mark.parametrize("program", diagrams.ALL, ids=lambda p: p.__name__)
def test_latent_parents_and_distributions_are_those_of_pyro(program):
    model, guide, data, plate = program()
    found = relations(model, guide, *data, plate=plate)
    for fn, nodes in ((model, found.model), (guide, found.guide)):
        theirs = get_model_relations(fn, data)
        ours = {n.name: n for n in nodes if n.kind != "given"}
        latent = {n.name for n in nodes if n.kind == "latent"}
        assert list(ours) == list(theirs["sample_sample"])
        for name, node in ours.items():
            assert set(node.parents) & latent == set(theirs["sample_sample"][name]), name
            assert node.fn == theirs["sample_dist"][name]
            inside = {p for p, sites in theirs["plate_sample"].items() if name in sites}
            assert set(node.plates) == inside
        observed = [n.name for n in nodes if n.kind == "observed"]
        assert observed == theirs["observed"]


def test_parameters_are_those_that_shape_a_site_directly():
    model, guide, data, _ = diagrams.two_sites()
    found = relations(model, guide, *data)
    shaped = {n.name: {p.split("$$$")[0] for p in n.parameters} for n in found.model}
    assert shaped == {"z2": set(), "z1": {"middle"}, "x": {"decoder"}}
    shaped = {n.name: {p.split("$$$")[0] for p in n.parameters} for n in found.guide}
    assert shaped == {"x": set(), "z1": {"below"}, "z2": {"above"}}
    assert found.numbers["decoder$$$weight"] == 10


def test_data_are_nodes_under_the_names_of_what_observes_them():
    model, guide, data, _ = diagrams.conditional()
    found = relations(model, guide, *data)
    assert named(found.model)["x"].parents == ("y", "z")
    assert named(found.model)["z"].parents == ()  # x.new_zeros has nothing of x
    assert named(found.model)["y"].kind == named(found.guide)["x"].kind == "given"
    assert named(found.guide)["z"].parents == ("x", "y")
    assert named(found.guide)["y"].plates == ("data",)


def test_an_argument_stands_in_the_plate_of_its_length():
    model, guide, data, _ = diagrams.global_latent()
    found = relations(model, guide, *data, plate=None)
    assert named(found.model)["x"].plates == ("data",)
    assert named(found.model)["w"].plates == ()
    assert found.sizes == {"data": 50}


def test_an_argument_stands_outside_a_plate_of_another_length():
    def model(x, shift):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("features", 2):
            a = pyro.sample("a", dist.Normal(shift.mean(), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m + a.sum(), 1.0), obs=x)

    found = relations(model, None, torch.randn(9), torch.randn(9), plate=None)
    assert named(found.model)["shift"].plates == ()


def test_deterministic_sites_are_passed_through():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            y = pyro.deterministic("y", 2 * z)
            pyro.sample("x", dist.Normal(y, 1.0), obs=x)

    found = relations(model, None, torch.randn(9))
    assert [n.name for n in found.model] == ["z", "x"]
    assert named(found.model)["x"].parents == ("z",)
    assert found.guide == ()


def test_an_observed_part_that_another_is_drawn_from():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("first", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("second", dist.Normal(z + x[:, 0], 1.0), obs=x[:, 1])

    found = relations(model, None, torch.randn(9, 2))
    assert named(found.model)["second"].parents == ("first", "z")


def test_the_plate_counts_all_data_and_modules_stay_as_they_are():
    model, guide, data, _ = diagrams.vae()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert relations(model, guide, *data).sizes == {"data": 359}
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(pyro.get_param_store().keys())
    for p in model.__self__.parameters():
        assert type(p) is torch.nn.Parameter
        assert p.grad is None


def test_the_parameters_of_an_autoguide():
    linear = pv.LinearGaussian(x_dim=4, z_dim=2)
    found = relations(linear.model, AutoNormal(linear.model), torch.randn(20, 4))
    node = named(found.guide)["z_unconstrained"]
    assert node.parameters == ("AutoNormal.locs.z", "AutoNormal.scales.z")
    assert found.numbers["AutoNormal.locs.z"] == 40


def test_a_net_that_pyro_does_not_know_shapes_nothing():
    net = torch.nn.Linear(1, 1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    assert named(relations(model, None, torch.randn(9, 1)).model)["x"].parameters == ()


def test_a_program_that_cannot_be_used_is_refused():
    model, _, data, _ = diagrams.vae()
    with pytest.raises(ValueError, match="guide misses latent site 'z'"):
        relations(model, lambda x: None, *data)
    with pytest.raises(TypeError, match="give tensors"):
        relations(model, None, [1, 2])
