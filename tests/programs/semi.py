"""Labels that are known, unknown or given: semi-supervised and conditional autoencoders."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.cevae import CEVAE
from torch import nn
from torch.nn.functional import one_hot

from programs.answers import axis, integral
from programs.cases import case
from programs.nets import mlp
from programs.vae import PIXELS, binary

CLASSES = 3


def log_normal(z):
    return dist.Normal(0.0, 1.0).log_prob(z).sum(-1)


def joined(*parts):
    """Concatenates what may have another number of batch dimensions."""
    shape = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
    return torch.cat([p.expand(*shape, p.shape[-1]) for p in parts], -1)


class SemiSupervised(nn.Module):
    """Kingma's M2: a class y and a style z make x; labels may be missing."""

    def __init__(self):
        super().__init__()
        self.decoder = mlp(1 + CLASSES, 8, PIXELS)
        self.encoder_y = mlp(PIXELS, CLASSES)
        self.encoder_z = mlp(PIXELS + CLASSES, 8, 1)

    def model(self, xs, ys=None):
        pyro.module("ss_vae", self)
        with pyro.plate("data"):
            zs = pyro.sample("z", dist.Normal(xs.new_zeros(len(xs), 1), 1.0).to_event(1))
            even = xs.new_ones(len(xs), CLASSES) / CLASSES
            ys = pyro.sample("y", dist.OneHotCategorical(even), obs=ys)
            logits = self.logits(zs, ys)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=xs)

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            if ys is None:
                ys = pyro.sample("y", dist.OneHotCategorical(logits=self.encoder_y(xs)))
            loc = self.encoder_z(joined(xs, ys))
            pyro.sample("z", dist.Normal(loc, 1.1).to_event(1))

    def logits(self, zs, ys):
        return 3 * self.decoder(joined(zs, ys))

    def log_joint(self, x):
        """log p(x, y) of each class, z integrated out, `(classes, N)`."""
        return torch.stack([self.of_class(x, y) for y in torch.eye(CLASSES)])

    def of_class(self, x, y):
        def log_p(z):
            log_x = dist.Bernoulli(logits=self.logits(z, y)).to_event(1).log_prob(x)
            return log_normal(z) + log_x

        return integral(log_p, axis()) - torch.tensor(float(CLASSES)).log()


def labels(n=5):
    return one_hot(torch.arange(n) % CLASSES, CLASSES).to(torch.get_default_dtype())


@case("examples/vae/ss_vae_M2.py", "a grid over z", "importance prior")
def ss_vae_labelled():
    """A semi-supervised VAE of data with labels: log p(x, y), unsized plate."""
    net, x, y = SemiSupervised(), binary(), labels()
    return net.model, net.guide, (x, y), lambda: net.log_joint(x)[y.argmax(1), torch.arange(5)]


@case(
    "examples/vae/ss_vae_M2.py",
    "a grid over z and a sum over y",
    "importance prior ais quadrature",
)
def ss_vae_unlabelled():
    """The same without labels, y sampled by the guide; `None` among the arguments."""
    net, x = SemiSupervised(), binary()
    return net.model, net.guide, (x, None), lambda: net.log_joint(x).logsumexp(0)


@case("examples/vae/ss_vae_M2.py", "the classifier itself", "importance prior")
def ss_vae_classifier():
    """Its auxiliary loss: a model without latents and a guide that does nothing."""
    net, x, y = SemiSupervised(), binary(), labels()

    def model(xs, ys):
        pyro.module("ss_vae", net)
        with pyro.plate("data"), poutine.scale(scale=50.0):
            logits = net.encoder_y(xs)
            pyro.sample("y_aux", dist.OneHotCategorical(logits=logits), obs=ys)

    def guide(xs, ys):
        """Nothing is left to guess."""

    return model, guide, (x, y), lambda: (net.encoder_y(x).log_softmax(-1) * y).sum(-1)


class Completion(nn.Module):
    """A conditional VAE: what is hidden of an image (-1 in xs), given the rest."""

    def __init__(self):
        super().__init__()
        self.baseline = mlp(PIXELS, PIXELS)
        self.prior = mlp(2 * PIXELS, 1)
        self.recognition = mlp(2 * PIXELS, 1)
        self.generation = mlp(1, 8, PIXELS)

    def first(self, xs):
        with torch.no_grad():
            return torch.sigmoid(self.baseline(xs.reshape(len(xs), -1))).view(xs.shape)

    def prior_of(self, xs):
        both = torch.cat([xs, self.first(xs)], -1).view(len(xs), -1)
        return dist.Normal(self.prior(both), 0.8).to_event(1)

    def model(self, xs, ys=None):
        pyro.module("generation_net", self)
        with pyro.plate("data"):
            zs = pyro.sample("z", self.prior_of(xs))
            logits = 3 * self.generation(zs)
            hidden = (xs == -1).view(-1, PIXELS)
            logits = logits[hidden].view(len(xs), -1)
            ys = ys.view(-1, PIXELS)[hidden].view(len(xs), -1)
            pyro.sample("y", dist.Bernoulli(logits=logits).to_event(1), obs=ys)

    def guide(self, xs, ys=None):
        with pyro.plate("data"):
            both = torch.cat([ys, xs], -1).view(len(xs), -1)
            pyro.sample("z", dist.Normal(self.recognition(both), 1.0).to_event(1))


@case("examples/cvae/cvae.py", "a grid over z", "importance prior ais quadrature")
def cvae():
    """Pixels chosen by a boolean mask, which admits no leading particles; log p(y | x)."""
    net, ys = Completion(), binary(5, 2, 3)
    xs = ys.clone()
    xs[:, 1] = -1.0
    hidden = ys[:, 1]

    def log_joint(z):
        log_y = dist.Bernoulli(logits=3 * net.generation(z)[..., 3:]).to_event(1).log_prob(hidden)
        return net.prior_of(xs).log_prob(z) + log_y

    return net.model, net.guide, (xs, ys), lambda: integral(log_joint, axis())


class ScanVI(nn.Module):
    """Counts of genes, their library size, a cell type y above a cell state z2."""

    genes, alpha = 4, 2.0

    def __init__(self):
        super().__init__()
        self.z2_decoder = mlp(1 + CLASSES, 4, 1)
        self.x_decoder = nn.Sequential(
            nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Softplus(), nn.Linear(4, 2 * self.genes)
        )
        self.encoder = nn.Sequential(nn.Linear(self.genes, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.classifier = mlp(1, CLASSES)
        self.z1_encoder = mlp(1 + CLASSES, 1)
        self.x_decoder(torch.randn(50, 1)), self.encoder(torch.randn(50, self.genes))

    def folded(self, net, x):
        """A network that takes two dimensions only, applied to more."""
        return net(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

    def x_given(self, z2, size):
        gate, mu = self.folded(self.x_decoder, z2).chunk(2, -1)
        theta = pyro.param("inverse_dispersion", torch.full((self.genes,), 5.0))
        logits = (size * mu.softmax(-1) + 1e-6).log() - theta.log()
        return dist.ZeroInflatedNegativeBinomial(
            gate_logits=gate - 1, total_count=theta, logits=logits
        ).to_event(1)

    def model(self, x, y=None):
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=1 / 4):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(CLASSES)), obs=y)
            z2 = pyro.sample(
                "z2", dist.Normal(2 * self.z2_decoder(joined(z1, y)), 0.7).to_event(1)
            )
            size = pyro.sample("l", dist.LogNormal(2.0 * x.new_ones(1), 0.4).to_event(1))
            pyro.sample("x", self.x_given(z2, size), obs=x)

    def guide(self, x, y=None):
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=1 / 4):
            loc = self.folded(self.encoder, torch.log(1 + x))
            pyro.sample("l", dist.LogNormal(2 + loc[..., :1] / 4, 0.45).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(loc[..., 1:] / 2, 1.2).to_event(1))
            y_given = dist.OneHotCategorical(logits=self.classifier(z2))
            if y is None:
                y = pyro.sample("y", y_given)
            else:
                loss = -self.alpha * y_given.log_prob(y)
                pyro.factor("classification_loss", loss, has_rsample=False)
            pyro.sample("z1", dist.Normal(self.z1_encoder(joined(z2, y)), 1.1).to_event(1))

    def log_joint(self, x):
        """log p(x, y) of each class, `(classes, N)`: z1 out on a grid, then z2 and log l."""
        self.eval()
        z1, z2, log_l = axis(-6, 6, 49), axis(-6, 6, 49), axis(0, 4, 41)
        grid = torch.cartesian_prod(z2, log_l)[:, None]
        log_x = self.x_given(grid[..., :1], grid[..., 1:].exp()).log_prob(x)
        log_x = log_x + dist.Normal(2.0, 0.4).log_prob(grid[..., 1])
        log_x = log_x.view(49, 41, -1).logsumexp(1) + (log_l[1] - log_l[0]).log()  # (z2, N)
        rows = []
        for y in torch.eye(CLASSES):
            loc = 2 * self.z2_decoder(joined(z1[:, None], y))
            log_z2 = dist.Normal(0.0, 1.0).log_prob(z1)[:, None] + dist.Normal(loc, 0.7).log_prob(
                z2
            )
            log_z2 = log_z2.logsumexp(0) + 2 * (z1[1] - z1[0]).log()
            rows.append((log_z2[:, None] + log_x).logsumexp(0))
        return torch.stack(rows) - torch.tensor(float(CLASSES)).log()


def counts():
    return torch.poisson(torch.full((5, ScanVI.genes), 2.0))


@case(
    "examples/scanvi/scanvi.py",
    "grids over z1, z2, l",
    "importance prior",
    plate="batch",
)
def scanvi_labelled():
    """Cells with their types; the guide holds a classification loss as a factor."""
    net, x, y = ScanVI(), counts(), labels()
    return net.model, net.guide, (x, y), lambda: net.log_joint(x)[y.argmax(1), torch.arange(5)]


@case(
    "examples/scanvi/scanvi.py",
    "grids over z1, z2, l, a sum over y",
    "importance prior",
    plate="batch",
)
def scanvi_unlabelled():
    """Cells without types: the guide draws them from its classifier, and z1 given them."""
    net, x = ScanVI(), counts()
    return net.model, net.guide, (x,), lambda: net.log_joint(x).logsumexp(0)


@case("contrib/cevae, examples/contrib/cevae", "a grid over z", "importance prior ais quadrature")
def cevae():
    """Pyro's CEVAE as it is; its guide observes treatment and outcome."""
    net = CEVAE(feature_dim=3, outcome_dist="bernoulli", latent_dim=1, hidden_dim=4, num_layers=2)
    for head in (net.guide.z0_nn, net.guide.z1_nn):
        head.fc[-1].bias.data[1] = 1.0  # a scale of 1.3, wide enough
    x = torch.randn(5, 3)
    t, y = (torch.arange(5) % 2).to(x), (torch.arange(5) // 2 % 2).to(x)

    def log_joint(z):
        model = net.model
        log_p = model.z_dist().log_prob(z) + model.x_dist(z).log_prob(x)
        return log_p + model.t_dist(z).log_prob(t) + model.y_dist(t, z).log_prob(y)

    return net.model, net.guide, (x, t, y), lambda: integral(log_joint, axis(-9, 9, 2001))
