"""Causal language models, each fine-tuned on text that its predecessor wrote.

The paper's section 'Model collapse in language models': blocks of 64 tokens; generation 0 is a pretrained model
fine-tuned on real blocks; its successors are fine-tuned on what their predecessor writes, one continuation of 64 tokens
for every block of the original training set. Blocks keep their place: row k of a later generation continues row k of
the original data, or is real.

What the paper leaves open is a setting (`settings.Lm`). Real text that is kept stands in place of written blocks, not
beside them, so that data sets have one size; which of the two the authors do, the paper does not say.
"""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray
from torch import Tensor

from model_collapse.corpus import Blocks, Tokens
from model_collapse.fine_tuning import Tick, fine_tune, half_of
from model_collapse.model_weights import Theta, pack, packed, place, unpack
from model_collapse.pretrained import Pretrained, fits
from model_collapse.process import Family
from model_collapse.settings import Lm
from model_collapse.torch_random import torch_generator
from model_collapse.unfinished import Unfinished
from model_collapse.writing import beams, sampled

__all__ = [
    "Theta",
    "family",
    "fine_tune",
    "original",
    "pack",
    "packed",
    "place",
    "spread",
    "unpack",
    "work",
    "write",
]

TOGETHER = {"cpu": 64, "cuda": 2_048}  # blocks that are written together, at most
ROOM = 4  # of a GPU's memory their keys, values and logits may take one part in so many
WRITTEN = 3  # passes over the data that writing them takes about as long as


def family(
    settings: Lm,
    start: Pretrained,
    blocks: Blocks,
    device: torch.device | str = "cpu",
    tick: Tick = lambda blocks: None,
    unfinished: Unfinished | None = None,
) -> Family:
    """Fine-tuning a pretrained model, and writing the next generation's text, as a model family.

    The pretrained weights, too, are rounded to half precision first, as every generation's are (`Theta`).

    Parameters
    ----------
    settings : Lm
    start : Pretrained
        Model and tokenizer; they are left as they are.
    blocks : Blocks
        The training blocks are the prompts, one for each position; epochs are compared on the validation blocks.
    device : torch.device or str
    tick : callable
        Told how many blocks were passed over, for progress bars: `work` in all for one generation.
    unfinished : Unfinished, optional
        What is kept of a generation on the way, so that a killed run goes on inside it.

    Raises
    ------
    ValueError
        Blocks that the model cannot read; a model that cannot write in the way of `writing` (one block is written to
        see); another device than "cpu" or "cuda"; control "fresh" where all blocks are in use already.
    FloatingPointError
        When the loss is no longer a number.

    Examples
    --------
    >>> from model_collapse.pretrained import pretrained
    >>> few = Blocks(*(np.full((2, 64), token, np.int32) for token in (5, 6, 7)))
    >>> settings = Lm(model="tiny", corpus="wikipedia", blocks=2, epochs=1, batch=2)
    >>> tiny = family(settings, pretrained("tiny"), few)
    >>> theta = tiny.fit(few.train, np.random.default_rng(0), None)
    >>> tiny.sample(theta, 2, np.random.default_rng(1)).shape
    (2, 64)
    """
    model, prompts = _checked(settings, start, blocks, device)
    kept, pretrained = unfinished or Unfinished(), packed(model)

    def fit(data: Tokens, rng: Generator, previous: Theta | None) -> Theta:
        given = previous.weights if previous and settings.start == "predecessor" else pretrained
        place(model, given)
        return fine_tune(model, data, blocks.validation, rng, settings, tick, kept)

    def sample_at(theta: Theta, positions: NDArray[np.intp], rng: Generator) -> Tokens:
        if settings.control == "fresh":
            return blocks.train[rng.choice(len(blocks.train), len(positions), replace=False)]
        place(model, theta.weights)
        return write(model, prompts[positions], rng, settings, tick, kept)

    def sample(theta: Theta, n: int, rng: Generator) -> Tokens:
        if n > len(prompts):
            raise ValueError(
                f"n = {n}: each block of the original data is continued once, and there are {len(prompts)}"
            )
        return sample_at(theta, np.sort(rng.choice(len(prompts), n, replace=False)), rng)

    return Family(fit, sample, sample_at)


def original(blocks: Blocks, settings: Lm) -> Tokens:
    """The original data: all training blocks, or as many as the settings say, evenly spread over the articles.

    Raises
    ------
    ValueError
        More are asked for than there are.

    Examples
    --------
    >>> ten = np.repeat(np.arange(10, dtype=np.int32)[:, None], 64, axis=1)
    >>> original(Blocks(ten, ten, ten), Lm(model="tiny", corpus="wikipedia", blocks=5, batch=1))[:, 0].tolist()
    [0, 2, 4, 6, 8]
    """
    return spread(blocks.train, settings.blocks, "blocks")


def spread(blocks: Tokens, n: int, name: str) -> Tokens:
    """Every so many of the blocks, n in all; all of them for n = 0.

    Raises
    ------
    ValueError
        More are asked for than there are; the message names the argument.

    Examples
    --------
    >>> spread(np.zeros((10, 64), np.int32), 0, "test").shape
    (10, 64)
    """
    if n > len(blocks):
        raise ValueError(f"{name} = {n}: there are only {len(blocks)} blocks; 0 stands for all")
    return blocks[np.arange(n) * len(blocks) // n] if n else blocks


def work(settings: Lm, n: int) -> int:
    """Ticks per generation of n blocks.

    Examples
    --------
    >>> work(Lm(epochs=5), 100)
    800
    """
    return n * (settings.epochs + WRITTEN)


def write(
    model: Any,
    prompts: Tokens,
    rng: Generator,
    settings: Lm,
    tick: Tick = lambda blocks: None,
    kept: Unfinished | None = None,
) -> Tokens:
    """The continuations that a model writes of prompts, 64 tokens each, without ever ending.

    Parameters
    ----------
    model : PreTrainedModel
    prompts : array of int32, shape (n, 64)
    rng : numpy.random.Generator
        For sampling, whose draws depend on the device too; beam search draws nothing.
    settings, tick
        As in `family`.
    kept : Unfinished, optional
        Where blocks that are written are kept.

    Returns
    -------
    array of int32, shape (n, 64)

    Examples
    --------
    >>> from model_collapse.pretrained import pretrained
    >>> settings = Lm(model="tiny", corpus="wikipedia", blocks=2, batch=1)
    >>> write(pretrained("tiny").model, np.full((1, 64), 5, np.int32), np.random.default_rng(0), settings).shape
    (1, 64)
    """
    kept, seed = kept or Unfinished(), int(rng.integers(2**63))
    done = (kept.load("text") or {"tokens": np.empty((0, prompts.shape[1]), np.int32)})["tokens"]
    tick(WRITTEN * len(done))
    left, writer = torch.tensor(prompts, dtype=torch.long, device=model.device), _writer(model, settings)
    together = _together(writer, settings.beams)
    for first in range(len(done), len(left), together):
        part = left[first : first + together]
        stream = np.random.default_rng(SeedSequence([seed, first]))
        done = np.concatenate([done, _continued(writer, part, stream, settings)])
        tick(WRITTEN * len(part))
        # The whole text is kept whatever the time: fine-tuning must not go on with a text that was written again.
        kept.save("text", lambda: {"tokens": done}, now=len(done) == len(prompts))  # noqa: B023  (called at once)
    return done


def _continued(model: Any, prompts: Tensor, rng: Generator, settings: Lm) -> Tokens:
    new, penalty = prompts.shape[1], settings.repetition_penalty
    if settings.writing == "beams":
        written = beams(model, prompts, new, beams=settings.beams, penalty=penalty)
    else:
        written = sampled(model, prompts, torch_generator(rng, model.device), new, penalty=penalty)
    tokens: Tokens = written.tokens.cpu().numpy().astype(np.int32)
    return tokens


def _checked(settings: Lm, start: Pretrained, blocks: Blocks, device: torch.device | str) -> tuple[Any, Tokens]:
    """A copy of the model on the device, and the prompts; what cannot be run is refused before work begins."""
    kind = torch.device(device).type
    if kind not in TOGETHER:
        raise ValueError(f"device = {str(device)!r}: allowed are {', '.join(map(repr, TOGETHER))}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device = {str(device)!r}: torch finds no GPU")
    fits(blocks, start)
    prompts = original(blocks, settings)
    if settings.control == "fresh" and len(prompts) == len(blocks.train):
        raise ValueError(f"control = 'fresh': all {len(prompts)} blocks are in use already; set blocks to fewer")
    model: Any = deepcopy(start.model)
    try:
        write(model.to(device).eval(), prompts[:1], np.random.default_rng(0), settings)
    except torch.OutOfMemoryError:
        raise  # of the device, not of the model
    except Exception as error:  # an architecture can fail in ways of its own
        raise ValueError(f"model = {settings.model!r} cannot write a block: {error}") from error
    return model, prompts


def _together(model: Any, beams: int) -> int:
    """How many blocks are written together: it depends on the device and the model, not on what memory is free."""
    most = TOGETHER[model.device.type]
    if model.device.type == "cpu":
        return most
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    cached = 2 * (64 + 63 * beams) * config.num_hidden_layers * shared * size * model.dtype.itemsize
    ranked = 3 * 4 * beams * config.vocab_size  # logits, their logarithms and sums
    memory = torch.cuda.get_device_properties(model.device).total_memory
    return int(max(1, min(most, memory // ROOM // (cached + ranked))))


def _writer(model: Any, settings: Lm) -> Any:
    """The model as it writes: a copy in half precision, if the settings say so."""
    return deepcopy(model).to(half_of(model.device)) if settings.precision == "half" else model
