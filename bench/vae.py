"""Images per second of training the VAE, against the authors' way of doing it, and the share of the device's peak.

The authors' way, in our words: a DataLoader that turns one image after the other into a tensor, and for later
generations a fresh decoding for every batch; both in the default memory order, with a sigmoid before the loss and
the loss read back from the device after every batch.
"""

import numpy as np
import torch
from numpy.random import Generator, default_rng
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader

from bench.timing import Row, seconds
from model_collapse.data import mnist
from model_collapse.own_run import speed
from model_collapse.scales import DECODED, TRAINED, operations
from model_collapse.settings import Vae
from model_collapse.torch_random import torch_generator
from model_collapse.vae import Images, Network, train

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPOCHS = 40 if DEVICE == "cuda" else 1
SETTINGS = Vae(mnist="embedded", digits=2_000, epochs=EPOCHS)
EACH = operations(SETTINGS) / (SETTINGS.epochs * SETTINGS.digits)  # floating-point operations for an image
STEP = EACH * TRAINED / (TRAINED + DECODED)  # to train on it alone


def rows() -> list[Row]:
    """Measure, all in one run."""
    torch.set_num_threads(1)
    digits = mnist("embedded", "train").images[: SETTINGS.digits]
    images = (digits / np.float32(255)).astype(np.float32)
    network = train(images, default_rng(0), SETTINGS, DEVICE)
    n = SETTINGS.digits * EPOCHS
    sizes = f"{n:,} images, batch {SETTINGS.batch}, {DEVICE}"
    first = seconds(lambda rng: train(images, rng, SETTINGS, DEVICE), 3)
    later = seconds(lambda rng: train(Images(network, SETTINGS.digits), rng, SETTINGS, DEVICE), 3)
    loader = seconds(lambda rng: plain(loaded(digits, rng), rng), 3)
    decoded = seconds(lambda rng: plain(redecoded(network, rng), rng), 3)
    peak = speed()
    first_share, later_share = (n * flop / time / peak for flop, time in ((STEP, first), (EACH, later)))
    return [
        Row(
            f"vae: generation 0, {n / first:,.0f} images/s, against a DataLoader",
            sizes,
            first,
            loader / first,
            8 if DEVICE == "cuda" else 1.2,
        ),
        Row(f"vae: later ones, {n / later:,.0f} images/s, against plain decoding", sizes, later, decoded / later),
        Row(
            f"vae: {first_share:.0%} and {later_share:.0%} of {peak / 1e9:,.0f} GFLOP/s (a large product)",
            f"{STEP / 1e6:.0f} MFLOP to train on an image",
            n * STEP / peak,
        ),
    ]


def plain(batches, rng: Generator) -> None:
    """The authors' loop, in our words."""
    generator = torch_generator(rng)
    network = Network(20, generator).to(DEVICE)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-5)
    for epoch in range(EPOCHS):
        total = 0.0
        for images in batches(epoch):
            images = images.to(DEVICE)
            mean, log_variance = network.encode(images)
            noise = torch.empty_like(mean).normal_()
            output = network.decode(mean + noise * (0.5 * log_variance).exp()).sigmoid()
            loss = functional.binary_cross_entropy(output, images, reduction="sum")
            loss = loss - 0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()


def loaded(digits, rng: Generator):
    """Each image a picture, then a tensor, one by one."""

    class Pictures:
        def __len__(self) -> int:
            return len(digits)

        def __getitem__(self, index: int):
            picture = Image.fromarray(digits[index])
            return torch.from_numpy(np.array(picture, copy=True)).float().div(255)

    generator = torch_generator(rng)
    return lambda epoch: DataLoader(Pictures(), SETTINGS.batch, shuffle=True, generator=generator)


def redecoded(network: Network, rng: Generator):
    """A fresh decoding for every batch, in the default memory order."""
    teacher = Network(20).to(DEVICE)
    teacher.load_state_dict({k: v.contiguous() for k, v in network.state_dict().items()})
    generator = torch_generator(rng, DEVICE)

    def batches(epoch: int):
        for first in range(0, SETTINGS.digits, SETTINGS.batch):
            n = min(SETTINGS.batch, SETTINGS.digits - first)
            with torch.no_grad():
                images = teacher.decode(torch.randn(n, 20, generator=generator, device=DEVICE)).sigmoid()
            yield images

    return batches


if __name__ == "__main__":
    for row in rows():
        print(row)
