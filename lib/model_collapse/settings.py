"""One frozen dataclass per experiment: its defaults are the paper's, and a comment names each value's source.

*paper*: the article states it; *code*: the authors' published notebooks, where the article is silent (mixtures and VAEs
are left to its supplement, whose text was not available to us); *library*: what the authors' code leaves to
scikit-learn; *ours*: neither says it. The scales `small`, `colab` and `paper` are values of the same classes (`scale`),
so that settings never mix unseen.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

from model_collapse.arguments import integer, real
from model_collapse.process import Mixture

Scale = Literal["small", "colab", "paper"]
Start = Literal["cold", "warm"]
Mnist = Literal["full", "embedded"]
Output = Literal["mean", "bernoulli"]
Draws = Literal["fresh", "fixed"]


@dataclass(frozen=True)
class Gmm:
    """Gaussian mixtures fitted by EM to points in the plane (an experiment of the paper's supplement).

    Attributes
    ----------
    n : int
        Points per generation.
    blobs : {1, 2}
        Gaussians that the original points come from: 1 as coded, 2 as described.
    components : int
        Of each fitted mixture.
    last_generation : int
        Index of the last generation; generation 0 is fitted to original points.
    tol : float
        Stopping rule of the EM algorithm: the smallest gain in mean log-likelihood that is worth going on for.
    max_iter : int
        The most iterations of the EM algorithm.
    reg_covar : float
        Added to the diagonal of each fitted covariance.
    start : {"cold", "warm"}
        "cold": k-means anew in each generation; "warm": from the predecessor's parameters.
    alpha : float
        Share of the new model in the next generation's points.
    beta : float
        Share of the previous generation's points.
    gamma : float
        Share of original points.

    Raises
    ------
    ValueError
        A value outside what is allowed; the message names it.

    Examples
    --------
    >>> Gmm().n, scale(Gmm, "small").last_generation
    (1000, 20)
    """

    n: int = 1000  # code
    blobs: int = 1  # code; two as described
    components: int = 2  # code
    last_generation: int = 2050  # code
    tol: float = 1e-5  # code
    max_iter: int = 2000  # code
    reg_covar: float = 1e-6  # library
    start: Start = "cold"  # code
    alpha: float = 1.0  # code
    beta: float = 0.0  # code
    gamma: float = 0.0  # code

    def __post_init__(self) -> None:
        integer(self.n, "n", 10)
        integer(self.blobs, "blobs", 1, 2)
        integer(self.components, "components", 1, self.n)
        integer(self.last_generation, "last_generation", 0)
        integer(self.max_iter, "max_iter")
        _positive(self, "tol")
        if real(self.reg_covar, "reg_covar") < 0:
            raise ValueError(f"reg_covar = {self.reg_covar}: must be >= 0")
        _one_of(self, "start", Start)
        _mixed(self, self.n)


@dataclass(frozen=True)
class Vae:
    """A convolutional variational autoencoder on MNIST (an experiment of the paper's supplement).

    Attributes
    ----------
    mnist : {"full", "embedded"}
        Which digits: all 60,000, or the 4,000 that are at hand without a network.
    digits : int
        Images per generation; of MNIST the first ones.
    latents : int
        Dimension of the latent space.
    epochs : int
        Passes over the images of a generation.
    batch : int
        Images per step of the optimiser.
    learning_rate : float
        Of Adam.
    weight_decay : float
        Of Adam, in its L2 form.
    last_generation : int
        Index of the last generation; generation 0 is trained on real digits.
    output : {"mean", "bernoulli"}
        A generated image is the decoder's mean (grey), or Bernoulli draws from it (black and white).
    draws : {"fresh", "fixed"}
        Generated images are drawn anew for every batch of every epoch, or once, a set of `digits` images.
    alpha : float
        Share of the new model in the next generation's images.
    beta : float
        Share of the previous generation's images.
    gamma : float
        Share of original images.

    Raises
    ------
    ValueError
        A value outside what is allowed; the message names it.

    Examples
    --------
    >>> Vae().epochs, scale(Vae, "small").digits
    (30, 2000)
    """

    mnist: Mnist = "full"  # code
    digits: int = 60_000  # code
    latents: int = 20  # code
    epochs: int = 30  # code
    batch: int = 256  # code
    learning_rate: float = 1e-3  # code
    weight_decay: float = 1e-5  # code
    last_generation: int = 10  # ours: the preprint's figures show 0 to 9 and 5, 10, 20; the code runs 5
    output: Output = "mean"  # code
    draws: Draws = "fresh"  # code
    alpha: float = 1.0  # code
    beta: float = 0.0  # code
    gamma: float = 0.0  # code

    def __post_init__(self) -> None:
        _one_of(self, "mnist", Mnist)
        integer(self.digits, "digits", 1, 60_000 if self.mnist == "full" else 4_000)
        for name in ("latents", "epochs"):
            integer(getattr(self, name), name)
        integer(self.batch, "batch", 1, self.digits)
        integer(self.last_generation, "last_generation", 0)
        _positive(self, "learning_rate")
        if real(self.weight_decay, "weight_decay") < 0:
            raise ValueError(f"weight_decay = {self.weight_decay}: must be >= 0")
        _one_of(self, "output", Output)
        _one_of(self, "draws", Draws)
        _mixed(self, self.digits)


Settings = Gmm | Vae
S = TypeVar("S", Gmm, Vae)


def mixture(settings: Settings) -> Mixture:
    """The mixture that draws each next generation: fixed counts and re-used points, as experiments do.

    Examples
    --------
    >>> mixture(Vae(alpha=0.9, gamma=0.1)).weights
    (0.9, 0.0, 0.1)
    """
    return Mixture(settings.alpha, settings.beta, settings.gamma)


def digest(settings: Settings, **labels: Any) -> str:
    """SHA-256 of the settings and of what else tells runs apart, such as the seed.

    Examples
    --------
    >>> digest(Vae(), seed=0) == digest(Vae(epochs=30), seed=0) != digest(Vae(), seed=1)
    True
    """
    content = {"experiment": type(settings).__name__, "settings": asdict(settings), **labels}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _positive(settings: Settings, name: str) -> None:
    if real(getattr(settings, name), name) <= 0:
        raise ValueError(f"{name} = {getattr(settings, name)}: must be > 0")


def _one_of(settings: Settings, name: str, allowed: Any) -> None:
    if getattr(settings, name) not in get_args(allowed):
        raise ValueError(f"{name} = {getattr(settings, name)!r}: allowed are {get_args(allowed)}")


def _mixed(settings: Settings, n: int) -> None:
    """Refuse shares that are none, or that round to no point of n."""
    mixture(settings).counts(n, None)  # type: ignore[arg-type]  # fixed shares draw nothing


SCALES: dict[tuple[type, str], Settings] = {
    (Gmm, "small"): Gmm(last_generation=20),
    (Gmm, "colab"): Gmm(),
    (Gmm, "paper"): Gmm(),
    (Vae, "small"): Vae(mnist="embedded", digits=2_000, epochs=8, batch=64, last_generation=4),
    (Vae, "colab"): Vae(),
    (Vae, "paper"): Vae(),
}


def scale(experiment: type[S], name: Scale) -> S:
    """The settings of an experiment at one of three scales.

    Parameters
    ----------
    experiment : type
        `Gmm` or `Vae`.
    name : {"small", "colab", "paper"}
        "small" runs on two processor cores in minutes, "colab" on a free T4 in less than an hour, "paper" is the
        paper's.

    Raises
    ------
    ValueError
        Another experiment or name.

    Examples
    --------
    >>> scale(Vae, "paper") == Vae()
    True
    """
    try:
        found = SCALES[experiment, name]
    except (KeyError, TypeError):
        known = [f"({kind.__name__}, {label!r})" for kind, label in SCALES]
        raise ValueError(f"scale({experiment!r}, {name!r}): allowed are {', '.join(known)}") from None
    return found  # type: ignore[return-value]


def scale_of(settings: Settings) -> str:
    """The scale whose settings these are, or "custom".

    Examples
    --------
    >>> scale_of(Vae()), scale_of(Vae(epochs=2))
    ('paper', 'custom')
    """
    names = [name for (_, name), known in SCALES.items() if known == settings]
    return names[-1] if names else "custom"
