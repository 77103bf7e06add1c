"""What is stored of a reference run beside its numbers: images, texts, a few weights in half precision."""

import hashlib
import io
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load, save

from model_collapse import language
from model_collapse.corpus import blocks, corpus
from model_collapse.data import mnist
from model_collapse.language_measures import block_losses, continuation_losses
from model_collapse.pretrained import pretrained
from model_collapse.settings import Lm
from model_collapse.stored import SAMPLES, WEIGHTS, Stored, as_json, replace
from model_collapse.torch_random import torch_generator
from model_collapse.vae import draw, unpack
from model_collapse.vae_experiment import unit
from model_collapse.vae_measures import elbo, probe

COLUMNS = 10  # images of each generation in a strip
TEXTS = 64  # of each generation


def images(stem: Path, stored: Stored) -> None:
    """A strip of images, one row for each generation."""
    strips = [np.hstack(read(stored, i, SAMPLES)["images"][:COLUMNS]) for i in range(len(stored))]
    Image.fromarray(np.vstack(strips)).save(picture := io.BytesIO(), "PNG")
    replace(Path(f"{stem}.png"), picture.getvalue())


def networks(stem: Path, stored: Stored, wanted: tuple[int, ...]) -> None:
    """Networks in float16 (the loss, a scalar, as it is), and what is computed from these very weights."""
    halves = {
        i: {name: a.astype(np.float16) if a.ndim else a for name, a in read(stored, i, WEIGHTS).items()}
        for i in wanted
        if i < len(stored)
    }
    for i, arrays in halves.items():
        replace(Path(f"{stem}-generation{i}.safetensors"), save(arrays))
    replace(Path(f"{stem}-weights.json"), as_json({i: recomputed(arrays, halves[0]) for i, arrays in halves.items()}))


def recomputed(weights: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> dict[str, float]:
    """Of a network: bound on 1,000 real digits, and latent means of 500 images under the first encoder; seed 0."""
    network, encoder = unpack(weights), unpack(first)
    rng = np.random.default_rng(0)
    digits = torch.tensor(unit(mnist("embedded", "test").images))
    bound = elbo(network, digits, torch_generator(rng))
    seen = probe(encoder, draw(network, 500, torch_generator(rng)))
    return {**bound._asdict(), "latent_sd": seen.sd}


def texts(stem: Path, stored: Stored, settings: Lm) -> None:
    """Of each generation 64 blocks of its data, the same places in all; digests of its weights and of all its data.

    With them the mean loss of those blocks under the unmodified pretrained model, which anyone can compute again.
    """
    data = [read(stored, i, SAMPLES)["data"] for i in range(len(stored))]
    replace(Path(f"{stem}-texts.npz"), _zipped({f"generation{i}": chosen(d) for i, d in enumerate(data)}))
    digests = {
        i: {
            "weights": stored.digests[i][WEIGHTS],
            "data": hashlib.sha256(d.astype("<i4").tobytes()).hexdigest(),
            "pretrained_loss": float(block_losses(start(settings.model).model, chosen(d)).mean()),
        }
        for i, d in enumerate(data)
    }
    replace(Path(f"{stem}-digests.json"), as_json(digests))


def chosen(data: np.ndarray) -> np.ndarray:
    """The 64 blocks that are kept of a generation's data: evenly spread."""
    return language.spread(data, min(TEXTS, len(data)), "texts").astype(np.int32)


def models(stem: Path, stored: Stored, wanted: tuple[int, ...], settings: Lm) -> None:
    """Fine-tuned models as the run stores them, in float16, and the losses that these very weights have."""
    prompts = chosen(read(stored, 0, SAMPLES)["data"])
    losses = {}
    for i in (i for i in wanted if i < len(stored)):
        replace(Path(f"{stem}-generation{i}.safetensors"), stored.read(i, WEIGHTS) or b"")
        written = chosen(read(stored, i + 1, SAMPLES)["data"]) if i + 1 < len(stored) else None
        losses[i] = losses_of(read(stored, i, WEIGHTS), settings, prompts, written)
    replace(Path(f"{stem}-weights.json"), as_json(losses))


def losses_of(
    weights: dict[str, np.ndarray], settings: Lm, prompts: np.ndarray, written: np.ndarray | None
) -> dict[str, list[float]]:
    """Teacher-forced losses: on 64 real test blocks, and on the text that it wrote, after its prompts."""
    model = language.place(deepcopy(start(settings.model).model), language.unpack(weights).weights)
    losses = {"test": block_losses(model, chosen(test_blocks(settings))).tolist()}
    if written is not None:
        known = continuation_losses(model, prompts, written)
        losses["written"] = known.tolist()
    return losses


def read(stored: Stored, i: int, name: str) -> dict[str, np.ndarray]:
    """The arrays in a file of a generation."""
    return load(stored.read(i, name) or b"")


@cache
def start(name: str):
    """The pretrained model, loaded once."""
    return pretrained(name)


@cache
def test_blocks(settings: Lm) -> np.ndarray:
    """All real test blocks."""
    return blocks(corpus(settings.corpus), start(settings.model).tokenizer).test


def _zipped(arrays: dict[str, np.ndarray]) -> bytes:
    np.savez_compressed(file := io.BytesIO(), **arrays)
    return file.getvalue()
