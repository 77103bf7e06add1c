"""List the reference runs that are missing, stale or unfinished, and run them (`make reference`).

Everything is resumable: stopped at any moment and called again, it goes on. A run that is finished, or that the time
was up for, is exported into ``book/results``, with a strip of its images or 64 of its texts; of some runs' first seed a
few weights too.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import shipping
from model_collapse import language_experiment
from model_collapse.experiments import build
from model_collapse.provenance import environments, export
from model_collapse.reference import PIECES, RESULTS, Piece, outstanding, reference
from model_collapse.runs import Experiment, folder_of, run
from model_collapse.settings import Lm, Vae
from model_collapse.stored import Stored, replace

ROOT = Path(__file__).resolve().parent.parent
# Of seed 0, the generations whose weights are stored.
SHIPPED = {"vae-paper": (0, 1, 5, 10), "vae-two-epochs": (0, 1, 5), "vae-small": (0, 1, 5)}
SHIPPED |= dict.fromkeys(("tiny-a", "tiny-b", "tiny-sampling"), (0, 1, 5, 9))


def main() -> None:
    """List; then run for as many minutes as are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0, help="how long to run; 0 only lists")
    parser.add_argument("--mnist", help="folder of the original MNIST files; without it they come from the hub")
    parser.add_argument("--wikitext", help="folder of WikiText-2; without it it comes from the hub")
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
            builder = partial(built, wikitext=arguments.wikitext, mnist=arguments.mnist)
            advance(piece, seed, Path(arguments.runs), builder, until)


def built(settings, rng, tick, wikitext: str | None, mnist: str | None) -> Experiment:
    """The experiment; a pretrained model is loaded once for all its runs."""
    if isinstance(settings, Lm):
        return language_experiment.experiment(settings, tick, folder=wikitext, start=shipping.start(settings.model))
    return build(settings, rng, tick, folder=mnist)


def advance(piece: Piece, seed: int, runs: Path, builder, until: float) -> None:
    """Run a piece until it is finished or the time is up, and store what there is of it."""
    try:
        run(piece.settings, seed, runs, builder, until=until, say=lambda text: print(text, file=sys.stderr))
    except (OSError, ImportError) as error:  # no network, no such package: the next piece may need neither
        print(f"{piece.name}, seed {seed}: {error}", file=sys.stderr)
    folder = folder_of(runs, piece.settings, seed)
    if len(Stored(folder)):
        store(piece, seed, folder)


def store(piece: Piece, seed: int, folder: Path) -> None:
    """Put a run, as far as it is finished, into ``book/results``."""
    RESULTS.mkdir(exist_ok=True)
    replace(piece.file(seed), export(folder).read_bytes())
    stored, stem = Stored(folder), piece.file(seed).with_suffix("")
    if isinstance(piece.settings, Vae):
        shipping.images(stem, stored)
        if seed == 0 and piece.name in SHIPPED:
            shipping.networks(stem, stored, SHIPPED[piece.name])
    if isinstance(piece.settings, Lm):
        shipping.texts(stem, stored, piece.settings)
        if seed == 0 and piece.name in SHIPPED:
            shipping.models(stem, stored, SHIPPED[piece.name], piece.settings)
    print(f"{piece.file(seed).relative_to(ROOT)}: generations 0 to {len(stored) - 1}")
    changed = sorted({e["commit"] for e in environments(folder) if e.get("commit", "").endswith("+")})
    if changed:
        print(f"{piece.name}, seed {seed}: made with uncommitted changes, on {', '.join(changed)}", file=sys.stderr)


if __name__ == "__main__":
    main()
