"""Ways of batching rows and of running particles: each gives the program's own densities."""

from dataclasses import replace

import pytest
import torch
from scenarios import LinearGaussian

from pyrovae.program import evaluation, inspect
from pyrovae.program.batching import AllRows, Slices, Subsamples
from pyrovae.program.particles import AsRows, OneByOne, SharedDraws, Vectorized

N, S = 5, 2
X = torch.arange(2.0 * N).reshape(N, 2)  # rows that tell themselves


def seen(batching, rows):
    """The first column of what a program is called with."""
    return batching.arguments(rows)[0][:, 0].tolist()


@pytest.mark.parametrize(
    ("batching", "size", "blocks"),
    [
        (Slices((X,), 4), 3, [range(3), range(3, 5)]),
        (Subsamples((X,), 2, "data"), 3, [range(2), range(2, 4), range(4, 5)]),
        (AllRows((X,), N), 3, [range(5)]),
    ],
)
def test_blocks_cover_all_rows(batching, size, blocks):
    assert batching.blocks(size) == blocks
    assert len(batching) == batching.num_data == N


def test_slices_are_what_they_say():
    batching = Slices((X,), 4)
    assert seen(batching, range(1, 3)) == [2, 4]
    part = batching.holding(range(2, 5))
    assert (len(part), part.num_data, part.held_rows) == (3, N, range(2, 5))
    assert seen(part, range(3, 5)) == [6, 8]
    assert seen(part.select([4, 2]), range(2)) == [8, 4]
    assert seen(part.padded(range(3, 5)), range(4)) == [6, 8, 8, 8]
    assert seen(part.repeated(range(3, 5), 2), range(4)) == [6, 8, 6, 8]


def test_only_slices_select():
    for batching in (Subsamples((X,), 2, "data"), AllRows((X,), N)):
        assert not batching.selects
        assert batching.holding(range(2)) is batching.padded(range(2)) is batching
        with pytest.raises(TypeError, match="takes its rows together"):
            batching.select([0])


@pytest.fixture
def program():
    scenario = LinearGaussian.make()
    return inspect(scenario.model, scenario.mean_field, scenario.data(N))


@pytest.mark.parametrize("particles", [SharedDraws(), AsRows("why"), OneByOne("why")])
def test_particles_have_the_same_densities_in_any_way(program, particles):
    rows, other = range(1, 4), replace(program, particles=particles)
    with evaluation():
        z, log_q = program.propose(rows, S)
        for density in ("log_joint", "log_guide", "log_prior"):
            ours, theirs = (getattr(p, density)(z, rows, S) for p in (other, program))
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(other.log_guide(z, rows, S), log_q)
        z, log_q = other.propose(rows, S)
        assert z["z"].shape == (S, 3, 2)
        torch.testing.assert_close(program.log_guide(z, rows, S), log_q)
        assert other.log_likelihood(rows, S).shape == log_q.shape
        assert other.propose_prior(rows, S)["z"].shape == (S, 3, 2)


def test_rows_that_share_draws_come_in_large_blocks(program):
    assert program.blocks(2) == [range(2), range(2, 4), range(4, 5)]
    shared = program.sharing()
    assert shared.blocks(2) == [range(N)]
    assert shared.unshared().particles == program.unshared().particles == Vectorized()
    one = replace(program, particles=OneByOne("why"))
    assert one.unshared() is one


def test_a_program_without_data_is_the_same_program(program):
    bare = program.without_data()
    assert bare.data == ()
    assert replace(bare, batching=program.batching).log_joint(
        program.propose_one(range(N)), range(N), None
    ).shape == (N,)
