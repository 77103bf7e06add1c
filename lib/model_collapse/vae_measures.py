r"""What is measured of each generation of the variational autoencoder; images are float32 (n, 28, 28) in [0, 1].

- `elbo`: how well the network describes real digits, in nats per image;
- `probe`: where generated images lie in the latent space of the first network, the one trained on real digits; this is
  what the paper shows of its VAE;
- `classes` and `features`, by a classifier of real digits (`vae_classifier`): which digits are still written;
- `precision_recall` (`vae_neighbours`): how many generated images lie among real ones, and real ones among generated.

All are functions of networks and tensors that keep no state. Randomness comes from a `torch.Generator` on the device of
the images; for 10,000 images some 400 MB are held at once, beside the arguments.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model_collapse.arguments import integer
from model_collapse.settings import Output
from model_collapse.vae import CHUNK, Network, draw, reconstruct
from model_collapse.vae_classifier import (
    Classes,
    Classifier,
    accuracy,
    checked_images,
    classes,
    entropy,
    features,
    train_classifier,
)
from model_collapse.vae_neighbours import PrecisionRecall, precision_recall

__all__ = [
    "LEVELS",
    "Classes",
    "Classifier",
    "Elbo",
    "PrecisionRecall",
    "Probe",
    "accuracy",
    "checked_images",
    "classes",
    "elbo",
    "entropy",
    "features",
    "latent_means",
    "measures",
    "precision_recall",
    "probe",
    "train_classifier",
]

LEVELS = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)


class Elbo(NamedTuple):
    """The evidence lower bound and its two parts, in nats per image.

    Attributes
    ----------
    elbo : float
        reconstruction - kl.
    reconstruction : float
        Mean log-likelihood of an image under the decoder, at a draw from q(z | x).
    kl : float
        Mean divergence of q(z | x) from N(0, I).

    Examples
    --------
    >>> Elbo(elbo=-100.0, reconstruction=-75.0, kl=25.0).kl
    25.0
    """

    elbo: float
    reconstruction: float
    kl: float


class Probe(NamedTuple):
    """Latent means of images, all coordinates of all images together.

    Attributes
    ----------
    mean, sd : float
        Of all n x latents values (`numpy.mean` and `numpy.std`, as the authors take them).
    quantiles : tuple of float
        Of all values, at `LEVELS`.
    norms : tuple of float
        Of the Euclidean norms of the n vectors: median and 99th percentile.

    Examples
    --------
    >>> Probe(mean=0.0, sd=1.0, quantiles=(-2.6, -1.6, -0.7, 0, 0.7, 1.6, 2.6), norms=(4.4, 6.1)).sd
    1.0
    """

    mean: float
    sd: float
    quantiles: tuple[float, ...]
    norms: tuple[float, ...]


def elbo(network: Network, images: Tensor, generator: torch.Generator) -> Elbo:
    r"""Evidence lower bound of images under a network, with one draw from q(z | x) for each image.

    .. math:: \log p(x) \ge \mathbb E_{q(z \mid x)} \log p(x \mid z) -
        \mathrm{KL}\bigl(q(z \mid x) \,\|\, \mathcal N(0, I)\bigr),

    where the pixels are independent Bernoulli variables given z. For grey pixels x in [0, 1] the formula
    :math:`x \log \hat x + (1 - x) \log(1 - \hat x)` is used as it stands, as the authors' binary cross-entropy does. It
    is then no density of grey images (it does not integrate to 1) but the mean bound over images whose pixels are
    drawn black or white with these probabilities, q being that of the grey image.

    Parameters
    ----------
    network : Network
    images : Tensor, float32, shape (n, 28, 28)
        In [0, 1], on the device of the network.
    generator : torch.Generator
        On that device.

    Raises
    ------
    ValueError
        Images of another type, shape or range.

    Examples
    --------
    >>> network = Network(20, torch.Generator().manual_seed(0))
    >>> bound = elbo(network, torch.zeros(2, 28, 28), torch.Generator().manual_seed(0))
    >>> -700 < bound.elbo < -500  # untrained: not far from 784 log(1 / 2) = -543
    True
    """
    parts = checked_images(images, "images").split(CHUNK)  # type: ignore[no-untyped-call]
    reconstruction, kl = torch.zeros(2, dtype=torch.float64, device=images.device)
    for part in parts:
        with torch.no_grad():
            logits, mean, log_variance = reconstruct(network, part, generator)
            pixels = functional.binary_cross_entropy_with_logits(logits, part, reduction="none")
            reconstruction -= pixels.sum(dtype=torch.float64)
            kl += 0.5 * (mean.square() + log_variance.expm1() - log_variance).sum(dtype=torch.float64)
    likelihood, divergence = float(reconstruction) / len(images), float(kl) / len(images)
    return Elbo(likelihood - divergence, likelihood, divergence)


def latent_means(network: Network, images: Tensor) -> Tensor:
    """Means of q(z | x) under the encoder of a network: (n, latents) for images (n, 28, 28).

    Raises
    ------
    ValueError
        Images of another type, shape or range.

    Examples
    --------
    >>> latent_means(Network(20, torch.Generator().manual_seed(0)), torch.zeros(2, 28, 28)).shape
    torch.Size([2, 20])
    """
    parts = checked_images(images, "images").split(CHUNK)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return torch.cat([network.encode(part)[0] for part in parts])


def probe(first: Network, images: Tensor) -> Probe:
    """Where images lie in the latent space of the network that was trained on real digits.

    The paper's measure: it shows the density of these values, and its code prints their mean and standard deviation for
    100 images (2,000 values).

    Parameters
    ----------
    first : Network
        Of generation 0.
    images : Tensor, float32, shape (n, 28, 28)
        Generated images, in [0, 1]; or real ones, for comparison.

    Raises
    ------
    ValueError
        Images of another type, shape or range.

    Examples
    --------
    >>> seen = probe(Network(20, torch.Generator().manual_seed(0)), torch.zeros(2, 28, 28))
    >>> seen.quantiles[0] <= seen.mean <= seen.quantiles[-1]
    True
    """
    means = latent_means(first, images).cpu().double().numpy()
    norms = np.quantile(np.linalg.norm(means, axis=1), (0.5, 0.99))
    quantiles = np.quantile(means, LEVELS)
    return Probe(float(means.mean()), float(means.std()), tuple(quantiles.tolist()), tuple(norms.tolist()))


def measures(
    network: Network,
    first: Network,
    real_images: Tensor,
    classifier: Classifier,
    n: int,
    generator: torch.Generator,
    output: Output = "mean",
) -> dict[str, float]:
    """All metrics of one generation.

    Parameters
    ----------
    network, first : Network
        Of this generation, and of generation 0.
    real_images : Tensor, float32, shape (m, 28, 28)
        Digits that no network was trained on.
    classifier : Classifier
        Trained on other real digits than these.
    n : int
        Images that are generated to be measured; of these and of the real ones, the first min(m, n) are compared for
        precision and recall.
    generator : torch.Generator
        On the device of the networks; used for the images, then for the bound.
    output : {"mean", "bernoulli"}
        What a generated image is: see `settings.Vae`.

    Returns
    -------
    dict of str to float
        `training_loss`; `elbo`, `reconstruction`, `kl` of the real images; `latent_mean`, `latent_sd`, `latent_q005` to
        `latent_q995` (quantiles, in thousandths), `latent_norm_q500` and `latent_norm_q990` of the generated ones;
        `share_0` to `share_9`, `entropy` (bits), `lost_digits`, `confidence`; `precision`, `recall`.

    Raises
    ------
    ValueError
        Images of another type, shape or range; n or m below 4.

    Examples
    --------
    >>> network, images = Network(20, torch.Generator().manual_seed(0)), torch.zeros(5, 28, 28)
    >>> classifier = Classifier(torch.Generator().manual_seed(0))
    >>> row = measures(network, network, images, classifier, 5, torch.Generator().manual_seed(0))
    >>> list(row)[:6]
    ['training_loss', 'elbo', 'reconstruction', 'kl', 'latent_mean', 'latent_sd']
    """
    if len(checked_images(real_images, "real_images")) < 4:
        raise ValueError(f"real_images: at least 4 are needed, got {len(real_images)}")
    generated = draw(network, integer(n, "n", 4), generator, output)
    seen, kinds, m = probe(first, generated), classes(classifier, generated), min(n, len(real_images))
    pair = precision_recall(features(classifier, real_images[:m]), features(classifier, generated[:m]))
    return {
        "training_loss": float(network.loss),
        **elbo(network, real_images, generator)._asdict(),
        "latent_mean": seen.mean,
        "latent_sd": seen.sd,
        **{f"latent_q{1000 * p:03.0f}": value for p, value in zip(LEVELS, seen.quantiles, strict=True)},
        "latent_norm_q500": seen.norms[0],
        "latent_norm_q990": seen.norms[1],
        **{f"share_{digit}": float(share) for digit, share in enumerate(kinds.counts / n)},
        "entropy": kinds.entropy,
        "lost_digits": float(len(kinds.lost)),
        "confidence": kinds.confidence,
        **pair._asdict(),
    }
