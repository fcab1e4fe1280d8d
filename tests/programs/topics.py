"""Documents as mixtures of topics, and other counts."""

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import nn

from programs.answers import axis, integral
from programs.cases import case

TOPICS, WORDS = 2, 4
ARGS = SimpleNamespace(num_topics=TOPICS, num_words=WORDS, num_docs=5)


def lda_model(data=None, args=None, batch_size=None):
    with pyro.plate("topics", args.num_topics):
        weights = pyro.sample("topic_weights", dist.Gamma(2.0, 1.0))
        prior = dist.Dirichlet(torch.ones(args.num_words) / args.num_words)
        words = pyro.sample("topic_words", prior)
    with pyro.plate("documents", args.num_docs) as ind:
        data = data[:, ind]
        topics = pyro.sample("doc_topics", dist.Dirichlet(weights))
        with pyro.plate("words", len(data)):
            fn = dist.Categorical(topics)
            word_topics = pyro.sample("word_topics", fn, infer={"enumerate": "parallel"})
            pyro.sample("doc_words", dist.Categorical(words[word_topics]), obs=data)


def lda_guide(local):
    """Points for what all documents share, and a document's topics by `local`."""

    def guide(data, args, batch_size=None):
        weights = pyro.param("weights", torch.tensor([1.5, 2.5]), constraint=constraints.positive)
        start = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.3, 0.5]])
        words = pyro.param("words", start, constraint=constraints.simplex)
        with pyro.plate("topics", args.num_topics):
            pyro.sample("topic_weights", dist.Delta(weights))
            pyro.sample("topic_words", dist.Delta(words, event_dim=1))
        with pyro.plate("documents", args.num_docs, batch_size) as ind:
            counts = torch.zeros(args.num_words, len(ind))
            counts = counts.scatter_add(0, data[:, ind], torch.ones(len(data), len(ind)))
            pyro.sample("doc_topics", local(counts.T))

    return guide


def words():
    return torch.randint(WORDS, (7, 5))


@case("examples/lda.py", "a grid over each document's topics", plate="documents")
def lda():
    """Words in columns, a document each, their topics summed out; what they share are points."""
    data = words()
    guide = lda_guide(lambda counts: dist.Dirichlet(1 + 0.3 * (counts[:, :2] + counts[:, 2:])))

    def exact():
        u = axis(-14, 14, 281)[:, None]  # share of the first topic: sigmoid(u)
        share = torch.cat([torch.sigmoid(u), torch.sigmoid(-u)], -1)
        log_p = dist.Dirichlet(pyro.param("weights")).log_prob(share) + share.log().sum(-1)
        log_words = (share @ pyro.param("words")).log()[:, data].sum(1)
        return (log_p[:, None] + log_words).logsumexp(0) + (u[1] - u[0]).log()

    return lda_model, guide, (data, ARGS), exact


@case(
    "examples/lda.py",
    plate="documents",
    refused="the guide is a point in each document's topics",
    message=r"(?i)point|delta",
)
def lda_points():
    """The example's own guide: a network's output as a point for each document."""
    net = nn.Sequential(nn.Linear(WORDS, TOPICS), nn.Softmax(-1))
    guide = lda_guide(lambda counts: dist.Delta(net(counts), event_dim=1))
    return lda_model, guide, (words(), ARGS)


@case(
    "tutorial/prodlda",
    "a grid over log theta",
    "importance prior quadrature",
    plate="documents",
)
def prodlda():
    """Counts of words; batch normalization without weights, and dropout."""
    beta = nn.Linear(TOPICS, WORDS, bias=False)
    bn = nn.BatchNorm1d(WORDS, affine=False)
    encoder = nn.Sequential(nn.Linear(WORDS, 4), nn.Softplus(), nn.Dropout(), nn.Linear(4, 2))
    decoder = nn.Sequential(beta, bn)
    decoder(torch.rand(50, TOPICS))
    docs = dist.Multinomial(8, torch.ones(WORDS)).sample((5,))
    docs[0] += 1

    def model(docs):
        pyro.module("decoder", decoder)
        with pyro.plate("documents", docs.shape[0]):
            loc = docs.new_zeros((docs.shape[0], TOPICS))
            logtheta = pyro.sample("logtheta", dist.Normal(loc, 1.0).to_event(1))
            probs = torch.softmax(decoder(logtheta.softmax(-1)), -1)
            count = int(docs.sum(-1).max())
            pyro.sample("obs", dist.Multinomial(count, probs), obs=docs)

    def guide(docs):
        pyro.module("encoder", encoder)
        with pyro.plate("documents", docs.shape[0]):
            pyro.sample("logtheta", dist.Normal(0.3 * encoder(docs), 1.1).to_event(1))

    def exact():
        decoder.eval()

        def log_joint(z):
            log_prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
            log_words = decoder(z[:, 0].softmax(-1)).log_softmax(-1)[:, None]
            several = torch.lgamma(docs.sum(-1) + 1) - torch.lgamma(docs + 1).sum(-1)
            return log_prior + (docs * log_words).sum(-1) + several

        return integral(log_joint, axis(size=51), axis(size=51))

    return model, guide, (docs,), exact


@case("examples/sparse_gamma_def.py", "z in closed form, a grid over the weights")
def sparse_gamma():
    """Gamma factors with a parameter for each datum, gamma weights that all share are sampled."""
    x, b = torch.poisson(torch.full((5, 2), 2.0)), 0.8

    def model(x):
        with pyro.plate("w_plate", 2):
            w = pyro.sample("w", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", x.size(0)):
            z = pyro.sample("z", dist.Gamma(1.5, b).expand([1]).to_event(1))
            mean = torch.matmul(z, w.reshape(-1, 1, 2)) if w.ndim > 1 else z * w
            pyro.sample("obs", dist.Poisson(mean).to_event(1), obs=x)

    def guide(x):
        alpha = pyro.param("alpha", lambda: torch.full((len(x), 1), 2.0), constraints.positive)
        mean = pyro.param("mean", lambda: 1 + x.sum(-1, True) / 4, constraints.positive)
        with pyro.plate("w_plate", 2):
            pyro.sample("w", dist.Gamma(torch.tensor([4.0, 6.0]), 3.0))
        with pyro.plate("data", x.size(0)):
            pyro.sample("z", dist.Gamma(alpha, alpha / mean).to_event(1))

    def exact():
        a, total = 1.5, x.sum(-1)

        def log_p(u):  # u = log w
            w = u.exp()
            q = dist.Gamma(torch.tensor([4.0, 6.0]), 3.0).log_prob(w).sum(-1) + u.sum(-1)
            log_x = (x * u - torch.lgamma(x + 1)).sum(-1) + torch.lgamma(a + total)
            log_x = log_x + a * torch.tensor(b).log() - torch.lgamma(torch.tensor(a))
            return q + log_x - (a + total) * (b + w.sum(-1)).log()

        return integral(log_p, axis(-6, 3, 91), axis(-6, 3, 91))

    return model, guide, (x,), exact
