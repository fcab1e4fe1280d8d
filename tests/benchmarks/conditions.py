"""Images completed from quadrants, for docs/conditions.md: python tests/benchmarks/conditions.py.

For 1, 2 and 3 quadrants given: a net without latents, whose log P(X|Y) is exact, and the
conditional VAE, by ELBO, importance sampling and annealing; nats per image, with both errors.
"""

import argparse
import time

import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv


class Net(pv.Model):
    """X given Y without a latent: each pixel by itself."""

    def __init__(self, x_dim, y_dim, hidden_dims):
        super().__init__()
        self.net = pv.nn.MLP(y_dim, hidden_dims, x_dim, "relu")

    def model(self, x, y):
        self.register(net=self.net)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=self.net(y)).to_event(1), obs=x)


def said(e):
    errors = [e.monte_carlo_error] * (e.kind.bound != "exact") + [e.data_error]
    return " +- ".join([f"{e.mean:.2f}", *(f"{error:.2g}" for error in errors)])


def row(splits, num_given, options):
    given = pv.data.quadrants(splits.image_shape, num_given)

    def parts(images):
        return images[:, ~given], images[:, given]

    few = splits.test.x[:: options.every].contiguous()
    sizes = int((~given).sum()), int(given.sum())
    how = {
        "valid": parts(splits.valid.x),
        "transform": lambda x, y: (splits.transform(x), splits.transform(y)),
        "num_epochs": options.num_epochs,
        "batch_size": 128,
        "lr_schedule": "one-cycle",
        "lr": options.lr,
        "seed": 0,
    }
    torch.manual_seed(0)
    cvae = pv.CVAE(*sizes, options.z_dim, options.hidden_dims, activation="relu")
    cvae.start_at(parts(splits.train.x)[0])
    net = Net(*sizes, options.hidden_dims)
    cells = [str(num_given)]
    for model, guide in ((net.model, None), (cvae.model, cvae.guide)):
        done = pv.svi.fit(model, guide, parts(splits.train.x), **how)
        print(done, flush=True)
        start = time.perf_counter()
        estimators = ["elbo", "importance", "ais"] if guide else ["exact"]
        evidence = pv.evaluate(
            model,
            guide,
            *parts(few),
            estimators=estimators,
            num_particles=options.num_particles,
            num_temperatures=options.num_temperatures,
            num_chains=4,
            seed=0,
        )
        print(evidence, f"\n{time.perf_counter() - start:.0f} s", flush=True)
        cells += [said(evidence[name]) for name in estimators]
    return "| " + " | ".join(cells) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="folder of the named data sets")
    parser.add_argument("--quadrants", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--hidden-dims", type=int, nargs="+", default=[500, 500])
    parser.add_argument("--z-dim", type=int, default=50)
    parser.add_argument("--num-epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--num-particles", type=int, default=1_000)
    parser.add_argument("--num-temperatures", type=int, default=100)
    parser.add_argument("--every", type=int, default=10, help="every so manieth test image")
    options = parser.parse_args()
    splits = pv.data.load("mnist", root=options.root, binarize="dynamic")
    rows = [row(splits, n, options) for n in options.quadrants]
    print(
        "| quadrants | net | ELBO | importance sampling | annealing |", "|---" * 5 + "|", sep="\n"
    )
    print("\n".join(rows))


if __name__ == "__main__":
    main()
