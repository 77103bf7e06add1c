"""Weights of a language model, as they pass from one generation to the next and are stored."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Theta(NamedTuple):
    """A fine-tuned model, as it passes from one generation to the next.

    Attributes
    ----------
    weights : dict of str to Tensor, float16
        By name, those that are tied once. Half precision is what a generation hands on: what is stored of it is then
        the very model that wrote the next generation's text.
    validation : ndarray of float64, shape (epochs,)
        Loss on real validation blocks after each epoch, nats per token.
    epoch : int
        After which epoch these weights were taken; 0 for a model that is not fine-tuned.

    Examples
    --------
    >>> Theta({}, np.array([2.0, 1.0]), 2).epoch
    2
    """

    weights: dict[str, Tensor]
    validation: NDArray[np.float64]
    epoch: int


def packed(model: Any) -> dict[str, Tensor]:
    """The weights by name, those that are tied once, in half precision on the processor.

    Raises
    ------
    FloatingPointError
        A weight is not finite in half precision.

    Examples
    --------
    >>> from model_collapse.pretrained import pretrained
    >>> next(iter(packed(pretrained("tiny").model)))
    'model.decoder.embed_tokens.weight'
    """
    halves = {name: value.detach().to("cpu", torch.float16) for name, value in model.named_parameters()}
    for name, value in halves.items():
        if not torch.isfinite(value).all():
            raise FloatingPointError(f"{name}: holds weights that are not finite in half precision")
    return halves


@torch.no_grad()
def place(model: Any, weights: dict[str, Tensor]) -> Any:
    """Put weights into a model, and return it in evaluation mode.

    Raises
    ------
    ValueError
        Weights of other names or shapes.

    Examples
    --------
    >>> from model_collapse.pretrained import pretrained
    >>> model = pretrained("tiny").model
    >>> place(model, packed(model)) is model
    True
    """
    parameters = dict(model.named_parameters())
    shapes = [{name: tuple(value.shape) for name, value in known.items()} for known in (parameters, weights)]
    if shapes[0] != shapes[1]:
        odd = sorted(name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
        raise ValueError(f"weights: not those of this model ({len(odd)} differ in name or shape, the first {odd[0]})")
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])
    return model.eval()


def pack(theta: Theta) -> dict[str, NDArray[Any]]:
    """Weights, validation losses and epoch as arrays, to be stored.

    Examples
    --------
    >>> sorted(pack(Theta({"a": torch.zeros(1)}, np.array([1.0]), 1)))
    ['epoch', 'validation', 'weights.a']
    """
    weights = {f"weights.{name}": value.numpy() for name, value in theta.weights.items()}
    return {**weights, "validation": theta.validation, "epoch": np.array(theta.epoch)}


def unpack(arrays: dict[str, NDArray[Any]]) -> Theta:
    """What `pack` packed.

    Examples
    --------
    >>> unpack(pack(Theta({"a": torch.zeros(1)}, np.array([1.0]), 1)))
    Theta(weights={'a': tensor([0.])}, validation=array([1.]), epoch=1)
    """
    names = (name for name in arrays if name.startswith("weights."))
    weights = {name.removeprefix("weights."): torch.from_numpy(arrays[name].copy()) for name in names}
    return Theta(weights, arrays["validation"], int(arrays["epoch"]))
