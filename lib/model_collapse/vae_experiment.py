"""The VAE experiment as a run: its digits, its classifier, and what is measured and kept of each generation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from model_collapse import vae
from model_collapse.data_images import Digits, mnist
from model_collapse.process import Generation
from model_collapse.runs import Experiment
from model_collapse.settings import Vae
from model_collapse.torch_random import torch_generator
from model_collapse.vae_classifier import Classifier, accuracy, train_classifier
from model_collapse.vae_measures import measures

MEASURED = 2_000  # images that are drawn of each generation to be measured
KEPT = 100  # images that are kept of each generation
CLASSIFIER_EPOCHS = {"embedded": 8, "full": 4}


class Judge(NamedTuple):
    """What generations are measured against: real digits that no network saw, and a classifier of digits.

    Attributes
    ----------
    images : Tensor, shape (m, 28, 28)
        Real test digits, in [0, 1].
    classifier : Classifier
        Trained on the real training digits.
    accuracy : float
        Of the classifier, on the test digits.

    Examples
    --------
    >>> Judge(torch.zeros(4, 28, 28), Classifier(torch.Generator()), 0.98).accuracy
    0.98
    """

    images: Tensor
    classifier: Classifier
    accuracy: float


def unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey values as pixels in [0, 1].

    Examples
    --------
    >>> unit(np.array([0, 255], np.uint8))
    array([0., 1.], dtype=float32)
    """
    return images.astype(np.float32) / np.float32(255)


def judge(train: Digits, test: Digits, rng: Generator, epochs: int, device: torch.device | str = "cpu") -> Judge:
    """Train the classifier and state its accuracy.

    Examples
    --------
    >>> few = Digits(*(part[:50] for part in mnist("embedded", "train")))
    >>> judge(few, few, np.random.default_rng(0), epochs=1).images.shape
    torch.Size([50, 28, 28])
    """
    images, test_images = (torch.tensor(unit(digits.images), device=device) for digits in (train, test))
    labels, test_labels = (torch.tensor(digits.labels, device=device) for digits in (train, test))
    classifier = train_classifier(images, labels, rng, epochs=epochs)
    return Judge(test_images, classifier, accuracy(classifier, test_images, test_labels))


def observe(
    g: Generation, first: vae.Network, rng: Generator, against: Judge
) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
    """Metrics of a generation and some of its images (uint8), both of decoder means, whatever the next trains on.

    Examples
    --------
    >>> network = vae.Network(20, torch.Generator().manual_seed(0)).eval().requires_grad_(False)
    >>> against = Judge(torch.zeros(4, 28, 28), Classifier(torch.Generator().manual_seed(0)), 0.1)
    >>> metrics, arrays = observe(Generation(0, None, network), network, np.random.default_rng(0), against)
    >>> metrics["classifier_accuracy"], arrays["images"].shape
    (0.1, (100, 28, 28))
    """
    generator = torch_generator(rng, g.theta.device)
    metrics = measures(g.theta, first, against.images, against.classifier, MEASURED, generator)
    images = vae.draw(g.theta, KEPT, generator)
    kept = (images * 255).round().to(torch.uint8).cpu().numpy()
    return {**metrics, "classifier_accuracy": against.accuracy}, {"images": kept}


def experiment(
    settings: Vae, rng: Generator, tick: Callable[[int], object], *, folder: str | Path | None = None
) -> Experiment:
    """The experiment of these settings, on a GPU if there is one.

    Parameters
    ----------
    settings : Vae
    rng : numpy.random.Generator
        For the classifier.
    tick : callable
        Told after each batch how many images it had.
    folder : path, optional
        Of the original MNIST files, for the full MNIST; without it they come from the hub.

    Examples
    --------
    >>> tiny = Vae(mnist="embedded", digits=20, epochs=1, batch=10)
    >>> experiment(tiny, np.random.default_rng(0), print).original.shape
    (20, 28, 28)
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    source = "embedded" if settings.mnist == "embedded" else folder or "hub"
    train, test = mnist(source, "train"), mnist(source, "test")
    judges: list[Judge] = []  # made when the first generation is measured: a finished run needs none

    def observed(g: Generation, first: vae.Network, stream: Generator) -> tuple[dict[str, float], dict[str, Any]]:
        if not judges:
            judges.append(judge(train, test, rng, CLASSIFIER_EPOCHS[settings.mnist], device))
        return observe(g, first, stream, judges[0])

    return Experiment(
        family=vae.family(settings, device, tick),
        original=unit(train.images[: settings.digits]),
        n=settings.digits,
        observe=observed,
        pack=vae.pack,
        unpack=lambda arrays: vae.unpack(dict(arrays), device),
        work=settings.digits * settings.epochs,
        size=3_000_000,
    )
