"""Fine-tuning of causal language models: optimiser and schedule of the authors' code, best epoch, and going on."""

from collections.abc import Callable
from hashlib import sha256
from math import cos, pi
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from model_collapse.corpus import Tokens
from model_collapse.language_measures import block_losses
from model_collapse.model_weights import Theta, packed
from model_collapse.settings import Lm
from model_collapse.torch_random import drawing_from, torch_generator
from model_collapse.unfinished import Unfinished

Tick = Callable[[int], object]


def fine_tune(
    model: Any,
    data: Tokens,
    validation: Tokens,
    rng: Generator,
    settings: Lm,
    tick: Tick = lambda blocks: None,
    kept: Unfinished | None = None,
) -> Theta:
    """Fine-tune a model in place, with AdamW and a learning rate that falls along a cosine from epoch to epoch.

    Parameters
    ----------
    model : PreTrainedModel
        With the weights to start from.
    data, validation : array of int32, shape (n, 64)
        Blocks to learn from; blocks by which epochs are compared.
    rng : numpy.random.Generator
        For order and dropout.
    settings, tick
        As in `family`.
    kept : Unfinished, optional
        Where the state after an epoch is kept.

    Returns
    -------
    Theta
        The weights of the best epoch by validation loss, or of the last, as the settings say.

    Examples
    --------
    >>> from model_collapse.pretrained import pretrained
    >>> data = np.full((4, 64), 5, np.int32)
    >>> settings = Lm(model="tiny", corpus="wikipedia", blocks=4, epochs=2, batch=2, learning_rate=1e-3)
    >>> theta = fine_tune(pretrained("tiny").model, data, data, np.random.default_rng(0), settings)
    >>> bool(theta.validation[0] > theta.validation[1]), theta.epoch
    (True, 2)
    """
    kept = kept or Unfinished()
    optimiser = torch.optim.AdamW(
        model.requires_grad_(True).parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    held = torch.tensor(data, dtype=torch.long, device=model.device)
    seeds = rng.integers(2**63, size=settings.epochs)
    learnt = np.frombuffer(sha256(data.tobytes()).digest(), np.uint8)
    done, losses, best = _resumed(kept, model, optimiser, settings.epochs, learnt)
    tick(done * len(data))
    for epoch in range(done, settings.epochs):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, epoch)
        train_epoch(model, held, optimiser, np.random.default_rng(seeds[epoch]), settings, tick)
        losses[epoch] = block_losses(model, validation).mean()
        if not np.isfinite(losses[epoch]):
            raise FloatingPointError(f"epoch {epoch + 1}: the loss is {losses[epoch]}; try a smaller learning_rate")
        if settings.keep == "last" or losses[: epoch + 1].argmin() == epoch:  # of equal ones the first
            best = packed(model)
        kept.save("fit", lambda: _state(model, optimiser, losses, best, learnt))  # noqa: B023  (called at once)
    chosen = settings.epochs - 1 if settings.keep == "last" else int(losses.argmin())
    return Theta(best, losses, chosen + 1)


def learning_rate(settings: Lm, epoch: int) -> float:
    """The learning rate in an epoch, from 0: torch's CosineAnnealingLR, stepped once an epoch, as in the authors' code.

    Examples
    --------
    >>> [round(learning_rate(Lm(epochs=2), epoch), 7) for epoch in range(2)]
    [2e-05, 1.05e-05]
    """
    fall = (1 + cos(pi * epoch / settings.epochs)) / 2
    return settings.final_rate + (settings.learning_rate - settings.final_rate) * fall


def train_epoch(
    model: Any, held: Tensor, optimiser: torch.optim.Optimizer, rng: Generator, settings: Lm, tick: Tick
) -> None:
    """One pass over the blocks (n, 64) in random order; the loss is the mean over a batch's predicted tokens.

    Examples
    --------
    >>> from model_collapse.pretrained import pretrained
    >>> model = pretrained("tiny").model.requires_grad_(True)
    >>> settings = Lm(model="tiny", corpus="wikipedia", blocks=4, batch=2)
    >>> steps = torch.optim.AdamW(model.parameters())
    >>> train_epoch(model, torch.full((4, 64), 5), steps, np.random.default_rng(0), settings, print)
    2
    2
    """
    order, generator = torch_generator(rng), torch_generator(rng, model.device)
    half, scaler = _precision(settings, model.device)
    model.train()
    with drawing_from(generator):
        for indices in torch.split(torch.randperm(len(held), generator=order).to(held.device), settings.batch):
            part = held[indices]
            with half:
                loss = model(input_ids=part, labels=part, use_cache=False).loss
            optimiser.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            tick(len(part))
    model.eval()


def half_of(device: torch.device) -> torch.dtype:
    """The half precision that a device computes in.

    Examples
    --------
    >>> half_of(torch.device("cpu"))
    torch.bfloat16
    """
    wide = device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if wide else torch.float16


def _precision(settings: Lm, device: torch.device) -> tuple[Any, Any]:
    """How numbers are kept in fine-tuning, and what keeps small gradients of float16 from vanishing."""
    half, kind = settings.precision == "half", half_of(device)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=half and kind == torch.float16)
    return torch.autocast(device.type, kind, enabled=half), scaler


def _state(
    model: Any,
    optimiser: torch.optim.Optimizer,
    losses: NDArray[np.float64],
    best: dict[str, Tensor],
    learnt: NDArray[np.uint8],
) -> dict[str, NDArray[Any]]:
    """All that the next epoch depends on; and the digest of the data, for it is of no use with others."""
    state: dict[str, NDArray[Any]] = {"losses": losses, "learnt": learnt}
    state |= {f"best.{name}": value.numpy() for name, value in best.items()}
    for name, parameter in model.named_parameters():
        state[f"weight.{name}"] = parameter.detach().cpu().numpy()
        moments = optimiser.state.get(parameter, {})  # none of what no gradient reached
        state |= {f"moment.{key}.{name}": value.cpu().numpy() for key, value in moments.items()}
    return state


@torch.no_grad()
def _resumed(
    kept: Unfinished, model: Any, optimiser: torch.optim.Optimizer, epochs: int, learnt: NDArray[np.uint8]
) -> tuple[int, NDArray[np.float64], dict[str, Tensor]]:
    """Epochs that are done, their losses and the best weights; model and optimiser are as they were after them."""
    state = kept.load("fit")
    if state is None or not np.array_equal(state.get("learnt", ()), learnt):
        return 0, np.full(epochs, np.nan), {}
    best = {name[5:]: torch.from_numpy(value) for name, value in state.items() if name.startswith("best.")}
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.from_numpy(state[f"weight.{name}"]))
        keys = ("step", "exp_avg", "exp_avg_sq")
        moments = {key: state[f"moment.{key}.{name}"] for key in keys if f"moment.{key}.{name}" in state}
        if moments:
            optimiser.state[parameter] = {k: torch.from_numpy(v).to(parameter.device) for k, v in moments.items()}
    return int(np.isfinite(state["losses"]).sum()), state["losses"], best
