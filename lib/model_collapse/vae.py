r"""The authors' convolutional variational autoencoder on MNIST, as a model family.

Encoder: convolutions 1 - 64 - 128 (4 x 4, stride 2, padding 1) with ReLU, then linear maps to mean and log-variance of
20 latents. Decoder: a linear map, transposed convolutions 128 - 64 - 1. The loss is the negative evidence lower bound,

.. math:: \sum_{\text{pixels}} \mathrm{BCE}(x, \hat x(z)) + \mathrm{KL}\bigl(q(z \mid x) \,\|\, \mathcal N(0, I)\bigr),
    \qquad z \sim q(z \mid x),

summed over a batch, minimised by Adam. Every generation trains a new network. As the authors' code trains it, its data
are no data set: each batch of each epoch is decoded from new latents (`Images` with `fresh` draws), so that a network
sees digits times epochs different images of its predecessor.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model_collapse.drawn import Data, Joined
from model_collapse.process import Family
from model_collapse.settings import Output, Vae
from model_collapse.torch_random import torch_generator

CHUNK = 250  # images decoded or encoded at once outside of training: faster than more at once on a processor


class Network(nn.Module):
    """Encoder and decoder of the authors' network: 647,081 parameters with 20 latents.

    Parameters
    ----------
    latents : int
        Dimension of the latent space.
    generator : torch.Generator, optional
        For the start values, uniform as by default in torch; without it they are left as they are in memory, to be
        loaded.

    Attributes
    ----------
    loss : Tensor, scalar
        Mean over the batches of the last epoch of the loss summed over a batch, nats; as the authors print it.

    Examples
    --------
    >>> network = Network(20, torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in network.parameters())
    647081
    >>> network.decode(torch.zeros(3, 20)).shape
    torch.Size([3, 28, 28])
    """

    loss: Tensor

    def __init__(self, latents: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        with torch.device("meta"):  # torch would draw start values from its global generator
            self.conv1 = nn.Conv2d(1, 64, 4, stride=2, padding=1)
            self.conv2 = nn.Conv2d(64, 128, 4, stride=2, padding=1)
            self.mean = nn.Linear(128 * 7 * 7, latents)
            self.log_variance = nn.Linear(128 * 7 * 7, latents)
            self.expand = nn.Linear(latents, 128 * 7 * 7)
            self.deconv2 = nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1)
            self.deconv1 = nn.ConvTranspose2d(64, 1, 4, stride=2, padding=1)
            self.register_buffer("loss", torch.zeros(()))
        self.to_empty(device="cpu")
        self.loss.fill_(torch.nan)
        if generator is not None:
            for module in self.children():
                _start(module, generator)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), each (n, latents), for images (n, 28, 28) in [0, 1]."""
        hidden = functional.relu(self.conv1(images.unsqueeze(1)))
        hidden = functional.relu(self.conv2(hidden)).flatten(1)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, latents: Tensor) -> Tensor:
        """Log-odds of the pixels, (n, 28, 28), for latents (n, latents)."""
        hidden = self.expand(latents).view(-1, 128, 7, 7)
        hidden = functional.relu(self.deconv2(hidden))
        logits: Tensor = self.deconv1(hidden).squeeze(1)
        return logits

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.loss.device


@dataclass(frozen=True)
class Images:
    """Images of a trained network that are drawn when asked: the authors' regime, new images for every batch.

    Attributes
    ----------
    network : Network
        Whose decoder draws them.
    n : int
        How many images one epoch takes.
    output : {"mean", "bernoulli"}
        Decoder means, or Bernoulli draws from them.

    Examples
    --------
    >>> images = Images(Network(20, torch.Generator().manual_seed(0)), 6)
    >>> images.shape, len(images.at(np.array([0, 4])))
    ((6, 28, 28), 2)
    >>> images.draw(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 28, 28])
    """

    network: Network
    n: int
    output: Output = "mean"

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, then the shape of one."""
        return (self.n, 28, 28)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return self.n

    def at(self, indices: NDArray[np.intp]) -> "Images":
        """The data set of the images at these positions."""
        return Images(self.network, len(indices), self.output)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n images, on the device of the network and of the generator."""
        return draw(self.network, n, generator, self.output)


def draw(network: Network, n: int, generator: torch.Generator, output: Output = "mean") -> Tensor:
    """Draw n images (n, 28, 28) of a trained network: latents from N(0, I), decoded.

    Examples
    --------
    >>> images = draw(Network(20, torch.Generator().manual_seed(0)), 2, torch.Generator().manual_seed(0), "bernoulli")
    >>> images.shape, sorted(images.unique().tolist())
    (torch.Size([2, 28, 28]), [0.0, 1.0])
    """
    with torch.no_grad():
        latents = torch.randn(n, network.mean.out_features, generator=generator, device=network.device)
        means = torch.cat([network.decode(part).sigmoid() for part in torch.split(latents, CHUNK)])
        return means if output == "mean" else torch.bernoulli(means, generator=generator)


def family(
    settings: Vae, device: torch.device | str = "cpu", tick: Callable[[int], object] = lambda images: None
) -> Family:
    """The network with its training as a model family; theta is a `Network` in evaluation mode.

    Parameters
    ----------
    settings : Vae
    device : torch.device or str
        Where networks and images are kept.
    tick : callable
        Told after each batch how many images it had: for progress bars.

    Raises
    ------
    FloatingPointError
        When the loss is no longer a number.

    Examples
    --------
    >>> tiny = family(Vae(mnist="embedded", digits=4, epochs=1, batch=2))
    >>> network = tiny.fit(np.zeros((4, 28, 28), np.float32), np.random.default_rng(0), None)
    >>> len(tiny.sample(network, 4, np.random.default_rng(1)))
    4
    """

    def fit(data: Data, rng: Generator, previous: Network | None) -> Network:
        return train(data, rng, settings, device, tick)

    def sample(network: Network, n: int, rng: Generator) -> Data:
        if settings.draws == "fresh":
            return Images(network, n, settings.output)
        return draw(network, n, torch_generator(rng, network.device), settings.output).cpu().numpy()

    return Family(fit, sample)


def train(
    data: Data,
    rng: Generator,
    settings: Vae,
    device: torch.device | str = "cpu",
    tick: Callable[[int], object] = lambda images: None,
) -> Network:
    """Train a new network on images, as the authors do.

    Parameters
    ----------
    data : array, float32, shape (n, 28, 28), or Images, or both joined
        Pixels in [0, 1].
    rng : numpy.random.Generator
        For start values, order and latents.
    settings, device, tick
        As in `family`.

    Examples
    --------
    >>> settings = Vae(mnist="embedded", digits=4, epochs=1, batch=2)
    >>> train(np.zeros((4, 28, 28), np.float32), np.random.default_rng(0), settings).loss > 0
    tensor(True)
    """
    start, generator = torch_generator(rng, "cpu"), torch_generator(rng, device)
    network = _placed(Network(settings.latents, start), device)
    optimiser = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    held = _held(data, device)
    for epoch in range(settings.epochs):
        total, batches = torch.zeros((), device=device), 0
        for images in _batches(held, settings.batch, start, generator):
            optimiser.zero_grad()
            loss = batch_loss(network, images, generator)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total, batches = total + loss.detach(), batches + 1
            tick(len(images))
        network.loss.copy_(total / batches)
        if not torch.isfinite(network.loss):
            raise FloatingPointError(f"epoch {epoch}: the loss is {network.loss.item()}; try a smaller learning_rate")
    return network.eval().requires_grad_(False)


def batch_loss(network: Network, images: Tensor, generator: torch.Generator) -> Tensor:
    """Negative evidence lower bound in nats, summed over the images (n, 28, 28); one posterior draw for each.

    Examples
    --------
    >>> network = Network(20, torch.Generator().manual_seed(0))
    >>> loss = batch_loss(network, torch.zeros(2, 28, 28), torch.Generator().manual_seed(0))
    >>> round(loss.item(), -2)
    1300.0
    """
    logits, mean, log_variance = reconstruct(network, images, generator)
    divergence = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum()
    return functional.binary_cross_entropy_with_logits(logits, images, reduction="sum") + divergence


def reconstruct(network: Network, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Encode images, draw a latent vector for each from q(z | x), decode it.

    Returns
    -------
    logits : Tensor, shape (n, 28, 28)
        Log-odds of the decoded pixels.
    mean, log_variance : Tensor, shape (n, latents)
        Of q(z | x).

    Examples
    --------
    >>> network = Network(20, torch.Generator().manual_seed(0))
    >>> [tuple(part.shape) for part in reconstruct(network, torch.zeros(2, 28, 28), torch.Generator().manual_seed(0))]
    [(2, 28, 28), (2, 20), (2, 20)]
    """
    mean, log_variance = network.encode(images)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    return network.decode(mean + noise * (log_variance / 2).exp()), mean, log_variance


def pack(network: Network) -> dict[str, NDArray[Any]]:
    """The parameters and the loss as arrays, to be stored.

    Examples
    --------
    >>> sorted(pack(Network(20)))[:2]
    ['conv1.bias', 'conv1.weight']
    """
    return {name: value.cpu().contiguous().numpy() for name, value in network.state_dict().items()}


def unpack(arrays: dict[str, NDArray[Any]], device: torch.device | str = "cpu") -> Network:
    """The network of stored arrays, in float32 whatever they were stored in.

    Raises
    ------
    ValueError
        Arrays of other names or shapes.

    Examples
    --------
    >>> network = Network(20, torch.Generator().manual_seed(0))
    >>> bool((unpack(pack(network)).mean.weight == network.mean.weight).all())
    True
    """
    try:
        network = Network(len(arrays["mean.bias"]))
        network.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in arrays.items()})
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"arrays = {sorted(arrays)}: not the weights of this network ({error})") from error
    return _placed(network, device).eval().requires_grad_(False)


def _placed(network: Network, device: torch.device | str) -> Network:
    """On the device, channels last in memory: the faster order for convolutions."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _start(module: nn.Module, generator: torch.Generator) -> None:
    """Start values as torch's own: uniform within 1 / sqrt(fan in), which is weight[0].numel()."""
    bound = 1 / sqrt(module.weight[0].numel())  # type: ignore[index]
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)


def _held(data: Data, device: torch.device | str) -> list[Tensor | Images]:
    """The parts of a data set, arrays moved to the device once."""
    held: list[Tensor | Images] = []
    for part in data.parts if isinstance(data, Joined) else (data,):
        if not isinstance(part, np.ndarray | Images) or part.dtype != np.float32 or part.shape[1:] != (28, 28):
            raise ValueError(f"data = {part!r:.80}: must be float32 images (n, 28, 28), Images, or both joined")
        held.append(torch.tensor(part, device=device) if isinstance(part, np.ndarray) else part)
    return held


def _batches(
    held: list[Tensor | Images], batch: int, order: torch.Generator, generator: torch.Generator
) -> Iterator[Tensor]:
    """One epoch: all held images in random order, those that are drawn when asked drawn anew."""
    sizes = [len(part) for part in held]
    starts = np.cumsum([0, *sizes])
    positions = torch.randperm(sum(sizes), generator=order)
    for indices in torch.split(positions, batch):
        images = []
        for part, first, last in zip(held, starts, starts[1:], strict=False):
            own = indices[(indices >= first) & (indices < last)] - first
            if len(own):
                images.append(part.draw(len(own), generator) if isinstance(part, Images) else part[own.to(part.device)])
        yield torch.cat(images)
