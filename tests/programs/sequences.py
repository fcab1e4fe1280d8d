"""Sequences of unequal lengths: hidden Markov models summed out, deep Markov models sampled."""

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta
from pyro.ops.indexing import Vindex
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from programs.answers import axis, forward
from programs.cases import case
from programs.nets import mlp

ARGS = SimpleNamespace(hidden_dim=2)
LENGTHS = torch.tensor([4, 1, 3, 2, 4])
TONES = 2
FORWARD = "the forward algorithm"


def music():
    return torch.bernoulli(torch.full((len(LENGTHS), 4, TONES), 0.4)), LENGTHS


def probabilities(hidden, *shape):
    """Priors of transition and emission probabilities, as Pyro's example has them but milder."""
    probs_x = pyro.sample("probs_x", dist.Dirichlet(0.9 * torch.eye(hidden) + 1).to_event(1))
    emission = dist.Beta(2.0, 3.0).expand([hidden, *shape]).to_event(1 + len(shape))
    return probs_x, pyro.sample("probs_y", emission)


def points(model):
    """A guide that is a point at each probability."""
    return AutoDelta(poutine.block(model, expose_fn=lambda m: m["name"].startswith("probs_")))


def ragged(model, log_obs_of):
    """A case: the model, points for its globals, and the forward algorithm at these points."""
    guide, data = points(model), (*music(), ARGS)

    def exact():
        at = guide(*data)
        log_p = at["probs_x"].log()
        if "probs_w" in at:  # states are pairs (w, x)
            of_w, x, w = at["probs_w"].log(), log_p.expand(2, 2, 2), torch.arange(2)
            # x after x_0 and w: its table is indexed by w first
            log_p = of_w[:, None, :, None] + x[None, w].permute(0, 2, 1, 3)
            log_p = log_p.reshape(4, 4)
        return forward(log_p[0], log_p, log_obs_of(data[0], at["probs_y"]), LENGTHS)

    return model, guide, data, exact


def bernoulli(probs, y):
    return dist.Bernoulli(probs).log_prob(y)


def hmm_0_model(sequences, lengths, args, include_prior=True):
    with poutine.mask(mask=include_prior):
        probs_x, probs_y = probabilities(args.hidden_dim, sequences.shape[-1])
    tones = pyro.plate("tones", sequences.shape[-1], dim=-1)
    for i in pyro.plate("sequences", len(sequences)):
        sequence, x = sequences[i, : lengths[i]], 0
        for t in pyro.markov(range(int(lengths[i]))):
            x = pyro.sample(
                f"x_{i}_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"}
            )
            with tones:
                fn = dist.Bernoulli(probs_y[x.squeeze(-1)])
                pyro.sample(f"y_{i}_{t}", fn, obs=sequence[t])


def hmm_1_model(sequences, lengths, args, batch_size=None, include_prior=True):
    with poutine.mask(mask=include_prior):
        probs_x, probs_y = probabilities(args.hidden_dim, sequences.shape[-1])
    tones = pyro.plate("tones", sequences.shape[-1], dim=-1)
    with pyro.plate("sequences", len(sequences), batch_size, dim=-2) as batch:
        lengths, x = lengths[batch], 0
        for t in pyro.markov(range(int(lengths.max()))):
            with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                fn = dist.Categorical(probs_x[x])
                x = pyro.sample(f"x_{t}", fn, infer={"enumerate": "parallel"})
                with tones:
                    fn = dist.Bernoulli(probs_y[x.squeeze(-1)])
                    pyro.sample(f"y_{t}", fn, obs=sequences[batch, t])


def of_state(y, probs):
    """log p(y_t | x_t), `(N, T, K)`, of probs `(K, tones)`."""
    return bernoulli(probs, y[:, :, None]).sum(-1)


@case("examples/hmm.py, model_0", FORWARD, "importance", plate="sequences")
def hmm_0():
    """A loop over sequences, each of its own length; probabilities are points."""
    return ragged(hmm_0_model, of_state)


@case("examples/hmm.py, model_1", FORWARD, "importance", plate="sequences")
def hmm_1():
    """The same side by side: steps beyond a sequence's end are masked."""
    return ragged(hmm_1_model, of_state)


@case("examples/hmm.py, model_2", FORWARD, "importance", plate="sequences")
def hmm_2():
    """Tones depend on those before."""

    def model(sequences, lengths, args, batch_size=None, include_prior=True):
        with poutine.mask(mask=include_prior):
            probs_x, probs_y = probabilities(args.hidden_dim, 2, sequences.shape[-1])
        tones_plate = pyro.plate("tones", sequences.shape[-1], dim=-1)
        with pyro.plate("sequences", len(sequences), batch_size, dim=-2) as batch:
            lengths, x, y = lengths[batch], 0, 0
            for t in pyro.markov(range(int(lengths.max()))):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    fn = dist.Categorical(probs_x[x])
                    x = pyro.sample(f"x_{t}", fn, infer={"enumerate": "parallel"})
                    with tones_plate as tones:
                        fn = dist.Bernoulli(probs_y[x, y, tones])
                        y = pyro.sample(f"y_{t}", fn, obs=sequences[batch, t]).long()

    def log_obs(y, probs):
        before = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], 1).long()
        at = probs[:, before, torch.arange(TONES)]  # (K, N, T, tones)
        return bernoulli(at, y).sum(-1).permute(1, 2, 0)

    return ragged(model, log_obs)


def of_two_states(y, probs):
    return bernoulli(probs.flatten(0, 1), y[:, :, None]).sum(-1)


def factorial(depends):
    """Two chains w and x; x depends on w of the same step, or does not."""

    def model(sequences, lengths, args, batch_size=None, include_prior=True):
        hidden, data_dim = args.hidden_dim, sequences.shape[-1]
        with poutine.mask(mask=include_prior):
            prior = dist.Dirichlet(0.9 * torch.eye(hidden) + 1)
            probs_w = pyro.sample("probs_w", prior.to_event(1))
            prior = prior.expand_by([hidden]).to_event(2) if depends else prior.to_event(1)
            probs_x = pyro.sample("probs_x", prior)
            emission = dist.Beta(2.0, 3.0).expand([hidden, hidden, data_dim]).to_event(3)
            probs_y = pyro.sample("probs_y", emission)
        tones_plate = pyro.plate("tones", data_dim, dim=-1)
        with pyro.plate("sequences", len(sequences), batch_size, dim=-2) as batch:
            lengths, w = lengths[batch], torch.tensor(0)
            x = w
            for t in pyro.markov(range(int(lengths.max()))):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    fn = dist.Categorical(probs_w[w])
                    w = pyro.sample(f"w_{t}", fn, infer={"enumerate": "parallel"})
                    fn = dist.Categorical(Vindex(probs_x)[w, x] if depends else probs_x[x])
                    x = pyro.sample(f"x_{t}", fn, infer={"enumerate": "parallel"})
                    with tones_plate as tones:
                        fn = dist.Bernoulli(probs_y[w, x, tones])
                        pyro.sample(f"y_{t}", fn, obs=sequences[batch, t])

    return model


@case("examples/hmm.py, model_3", FORWARD + " on pairs of states", "importance", plate="sequences")
def hmm_3():
    """A factorial model: two chains make the tones together."""
    return ragged(factorial(depends=False), of_two_states)


@case("examples/hmm.py, model_4", FORWARD + " on pairs of states", "importance", plate="sequences")
def hmm_4():
    """A dynamic Bayesian network: the second chain depends on the first."""
    return ragged(factorial(depends=True), of_two_states)


@case("examples/hmm.py, model_5", FORWARD, "importance prior", plate="sequences")
def hmm_5():
    """Probabilities are parameters, tones are made by a network of state and tones before."""
    net = nn.Sequential(nn.Linear(2 + TONES, 4), nn.Tanh(), nn.Linear(4, TONES))
    log_trans = torch.randn(2, 2).log_softmax(-1)

    def model(sequences, lengths):
        pyro.module("tones_generator", net)
        probs_x = pyro.param("probs_x", log_trans.exp(), constraint=dist.constraints.simplex)
        with pyro.plate("sequences", len(sequences), dim=-2):
            x, y = 0, sequences.new_zeros(len(sequences), TONES)
            for t in pyro.markov(range(int(lengths.max()))):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    fn = dist.Categorical(probs_x[x])
                    x = pyro.sample(f"x_{t}", fn, infer={"enumerate": "parallel"})
                    state = torch.nn.functional.one_hot(x.squeeze(-1), 2).to(y)
                    shape = torch.broadcast_shapes(state.shape[:-1], y.shape[:-1])
                    both = state.expand(*shape, 2), y.expand(*shape, TONES)
                    with pyro.plate(f"tones_{t}", TONES, dim=-1):
                        fn = dist.Bernoulli(logits=3 * net(torch.cat(both, -1)))
                        y = pyro.sample(f"y_{t}", fn, obs=sequences[:, t])

    def guide(sequences, lengths):
        """All latents are summed out."""

    sequences, lengths = music()

    def exact():
        before = torch.cat([torch.zeros_like(sequences[:, :1]), sequences[:, :-1]], 1)
        columns = []
        for state in torch.eye(2):
            both = torch.cat([state.expand(*before.shape[:2], 2), before], -1)
            columns.append(dist.Bernoulli(logits=3 * net(both)).log_prob(sequences).sum(-1))
        return forward(log_trans[0], log_trans, torch.stack(columns, -1), lengths)

    return model, guide, (sequences, lengths), exact


class DeepMarkov(nn.Module):
    """A Markov chain of real states with networks for transition and emission."""

    z_dim = 1

    def __init__(self):
        super().__init__()
        self.transition, self.emitter = mlp(1, 4, 1), mlp(1, 4, TONES)
        self.rnn = nn.RNN(TONES, 3, batch_first=True)
        self.combiner = mlp(1 + 3, 1)
        self.z_0, self.z_q_0 = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def step(self, z):
        return 0.5 * z + self.transition(z)

    def model(self, x, mask, lengths, annealing_factor=1.0):
        pyro.module("dmm", self)
        z = self.z_0.expand(len(x), 1)
        with pyro.plate("z_minibatch", len(x)):
            for t in pyro.markov(range(1, x.size(1) + 1)):
                real = mask[:, t - 1 : t]
                with poutine.scale(scale=annealing_factor):
                    z = pyro.sample(
                        f"z_{t}", dist.Normal(self.step(z), 0.8).mask(real).to_event(1)
                    )
                fn = dist.Bernoulli(logits=3 * self.emitter(z)).mask(real).to_event(1)
                pyro.sample(f"obs_x_{t}", fn, obs=x[:, t - 1])

    def guide(self, x, mask, lengths, annealing_factor=1.0):
        pyro.module("dmm", self)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.rnn(packed)[0], True, total_length=x.size(1))
        z = self.z_q_0.expand(len(x), 1)
        with pyro.plate("z_minibatch", len(x)):
            for t in pyro.markov(range(1, x.size(1) + 1)):
                h = hidden[:, t - 1].expand(*z.shape[:-1], 3)
                loc = self.step(z) + 0.3 * self.combiner(torch.cat([z, h], -1))
                with poutine.scale(scale=annealing_factor):
                    fn = dist.Normal(loc, 1.0).mask(mask[:, t - 1 : t]).to_event(1)
                    z = pyro.sample(f"z_{t}", fn)


@case(
    "examples/dmm/dmm.py",
    FORWARD + " on a grid of states",
    "importance prior ais",
    plate="z_minibatch",
)
def dmm():
    """A deep Markov model, packed for its RNN, masked in model and guide, its KL annealed."""
    net, (x, lengths) = DeepMarkov(), music()
    mask = torch.arange(x.size(1)) < lengths[:, None]

    def exact():
        z = axis(-6, 6, 101)[:, None]
        log_h = (z[1] - z[0]).log()
        log_trans = dist.Normal(net.step(z), 0.8).log_prob(z.T) + log_h
        log_init = dist.Normal(net.step(net.z_0), 0.8).log_prob(z[:, 0]) + log_h
        log_x = dist.Bernoulli(logits=3 * net.emitter(z)).log_prob(x[:, :, None]).sum(-1)
        return forward(log_init, log_trans, log_x, lengths)

    return net.model, net.guide, (x, mask, lengths, 0.3), exact
