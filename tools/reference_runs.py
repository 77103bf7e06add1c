"""List the reference runs that are missing, stale or unfinished, and run them (`make reference`).

Everything is resumable: stopped at any moment and called again, it goes on. A run that is finished, or that the time
was up for, is exported into ``book/results`` with a strip of its images; of the VAE's first seed a few weights too.
"""

import argparse
import io
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load, save

from model_collapse.data import mnist
from model_collapse.experiments import build
from model_collapse.provenance import export
from model_collapse.reference import PIECES, RESULTS, Piece, outstanding, reference
from model_collapse.runs import folder_of, run
from model_collapse.settings import Vae
from model_collapse.stored import SAMPLES, WEIGHTS, Stored, as_json, replace
from model_collapse.vae import draw, torch_generator, unpack
from model_collapse.vae_experiment import unit
from model_collapse.vae_measures import elbo, probe

ROOT = Path(__file__).resolve().parent.parent
# Of seed 0, the generations whose weights are stored.
SHIPPED = {"vae-paper": (0, 1, 5, 10), "vae-two-epochs": (0, 1, 5), "vae-small": (0, 1, 5)}
COLUMNS = 10  # images of each generation in a strip


def main() -> None:
    """List; then run for as many minutes as are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0, help="how long to run; 0 only lists")
    parser.add_argument("--mnist", help="folder of the original MNIST files; without it they come from the hub")
    parser.add_argument("--only", default="", help="pieces whose names begin so")
    parser.add_argument("--runs", default=ROOT / "runs", help="where unfinished runs are kept")
    arguments = parser.parse_args()
    todo = [(piece, seed, why) for piece, seed, why in outstanding() if piece.name.startswith(arguments.only)]
    for piece in PIECES:
        if any(piece.file(seed).exists() for seed in piece.seeds):
            print(f"{piece.name}: {reference(piece.name).label}")
    for piece, seed, why in todo:
        print(f"{piece.name}, seed {seed}: {why}")
    until = time.monotonic() + 60 * arguments.minutes
    for piece, seed, _ in todo:
        if time.monotonic() < until:
            advance(piece, seed, Path(arguments.runs), partial(build, folder=arguments.mnist), until)


def advance(piece: Piece, seed: int, runs: Path, builder, until: float) -> None:
    """Run a piece until it is finished or the time is up, and store what there is of it."""
    run(piece.settings, seed, runs, builder, until=until, say=lambda text: print(text, file=sys.stderr))
    store(piece, seed, folder_of(runs, piece.settings, seed))


def store(piece: Piece, seed: int, folder: Path) -> None:
    """Put a run, as far as it is finished, into ``book/results``."""
    RESULTS.mkdir(exist_ok=True)
    replace(piece.file(seed), export(folder).read_bytes())
    stored, stem = Stored(folder), piece.file(seed).with_suffix("")
    if isinstance(piece.settings, Vae):
        strips = [np.hstack(load(stored.read(i, SAMPLES) or b"")["images"][:COLUMNS]) for i in range(len(stored))]
        Image.fromarray(np.vstack(strips)).save(picture := io.BytesIO(), "PNG")
        replace(Path(f"{stem}.png"), picture.getvalue())
    if seed == 0 and piece.name in SHIPPED:
        ship(stem, {i: load(stored.read(i, WEIGHTS) or b"") for i in SHIPPED[piece.name] if i < len(stored)})
    print(f"{piece.file(seed).relative_to(ROOT)}: generations 0 to {len(stored) - 1}")


def ship(stem: Path, weights: dict[int, dict[str, np.ndarray]]) -> None:
    """Store weights in float16 (the loss, a scalar, as it is), and what is computed from these very weights."""
    halves = {
        i: {name: array.astype(np.float16) if array.ndim else array for name, array in arrays.items()}
        for i, arrays in weights.items()
    }
    for i, arrays in halves.items():
        replace(Path(f"{stem}-generation{i}.safetensors"), save(arrays))
    replace(Path(f"{stem}-weights.json"), as_json({i: recomputed(arrays, halves[0]) for i, arrays in halves.items()}))


def recomputed(weights: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> dict[str, float]:
    """Bound on 1,000 real digits, and latent means of 500 images under the first encoder; seed 0."""
    network, encoder = unpack(weights), unpack(first)
    rng = np.random.default_rng(0)
    digits = torch.tensor(unit(mnist("embedded", "test").images))
    bound = elbo(network, digits, torch_generator(rng))
    seen = probe(encoder, draw(network, 500, torch_generator(rng)))
    return {**bound._asdict(), "latent_sd": seen.sd}


if __name__ == "__main__":
    main()
