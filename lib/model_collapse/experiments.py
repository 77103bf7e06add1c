"""From settings to an experiment that can be run: the one place that knows all model families."""

from collections.abc import Callable
from pathlib import Path

from numpy.random import Generator

from model_collapse.runs import Experiment
from model_collapse.settings import Gmm, Lm, Settings


def build(
    settings: Settings,
    rng: Generator,
    tick: Callable[[int], object] = lambda k: None,
    *,
    folder: str | Path | None = None,
) -> Experiment:
    """Build an experiment; only then are the libraries imported that its family needs.

    Parameters
    ----------
    settings : Gmm, Vae or Lm
    rng : numpy.random.Generator
        For what is drawn beside the loop, such as the classifier that counts digits.
    tick : callable
        Told how much work was done.
    folder : path, optional
        Of the original MNIST files, or of WikiText-2; without it they come from the hub.

    Examples
    --------
    >>> import numpy as np
    >>> build(Gmm(n=50), np.random.default_rng(0)).n
    50
    """
    if isinstance(settings, Gmm):
        from model_collapse import gmm

        return gmm.experiment(settings, tick)
    if isinstance(settings, Lm):
        from model_collapse import language_experiment

        return language_experiment.experiment(settings, tick, folder=folder)
    from model_collapse import vae_experiment

    return vae_experiment.experiment(settings, rng, tick, folder=folder)


def device(settings: Settings) -> str:
    """Where an experiment is computed, in words.

    Examples
    --------
    >>> device(Gmm())
    'processor, 1 thread'
    """
    if isinstance(settings, Gmm):
        return "processor, 1 thread"
    import torch

    threads = torch.get_num_threads()
    on_gpu = torch.cuda.is_available()
    return torch.cuda.get_device_name() if on_gpu else f"processor, {threads} thread{'s' * (threads > 1)}"
