"""Runs that die: children of this process that get SIGKILL, and then a child that brings the run to its end.

    python tests/kill.py moments KIND FOLDER KILLS SEED    at random moments, again and again until each run is finished
    python tests/kill.py points FOLDER                     at every operation on files, of new runs and of damaged ones
    python tests/kill.py full FOLDER                       no kill, but a disk of 100 kB; it is then made larger

Every run must end byte for byte like one that nothing happened to. The numbers of kills are printed.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from model_collapse import runs, stored
from model_collapse.process import Family
from model_collapse.runs import Experiment, folder_of, run
from model_collapse.settings import Gmm, Lm, Vae

SMALL = Gmm(n=50, last_generation=3, alpha=0.6, beta=0.2, gamma=0.2)
TINY = Vae(mnist="embedded", digits=20, epochs=1, batch=10, last_generation=3)
BLOCKS = Lm(model="random", blocks=16, epochs=3, batch=4, last_generation=2, writing="sampling", alpha=0.75, gamma=0.25)
SEED = 3


def small(settings, rng, tick, pause=0.0):
    """A model in numpy whose samples depend on the order of its parameters in memory, on all streams, and on `rng`."""
    bias = rng.normal()

    def fit(data, rng, previous):
        time.sleep(pause)
        tick(1)
        return np.asfortranarray(np.cov(data.T) + 0.01 * rng.normal(size=(2, 2)))

    def sample(theta, n, rng):
        return rng.normal(size=(n, 2)) * theta.ravel("K")[:2]

    def observe(g, first, rng):
        values = {"trace": np.trace(g.theta), "data": g.data.sum(), "first": first[0, 1], "noise": rng.normal() + bias}
        return values | {"nothing": np.nan}, {"points": g.data.T, "noise": rng.normal(size=(200, 2))}

    original = np.random.default_rng(0).normal(size=(settings.n, 2))
    family, packed = Family(fit, sample), (lambda theta: {"theta": theta}, lambda arrays: arrays["theta"])
    return Experiment(family, original, settings.n, observe, *packed, work=1, size=0)


def vae(settings, rng, tick):
    """The networks themselves, without their measures, which take longer than all else."""
    import torch._dynamo  # noqa: F401  # the first step of an optimiser would, in every child

    from model_collapse import vae
    from model_collapse.torch_random import torch_generator

    def observe(g, first, rng):
        images = vae.draw(g.theta, 4, torch_generator(rng)).numpy()
        return {"loss": float(g.theta.loss), "first": float(first.loss)}, {"images": images}

    original = np.random.default_rng(0).random((settings.digits, 28, 28), dtype=np.float32)
    return Experiment(
        vae.family(settings, "cpu", tick), original, settings.digits, observe, vae.pack, vae.unpack, work=1, size=0
    )


def digits(settings, rng, tick):
    """The experiment itself, with its measures and its classifier, of fewer images and after one epoch."""
    import torch._dynamo  # noqa: F401

    from model_collapse import vae_experiment

    vae_experiment.MEASURED, vae_experiment.CLASSIFIER_EPOCHS["embedded"] = 100, 1
    vae_experiment.mnist = fewer
    return vae_experiment.experiment(settings, rng, tick)


@cache
def fewer(source, split):
    """The first digits, read once for all children."""
    from model_collapse.data import Digits, mnist

    return Digits(*(part[:200] for part in mnist(source, split)))


def language(settings, rng, tick):
    """A random model of one layer, which keeps what is done of a generation after every epoch and every 4 blocks."""
    import torch
    import torch._dynamo
    from transformers import OPTConfig, OPTForCausalLM

    from model_collapse import language
    from model_collapse.corpus import Blocks
    from model_collapse.pretrained import Pretrained
    from model_collapse.torch_random import drawing_from
    from model_collapse.unfinished import Unfinished

    language.TOGETHER["cpu"] = 4
    sizes = {"hidden_size": 8, "ffn_dim": 8, "word_embed_proj_dim": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    with drawing_from(torch.Generator().manual_seed(0)):
        model = OPTForCausalLM(OPTConfig(vocab_size=32, max_position_embeddings=128, **sizes)).eval()
    text = Blocks(*np.random.default_rng(0).integers(4, 32, (3, settings.blocks, 64)).astype(np.int32))
    unfinished = Unfinished(every=0)

    def observe(g, first, rng):
        return {"epoch": g.theta.epoch, "mean": float(g.data.mean()), "noise": rng.normal()}, {"data": g.data}

    family = language.family(settings, Pretrained("random", "none", model, None), text, "cpu", tick, unfinished)
    parts = text.train, settings.blocks, observe, language.pack, language.unpack
    return Experiment(family, *parts, work=1, size=0, unfinished=unfinished)


def gmm(settings, rng, tick):
    from model_collapse.experiments import build

    return build(settings, rng, tick)


KINDS = {
    "small": (SMALL, partial(small, pause=0.005)),
    "gmm": (Gmm(n=50, last_generation=5), gmm),
    "vae": (TINY, vae),
    "digits": (replace(TINY, last_generation=2), digits),
    "language": (BLOCKS, language),
}


def quiet(text):
    pass


def child(action):
    """Do something in a process of its own; return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        action()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(pid):
    """Whether a child came to its end, or was killed; nothing else may happen to it."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise AssertionError(f"exit status {status}")
    return status == 0


def contents(folder):
    """What must be the same: every file but for times, and for what follows from them."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (".lock", "environment.json")):
        content = path.read_bytes()
        if path.name == "metrics.json":
            content = {k: v for k, v in json.loads(content).items() if k != "seconds"}
            content = json.dumps(content)  # NaN is no value that equals itself
        elif path.name == "digests.json":
            content = {k: v for k, v in json.loads(content).items() if k != "metrics.json"}
        elif path.name == "results.csv":
            content = content.partition(b"\n")[2]
        found[str(path.relative_to(folder))] = content
    return found


def same(folder, other):
    """Raise where two finished runs differ."""
    one, two = contents(folder), contents(other)
    wrong = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    if wrong:
        raise AssertionError(f"{folder} differs from {other} in {sorted(wrong)}")
    if damaged := check(folder):
        raise AssertionError(damaged)


def check(folder):
    """What is damaged in a run, and whether the digests are those of the files."""
    said = []
    stored.Stored(folder, said.append)
    return said


def moments(kind, out, kills, seed):
    """Kill at random moments, spread over the time that a whole run takes."""
    settings, build = KINDS[kind]
    rng = np.random.default_rng(seed)
    action = partial(run, settings, SEED, build=build, say=quiet)
    build(settings, np.random.default_rng(0), quiet)  # children share what is imported here; but a process that has
    began = time.monotonic()  # trained has threads of torch's, and must not be forked
    assert ended(child(partial(action, out=out / "whole")))
    duration, struck, finished = time.monotonic() - began, 0, 0
    while struck < kills:
        here = out / f"run{finished}"
        pid = child(partial(action, out=here))
        time.sleep(rng.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        if not ended(pid):
            struck += 1
            assert not check(folder_of(here, settings, SEED)), "half a generation has its name"
            continue
        same(folder_of(here, settings, SEED), folder_of(out / "whole", settings, SEED))
        finished += 1
    assert ended(child(partial(action, out=here)))
    same(folder_of(here, settings, SEED), folder_of(out / "whole", settings, SEED))
    print(struck, "kills")


class Halved(io.BufferedWriter):
    """A file of which a write may be the last thing that happens, half done."""

    def write(self, content):
        step(partial(self.half, content))
        return super().write(content)

    def half(self, content):
        super().write(content[: len(content) // 2])
        self.flush()


STEPS = {"left": -1, "done": 0}


def step(before=None):
    """One operation on files; the last one of which this process is told never happens, or half."""
    STEPS["done"] += 1
    if STEPS["done"] == STEPS["left"]:
        if before:
            before()
        os.kill(os.getpid(), signal.SIGKILL)


def counted(function):
    def wrapper(*arguments, **options):
        step()
        return function(*arguments, **options)

    return wrapper


def die_at(k, action):
    """Do something, but die at the k-th operation."""
    for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    usual = io.open

    def opened(path, mode="r", *arguments, **options):
        if "w" in mode and "b" in mode:
            return Halved(io.FileIO(path, "w"))
        return usual(path, mode, *arguments, **options)

    io.open = opened
    STEPS.update(left=k)
    action()


def alter(path, at=-1):
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def swap(folder, *indices):
    """Put generations of a run with another seed, kept beside, in the place of these; they are whole."""
    other = folder_of(folder.parent.with_name("other"), SMALL, SEED + 1)
    for i in indices:
        shutil.rmtree(folder / f"generation-00{i}")
        shutil.copytree(other / f"generation-00{i}", folder / f"generation-00{i}")


DAMAGES = {
    "none, new": lambda folder: shutil.rmtree(folder),
    "none, finished": lambda folder: None,
    "metrics altered": lambda folder: alter(folder / "generation-001/metrics.json", 5),
    "samples missing": lambda folder: (folder / "generation-002/samples.safetensors").unlink(),
    "weights truncated": lambda folder: truncate(folder / "generation-001/weights.safetensors"),
    "weights altered, twice": lambda folder: [alter(folder / f"generation-00{i}/weights.safetensors") for i in (0, 2)],
    "digests missing": lambda folder: (folder / "generation-001/digests.json").unlink(),
    "a gap": lambda folder: shutil.rmtree(folder / "generation-001"),
    "an empty folder": lambda folder: [p.unlink() for p in (folder / "generation-001").iterdir()],
    "the last missing": lambda folder: shutil.rmtree(folder / "generation-003"),
    "one of another run": lambda folder: swap(folder, 2),
    "all but one of another run": lambda folder: swap(folder, 1, 2, 3),
    "leftovers": lambda folder: [
        shutil.move(folder / "generation-003", folder / ".generation-003.part"),
        (folder / "generation-002/.metrics.json.1.part").write_text("x"),
        (folder / ".settings.json.77.part").write_text("x"),
    ],
}

WHOLE = ("none, new", "none, finished", "the last missing", "leftovers")  # nothing that has its name is damaged


def points(out):
    """Kill at every operation, while a run is made or mended."""
    action = partial(run, SMALL, SEED, build=small, say=quiet)
    assert ended(child(partial(action, out=out / "whole")))
    run(SMALL, SEED + 1, out / "other", small, say=quiet)
    whole, told = folder_of(out / "whole", SMALL, SEED), {}
    for name, damage in DAMAGES.items():
        for k in range(1, 1000):
            here = out / "again"
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(out / "whole", here)
            damage(folder_of(here, SMALL, SEED))
            if ended(child(partial(die_at, k, partial(action, out=here)))):
                break
            half = check(folder_of(here, SMALL, SEED)) if name in WHOLE else None
            assert not half, f"half a generation has its name: {half}"
            assert ended(child(partial(action, out=here)))
            same(folder_of(here, SMALL, SEED), whole)
        same(folder_of(here, SMALL, SEED), whole)
        told[name] = k - 1
    print(json.dumps(told))


def full(out):
    """A disk that fills up while the run is at work, and is then made larger."""
    runs.SPARE = 0
    try:
        run(SMALL, SEED, out, small, say=quiet)
    except OSError as error:
        print(error.errno, error.strerror)
    kept = len(stored.Stored(folder_of(out, SMALL, SEED), quiet))
    left = list(folder_of(out, SMALL, SEED).glob(".*.part"))
    subprocess.run(["mount", "-o", "remount,size=2m", out], check=True)
    run(SMALL, SEED, out, small, say=quiet)
    whole = out.with_name("whole")
    run(SMALL, SEED, whole, small, say=quiet)
    same(folder_of(out, SMALL, SEED), folder_of(whole, SMALL, SEED))
    print(kept, left)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "moments":
        moments(rest[0], Path(rest[1]), int(rest[2]), int(rest[3]))
    elif what == "points":
        points(Path(rest[0]))
    else:
        full(Path(rest[0]))
