"""The same work as others do it: hand-written PyTorch, Pyro's loop, pythae and numpyro."""

import time

import pyro
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.utils.data import DataLoader, Dataset

LATENT, HIDDEN = 50, 400


class HandWritten(nn.Module):
    """The VAE of a hundred tutorials; its logits go into the loss, as the better ones do."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc21 = nn.Linear(784, HIDDEN), nn.Linear(HIDDEN, LATENT)
        self.fc22, self.fc3 = nn.Linear(HIDDEN, LATENT), nn.Linear(LATENT, HIDDEN)
        self.fc4 = nn.Linear(HIDDEN, 784)

    def forward(self, x):
        h = F.softplus(self.fc1(x))
        mean, log_var = self.fc21(h), self.fc22(h)
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        logits = self.fc4(F.softplus(self.fc3(z)))
        bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return (bce - 0.5 * (1 + log_var - mean.square() - log_var.exp()).sum()) / len(x)


def hand_written(x, compiled):
    model = HandWritten()
    # compiled it also gets the fastest optimizer; as people write it, the default one
    optim = torch.optim.Adam(model.parameters(), lr=1e-3, fused=compiled or None)
    loss_of = torch.compile(model) if compiled else model

    def step():
        optim.zero_grad()
        loss = loss_of(x)
        loss.backward()
        optim.step()
        return loss.item()

    return step


def pyro_svi(vae):
    return SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())


class Images(Dataset):
    """What torchvision's MNIST is to a DataLoader: an image at a time, through its transforms."""

    def __init__(self, x):
        from pyrovae.data import _datasets

        _datasets()  # torchvision, which needs care beside a CPU build of torch
        from torchvision import transforms

        self.images = (x.reshape(-1, 28, 28) * 255).byte()
        self.to_tensor = transforms.ToTensor()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        from PIL import Image

        return self.to_tensor(Image.fromarray(self.images[i].numpy())).bernoulli()


def pyro_epoch(vae, x):
    """Pyro's example: DataLoader, transforms, `svi.step`."""
    svi, loader = pyro_svi(vae), DataLoader(Images(x), batch_size=256, shuffle=True)

    def epoch():
        return sum(svi.step(batch.reshape(-1, 784)) for batch in loader) / len(x)

    return epoch


def numpyro_epoch(x):
    """numpyro's VAE example: one compiled epoch of `svi.update`, binarizing each batch."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from jax import lax, random
    from jax.example_libraries import stax
    from numpyro import optim
    from numpyro.infer import SVI as NumpyroSVI
    from numpyro.infer import Trace_ELBO as NumpyroELBO

    encode = stax.serial(
        stax.Dense(HIDDEN),
        stax.Softplus,
        stax.FanOut(2),
        stax.parallel(stax.Dense(LATENT), stax.serial(stax.Dense(LATENT), stax.Exp)),
    )
    decode = stax.serial(stax.Dense(HIDDEN), stax.Softplus, stax.Dense(784), stax.Sigmoid)

    def model(batch):
        decoder = numpyro.module("decoder", decode, (len(batch), LATENT))
        with numpyro.plate("batch", len(batch)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([LATENT]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(decoder(z)).to_event(1), obs=batch)

    def guide(batch):
        encoder = numpyro.module("encoder", encode, (len(batch), 784))
        loc, std = encoder(batch)
        with numpyro.plate("batch", len(batch)):
            numpyro.sample("z", dist.Normal(loc, std).to_event(1))

    data = jnp.asarray(x.numpy())
    svi = NumpyroSVI(model, guide, optim.Adam(1e-3), NumpyroELBO())
    state = svi.init(random.PRNGKey(0), data[:256])
    count = len(x) // 256

    @jax.jit
    def run(state, key):
        order = random.permutation(key, len(x))

        def body(i, carry):
            total, state = carry
            rows = lax.dynamic_slice_in_dim(order, i * 256, 256)
            batch = random.bernoulli(random.fold_in(key, i), data[rows]).astype(jnp.float32)
            state, loss = svi.update(state, batch)
            return total + loss, state

        return lax.fori_loop(0, count, body, (0.0, state))

    keys = iter(range(10**6))
    held = [state]

    def epoch():
        total, held[0] = run(held[0], random.PRNGKey(next(keys)))
        return float(total) / len(x)

    return epoch


def pythae_nll(vae):
    """pythae's `get_nll` with the very nets of our VAE."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = vae.encoder

        def forward(self, x):
            loc, scale = self.net(x)
            return ModelOutput(embedding=loc, log_covariance=2 * scale.log())

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = vae.decoder

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z).sigmoid())

    config = VAEConfig(input_dim=(784,), latent_dim=LATENT, reconstruction_loss="bce")
    return VAE(config, Encoder(), Decoder()).eval()


def products_alone(vae, rows, repeats):
    """The matrix products of `repeats` decodes of so many rows, and nothing else."""
    weights = [layer.weight.detach() for layer in vae.decoder if isinstance(layer, nn.Linear)]
    inputs = [torch.randn(rows, w.shape[1]) for w in weights]
    outs = [torch.empty(rows, len(w)) for w in weights]

    def run():
        for _ in range(repeats):
            for w, h, out in zip(weights, inputs, outs, strict=True):
                torch.mm(h, w.T, out=out)

    return run


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
