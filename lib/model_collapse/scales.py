"""The scale card: a run beside the paper's, what both take, and what the run cannot show."""

from collections.abc import Mapping
from dataclasses import replace
from math import isnan

import pandas as pd

from model_collapse.settings import Gmm, Lm, Settings, Vae, scale_of

Card = tuple[dict[str, str], float, float]  # what is run, seconds per generation, gigabytes
LENGTH, FLOPS = 64, 4e10  # tokens of a block; operations per second of one core
T4 = {"float32": 8.1e12, "half": 65e12}  # operations per second of Colab's free GPU, by its maker (NVIDIA 2019)
SHARE = 0.1  # of a stated speed, what a run reaches: a cautious guess
TRAINED, DECODED = 3.0, 0.5  # passes through the VAE for an image that is learned, and for one that is decoded
BLOCKS = {  # of all text for training, validation and test, about: it depends on the tokeniser
    "wikitext2": (37_900, 3_900, 4_400),
    "wikipedia": (4_500, 600, 1_600),
}
TEXTS = {"wikitext2": "WikiText-2", "wikipedia": "Wikipedia articles"}
ARCHITECTURES = {  # parameters, vocabulary, layers, hidden size
    "tiny": (1.35e6, 4_096, 4, 128),
    "smollm2": (134.5e6, 49_152, 30, 576),
    "facebook/opt-125m": (125.2e6, 50_272, 12, 768),
}


def scale_card(settings: Settings) -> pd.DataFrame:
    """The card of a chapter's first cell: its run beside the paper's, what both take, and what the run cannot show.

    Times are those of one processor core and one seed: 1,000 images or 50 fits of 1,000 points a second; of language
    models 40 GFLOP a second. Of models that are not of the book neither time nor memory is guessed.

    Parameters
    ----------
    settings : Gmm, Vae or Lm

    Returns
    -------
    DataFrame
        One column for this run and one for the paper's settings; texts.

    Examples
    --------
    >>> from model_collapse.settings import scale
    >>> scale_card(scale(Vae, "small")).loc[["digits", "steps a generation", "time, one seed"]].to_numpy().tolist()
    [['2,000 (embedded MNIST)', '60,000 (full MNIST)'], ['256', '7,050'], ['1.3 minutes', '5.5 hours']]
    """
    return pd.DataFrame(
        {f"this run ({scale_of(settings)})": _card(settings), "paper scale": _card(type(settings)())}, dtype=object
    )


def _card(settings: Settings) -> dict[str, str]:
    if isinstance(settings, Gmm):
        card, seconds, memory = _mixtures(settings)
    elif isinstance(settings, Vae):
        card, seconds, memory = _images(settings)
    else:
        card, seconds, memory = _language(settings)
    return card | {
        "generations": f"0 to {settings.last_generation:,}",
        "time, one seed": _duration(seconds * (settings.last_generation + 1)),
        "memory": "depends on the model" if isnan(memory) else f"{memory:.1f} GB",
        "cannot show": _unseen(settings),
    }


def _mixtures(settings: Gmm) -> Card:
    card = {"points": f"{settings.n:,}", "Gaussians": f"{settings.blobs} original, {settings.components} fitted"}
    return card, settings.n / 50_000, 0.3


def _images(settings: Vae) -> Card:
    steps = settings.epochs * -(-settings.digits // settings.batch)
    card = {"digits": f"{settings.digits:,} ({settings.mnist} MNIST)", "epochs": f"{settings.epochs}"}
    card |= {"batch": f"{settings.batch}", "steps a generation": f"{steps:,}"}
    return card, settings.epochs * settings.digits / 1_000, 0.5 + 8e-6 * settings.digits


def _language(settings: Lm) -> Card:
    blocks = blocks_of(settings)[0]
    seconds, memory = _work(settings)
    card = {"model": settings.model, "text": TEXTS[settings.corpus]}
    card |= {"blocks of 64 tokens": f"{blocks:,}{'' if settings.blocks else ' (all)'}", "epochs": f"{settings.epochs}"}
    card |= {"batch": f"{settings.batch}", "steps a generation": f"{settings.epochs * -(-blocks // settings.batch):,}"}
    return card, seconds, memory


def _work(settings: Lm) -> tuple[float, float]:
    """Seconds per generation and gigabytes, from the products with weights and what is kept; NaN of unknown models."""
    if settings.model not in ARCHITECTURES:
        return float("nan"), float("nan")
    parameters, vocabulary, layers, hidden = ARCHITECTURES[settings.model]
    beams = settings.beams if settings.writing == "beams" else 1
    activations = (136 if settings.precision == "float32" else 68) * layers * hidden
    learning = settings.batch * LENGTH * (12 * vocabulary + activations)  # logits are float32
    writing = LENGTH * LENGTH * (1 + beams) * 8 * layers * hidden
    return operations(settings) / FLOPS, 0.5 + 1e-9 * (28 * parameters + max(learning, writing))


def operations(settings: Vae | Lm) -> float:
    """Floating-point operations of one generation, in whatever precision: the sum of `operations_by_precision`.

    Parameters
    ----------
    settings : Vae or Lm

    Returns
    -------
    float
        NaN of language models that are not of the book.

    Examples
    --------
    >>> from model_collapse.settings import scale
    >>> f"{operations(scale(Vae, 'colab')):.1e}, {operations(scale(Lm, 'colab')):.1e}"
    '1.7e+14, 1.5e+15'
    """
    return sum(operations_by_precision(settings).values())


def operations_by_precision(settings: Vae | Lm) -> dict[str, float]:
    """Floating-point operations of one generation: products alone, two for each multiply-add.

    A pass backward counts as two forward. Images are decoded anew for every batch; of a language model's blocks each
    is learned from `epochs` times, read as a prompt once, and continued by each beam. Its losses are always computed in
    float32: of validation blocks after each epoch, of test blocks and of the generation's own, and in generation 0 of
    test blocks twice more, which is spread over all generations here.

    Parameters
    ----------
    settings : Vae or Lm

    Returns
    -------
    dict of float
        By precision, "half" or "float32"; NaN of language models that are not of the book.

    Examples
    --------
    >>> from model_collapse.settings import scale
    >>> {name: f"{number:.1e}" for name, number in operations_by_precision(scale(Lm, "colab")).items()}
    {'half': '1.4e+15', 'float32': '1.1e+14'}
    """
    if isinstance(settings, Vae):
        each = 2 * (TRAINED + DECODED) * _multiply_adds(settings.latents)
        return {"float32": settings.epochs * settings.digits * each}
    parameters = ARCHITECTURES[settings.model][0] if settings.model in ARCHITECTURES else float("nan")
    blocks, validation, test = blocks_of(settings)
    beams = settings.beams if settings.writing == "beams" else 1
    scored = settings.epochs * validation + test + blocks + 2 * test / (settings.last_generation + 1)
    passes = {settings.precision: blocks * (3.0 * settings.epochs + 1 + beams)}
    passes["float32"] = passes.get("float32", 0.0) + scored
    return {precision: 2 * parameters * LENGTH * number for precision, number in passes.items()}


def minutes_at(settings: Vae | Lm, speeds: Mapping[str, float]) -> float:
    """Minutes of a whole run at these speeds, in operations per second, one for each precision.

    Examples
    --------
    >>> round(minutes_at(Vae(), {"float32": 1e12}))
    31
    """
    each = sum(number / speeds[precision] for precision, number in operations_by_precision(settings).items())
    return (settings.last_generation + 1) * each / 60


def minutes_on_t4(settings: Vae | Lm) -> float:
    """Minutes of a whole run on Colab's free GPU, at a tenth of the speeds that its maker states.

    Examples
    --------
    >>> from model_collapse.settings import scale
    >>> round(minutes_on_t4(scale(Vae, "colab"))), round(minutes_on_t4(scale(Lm, "colab")))
    (39, 57)
    """
    return minutes_at(settings, {precision: SHARE * speed for precision, speed in T4.items()})


def blocks_of(settings: Lm) -> tuple[int, int, int]:
    """Blocks for training, validation and test; where the settings say 0 all of them, about.

    Examples
    --------
    >>> blocks_of(Lm(test=100))
    (37900, 3900, 100)
    """
    train, validation, test = BLOCKS[settings.corpus]
    return settings.blocks or train, settings.validation or validation, settings.test or test


def _multiply_adds(latents: int) -> int:
    """Of the VAE's network, encoder and decoder, for one image: four convolutions, three linear maps."""
    return 2 * 14**2 * 64 * 16 + 2 * 7**2 * 128 * 64 * 16 + 3 * latents * 128 * 7**2


def _duration(seconds: float) -> str:
    if isnan(seconds):
        return "depends on the model"
    if seconds >= 3 * 86_400:
        return f"{seconds / 86_400:.0f} days"
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{max(seconds / 60, 0.1):.2g} minutes"


def _unseen(settings: Settings) -> str:
    """What this run cannot show."""
    last, paper = f"anything after generation {settings.last_generation:,}", type(settings)()
    same = replace(settings, last_generation=paper.last_generation) == paper
    return last if same else f"the paper's numbers; {last}"
