r"""A small convolutional classifier of digits, and what it tells of generated images: their classes and their features.

It is trained on real digits only. Convolutions 1 - 16 - 32 (4 x 4, stride 2, padding 1), a hidden layer of 64 units and
the output of 10, with ReLU: 109,562 parameters. What it says of an image that looks like no digit is still a digit, so
class counts are read together with its mean confidence, and with its accuracy on real digits that it was not trained
on.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model_collapse.arguments import integer, real
from model_collapse.torch_random import torch_generator
from model_collapse.vae import CHUNK

DIGITS = 10
SHIFT = 1  # largest shift of training images, in pixels: they have empty borders


class Classifier(nn.Module):
    """The network: images to log-odds of the ten digits.

    Parameters
    ----------
    generator : torch.Generator
        On the CPU, for the start values: normal weights of variance 2 / fan-in (He et al., 2015), no biases.

    Examples
    --------
    >>> classifier = Classifier(torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in classifier.parameters())
    109562
    >>> classifier(torch.zeros(3, 28, 28)).shape, classifier.hidden(torch.zeros(3, 28, 28)).shape
    (torch.Size([3, 10]), torch.Size([3, 64]))
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        with torch.device("meta"):  # torch would draw start values from its global generator
            self.conv1 = nn.Conv2d(1, 16, 4, stride=2, padding=1)
            self.conv2 = nn.Conv2d(16, 32, 4, stride=2, padding=1)
            self.linear = nn.Linear(32 * 7 * 7, 64)
            self.output = nn.Linear(64, DIGITS)
        self.to_empty(device="cpu")
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
            else:
                nn.init.zeros_(parameter)

    def hidden(self, images: Tensor) -> Tensor:
        """The last hidden layer, (n, 64), of images (n, 28, 28) in [0, 1]."""
        maps = functional.relu(self.conv1(images.unsqueeze(1)))
        maps = functional.relu(self.conv2(maps)).flatten(1)
        return functional.relu(self.linear(maps))

    def forward(self, images: Tensor) -> Tensor:
        """Log-odds of the digits, (n, 10), up to a constant per image."""
        log_odds: Tensor = self.output(self.hidden(images))
        return log_odds


class Classes(NamedTuple):
    """What digits a classifier sees in images.

    Attributes
    ----------
    counts : array, int64, shape (10,)
        Images of each digit: of the most probable one of each image.
    entropy : float
        Of the shares, in bits; at most log2 10 = 3.32. From n images of a law it is some 6.5 / n bits too low.
    lost : tuple of int
        The digits whose share is below the threshold.
    confidence : float
        Mean over the images of the probability of the most probable digit.

    Examples
    --------
    >>> Classes(np.array([3, 1, 0, 0, 0, 0, 0, 0, 0, 0]), 0.81, (2, 3, 4, 5, 6, 7, 8, 9), 0.9).lost[0]
    2
    """

    counts: NDArray[np.int64]
    entropy: float
    lost: tuple[int, ...]
    confidence: float


def train_classifier(
    images: Tensor, labels: Tensor, rng: Generator, *, epochs: int, batch: int = 64, learning_rate: float = 3e-3
) -> Classifier:
    """Train a classifier: Adam with a step that falls linearly to 0, each batch shifted by up to a pixel.

    4,000 digits and 8 epochs give some 97% on other digits, 60,000 and 4 epochs some 99%.

    Parameters
    ----------
    images : Tensor, float32, shape (n, 28, 28)
        Real digits, pixels in [0, 1]; the classifier is trained where they are.
    labels : Tensor of integers, shape (n,)
        0 to 9.
    rng : numpy.random.Generator
        For start values, order and shifts.
    epochs, batch : int
        Passes over the images, and images per step.
    learning_rate : float
        Of Adam, at the start.

    Returns
    -------
    Classifier
        In evaluation mode, without gradients.

    Raises
    ------
    ValueError
        Images or labels of another type or shape, another number of labels than images, a label that is no digit,
        epochs or batch below 1, a learning rate that is not positive.

    Examples
    --------
    >>> dark_and_bright = torch.stack([torch.zeros(28, 28), torch.ones(28, 28)]).repeat(8, 1, 1)
    >>> labels = torch.tensor([0, 1]).repeat(8)
    >>> classifier = train_classifier(dark_and_bright, labels, np.random.default_rng(0), epochs=20)
    >>> accuracy(classifier, dark_and_bright, labels)
    1.0
    """
    checked_images(images, "images")
    integer(epochs, "epochs")
    if real(learning_rate, "learning_rate") <= 0:
        raise ValueError(f"learning_rate = {learning_rate}: must be > 0")
    targets, generator = _targets(labels, images), torch_generator(rng)
    classifier = Classifier(generator).to(images.device)
    optimiser = torch.optim.Adam(classifier.parameters(), lr=learning_rate, fused=True)
    steps = epochs * -(-len(images) // integer(batch, "batch"))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for chosen in order.split(batch):  # type: ignore[no-untyped-call]
            shift = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
            log_odds = classifier(images[chosen].roll(shift, (1, 2)))
            optimiser.zero_grad()
            functional.cross_entropy(log_odds, targets[chosen]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return classifier.eval().requires_grad_(False)


def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of images whose most probable digit is their label.

    Raises
    ------
    ValueError
        As in `train_classifier`.

    Examples
    --------
    >>> images = torch.zeros(4, 28, 28)  # all the same, so at most one label is right
    >>> accuracy(Classifier(torch.Generator().manual_seed(0)), images, torch.tensor([0, 0, 0, 1])) <= 0.75
    True
    """
    targets = _targets(labels, checked_images(images, "images"))
    return float((_log_odds(classifier, images).argmax(1) == targets).double().mean())


def features(classifier: Classifier, images: Tensor) -> Tensor:
    """The last hidden layer of a classifier, (n, 64) float32, for images (n, 28, 28), in chunks.

    Raises
    ------
    ValueError
        Images of another type or shape.

    Examples
    --------
    >>> features(Classifier(torch.Generator().manual_seed(0)), torch.ones(5, 28, 28)).shape
    torch.Size([5, 64])
    """
    parts = checked_images(images, "images").split(CHUNK)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return torch.cat([classifier.hidden(part) for part in parts])


def classes(classifier: Classifier, images: Tensor, threshold: float = 0.02) -> Classes:
    """Count the digits that a classifier sees in images.

    Parameters
    ----------
    classifier : Classifier
        Trained on real digits.
    images : Tensor, float32, shape (n, 28, 28)
        Pixels in [0, 1].
    threshold : float
        A digit is called lost where its share of the images is below: by default a fifth of what ten equally frequent
        digits have. Misread digits alone give a lost one some share (4 is read as 9, say), so lower is not better.

    Raises
    ------
    ValueError
        Images of another type or shape, a threshold outside [0, 1].

    Examples
    --------
    >>> seen = classes(Classifier(torch.Generator().manual_seed(0)), torch.zeros(8, 28, 28))
    >>> int(seen.counts.max()), seen.entropy, len(seen.lost)
    (8, 0.0, 9)
    """
    if not 0 <= real(threshold, "threshold") <= 1:
        raise ValueError(f"threshold = {threshold}: must be a share from 0 to 1")
    best, digits = _log_odds(classifier, checked_images(images, "images")).softmax(1).max(1)
    counts = np.bincount(digits.cpu().numpy(), minlength=DIGITS).astype(np.int64)
    shares = counts / counts.sum()
    lost = tuple(np.flatnonzero(shares < threshold).tolist())
    return Classes(counts, entropy(counts), lost, float(best.double().mean()))


def entropy(counts: NDArray[np.integer]) -> float:
    """Entropy in bits of the shares that counts (K,) have of their sum, which must not be 0.

    Examples
    --------
    >>> entropy(np.array([2, 1, 1, 0]))
    1.5
    """
    shares = counts[counts > 0] / counts.sum()
    return float(np.sum(shares * np.log2(1 / shares)))


def checked_images(images: Tensor, name: str) -> Tensor:
    """Return images as they are if they are such: a float32 tensor of shape (n, 28, 28), n >= 1, in [0, 1].

    Raises
    ------
    ValueError
        Anything else.

    Examples
    --------
    >>> checked_images(torch.zeros(2, 28, 28, dtype=torch.uint8), "images")
    Traceback (most recent call last):
    ValueError: images: must be a float32 tensor of shape (n, 28, 28), n >= 1, got torch.uint8 of shape (2, 28, 28)
    """
    allowed = "a float32 tensor of shape (n, 28, 28), n >= 1"
    if not isinstance(images, Tensor):
        raise ValueError(f"{name}: must be {allowed}, got {type(images).__name__}")
    if images.dtype != torch.float32 or images.ndim != 3 or images.shape[1:] != (28, 28) or not len(images):
        raise ValueError(f"{name}: must be {allowed}, got {images.dtype} of shape {tuple(images.shape)}")
    low, high = (float(x) for x in torch.aminmax(images))
    if not (low >= 0 and high <= 1):  # false for NaN
        raise ValueError(f"{name}: pixels must lie from 0 to 1, got {low} to {high}")
    return images


def _targets(labels: Tensor, images: Tensor) -> Tensor:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != images.shape[:1]:
        got = f"{labels.dtype} of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"labels: must be a tensor of {len(images)} integers, one for each image, got {got}")
    low, high = (int(x) for x in torch.aminmax(labels))
    if low < 0 or high >= DIGITS:
        raise ValueError(f"labels: must be digits from 0 to 9, got {low} to {high}")
    return labels.to(images.device, torch.int64)


def _log_odds(classifier: Classifier, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([classifier(part) for part in images.split(CHUNK)])  # type: ignore[no-untyped-call]
