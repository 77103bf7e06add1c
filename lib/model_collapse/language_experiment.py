"""The language models' experiment as a run: its text, its model, and what is measured and kept of each generation."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from model_collapse import language
from model_collapse.corpus import Blocks, blocks, corpus
from model_collapse.diversity import compression, diversity
from model_collapse.language_measures import (
    bits_per_byte,
    block_losses,
    histogram,
    perplexity,
    tail,
)
from model_collapse.pretrained import Pretrained, pretrained
from model_collapse.process import Generation
from model_collapse.runs import Experiment
from model_collapse.settings import Lm
from model_collapse.unfinished import Unfinished

STATE = 28  # bytes per parameter of an unfinished generation: weights, two moments, the best weights; old and new


def experiment(
    settings: Lm,
    tick: Callable[[int], object] = lambda blocks: None,
    *,
    folder: str | Path | None = None,
    start: Pretrained | None = None,
) -> Experiment:
    """The experiment of these settings, on a GPU if there is one.

    Parameters
    ----------
    settings : Lm
    tick : callable
        Told how many blocks were passed over.
    folder : path, optional
        Of WikiText-2; without it that corpus comes from the hub.
    start : Pretrained, optional
        A pretrained model that is loaded already; by default the one that the settings name.

    Examples
    --------
    >>> settings = Lm(model="tiny", corpus="wikipedia", blocks=20, validation=2, test=2, epochs=1, batch=10)
    >>> experiment(settings).original.shape
    (20, 64)
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    words = corpus(settings.corpus, folder)
    given = _on(device, start) if start else pretrained(settings.model, device)
    text = split(blocks(words, given.tokenizer), settings)
    original = language.original(text, settings)
    compression(original, given.tokenizer)  # what cannot be measured is refused before work begins
    diversity(original, original)
    origin = {"revision": given.revision} | ({"corpus": words.digest} if settings.corpus == "wikitext2" else {})
    parameters = sum(p.numel() for p in given.model.parameters())
    unfinished = Unfinished(STATE * parameters)
    return Experiment(
        family=language.family(settings, given, text, device, tick, unfinished),
        original=original,
        n=len(original),
        observe=Observer(given, text, original),
        pack=language.pack,
        unpack=lambda arrays: language.unpack(dict(arrays)),
        work=language.work(settings, len(original)),
        size=2 * parameters + 4 * original.size + 50_000,
        unfinished=unfinished,
        origin=origin,
    )


def _on(device: str, start: Pretrained) -> Pretrained:
    """The pretrained model on a device, in a copy if it is on another."""
    if start.model.device.type == device:
        return start
    model: Any = deepcopy(start.model)
    return start._replace(model=model.to(device))


def split(text: Blocks, settings: Lm) -> Blocks:
    """The blocks with as many for validation and test as the settings say.

    Examples
    --------
    >>> ten = np.zeros((10, 64), np.int32)
    >>> few = split(Blocks(ten, ten, ten), Lm(validation=2, test=3))
    >>> len(few.train), len(few.validation), len(few.test)
    (10, 2, 3)
    """
    validation = language.spread(text.validation, settings.validation, "validation")
    return Blocks(text.train, validation, language.spread(text.test, settings.test, "test"))


class Observer:
    """What is measured of a generation: its model on real test text, and the text that it was fine-tuned on.

    Parameters
    ----------
    start : Pretrained
    text : Blocks
    original : array of int32, shape (n, 64)
        The original data.

    Examples
    --------
    >>> start = pretrained("tiny")
    >>> ten = np.arange(640, dtype=np.int32).reshape(10, 64) + 5
    >>> theta = language.Theta(language.packed(start.model), np.array([5.0]), 1)
    >>> metrics, arrays = Observer(start, Blocks(ten, ten, ten), ten)(Generation(0, ten, theta), theta)
    >>> metrics["epoch"], metrics["tail_beyond"], arrays["data"].shape
    (1.0, 0.0, (10, 64))
    """

    def __init__(self, start: Pretrained, text: Blocks, original: NDArray[np.int32]) -> None:
        self.start, self.text, self.original = start, text, original
        self.pretrained = language.packed(start.model)
        self.model = deepcopy(start.model)
        self.real: NDArray[np.float64] | None = None  # losses of the original data under generation 0's model

    def __call__(
        self, g: Generation, first: language.Theta, rng: Generator | None = None
    ) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
        """Metrics of a generation, and its data; nothing is drawn."""
        data = np.asarray(g.data)
        validation = float(np.exp(g.theta.validation[g.theta.epoch - 1]))
        metrics = {"epoch": float(g.theta.epoch), "validation_perplexity": validation}
        metrics |= self.on_test(g.theta.weights)
        if not g.index:
            metrics |= {f"zero_shot_{name}": value for name, value in self.on_test(self.pretrained).items()}
        metrics |= self.of_data(g.index, data, first)
        metrics |= diversity(data, self.original)
        metrics["compression"] = compression(data, self.start.tokenizer)
        return metrics, {"data": data}

    def on_test(self, weights: dict[str, torch.Tensor]) -> dict[str, float]:
        """Perplexities of a model on the real test blocks."""
        losses = block_losses(language.place(self.model, weights), self.text.test)
        found = perplexity(losses)
        return {
            "perplexity": found.corpus,
            "perplexity_block_mean": found.block_mean,
            "perplexity_authors": found.authors,
            "perplexity_authors_band": found.authors_band,
            "bits_per_byte": bits_per_byte(losses, self.text.test, self.start.tokenizer),
        }

    def of_data(self, i: int, data: NDArray[np.int32], first: language.Theta) -> dict[str, float]:
        """The data of generation i under generation 0's model: quantiles, tails, histogram; of unseen real text too."""
        model = language.place(self.model, first.weights)
        if self.real is None:
            self.real = block_losses(model, self.original)
        seen = {"tail": block_losses(model, data) if i else self.real}
        if not i:
            seen["unseen"] = block_losses(model, self.text.test)
        metrics: dict[str, float] = {}
        for name, losses in seen.items():
            metrics |= {f"{name}_{key}": value for key, value in tail(losses, self.real).items()}
            metrics |= {f"{name}_bin{k:02d}": float(share) for k, share in enumerate(histogram(losses))}
        return metrics
