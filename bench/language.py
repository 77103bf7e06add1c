"""Language models: blocks written and tokens learnt per second, against the authors' way and against the floor.

`generate` is called as the authors call it: batches of 128, float32, cache on. Ours takes the batch that is best of a
few, on a GPU in half precision. Beside the ratio: how many blocks are the same, token by token, in float32. Fine-tuning
is measured against the authors' loop: batches of 128 from a loader, float32, a loss that is read at every step; model
and optimiser are there before, and have learnt an epoch. From these and from what is measured of a generation a whole
one of the paper's size is extrapolated; a GPU writes more blocks at a time for that.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from os import cpu_count
from typing import NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from bench.timing import Row, seconds
from model_collapse.corpus import blocks, corpus
from model_collapse.diversity import compression, diversity
from model_collapse.fine_tuning import train_epoch
from model_collapse.language_measures import block_losses
from model_collapse.own_run import speed
from model_collapse.pretrained import pretrained
from model_collapse.settings import Lm
from model_collapse.writing import Written, beams

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODEL = "smollm2" if DEVICE == "cuda" else "tiny"
BLOCKS, NEW, BEAMS = 256, 64, 5
PAPER = 37_900  # blocks of WikiText-2's training text, about
THREADS = (1, 2) if (cpu_count() or 1) > 1 else (1,)
REPEATS, LEAST, TYPE = 3, 5 if DEVICE == "cuda" else 3, torch.bfloat16 if DEVICE == "cuda" else torch.float32
BATCHES = (64, 128, 256) if DEVICE == "cuda" else (32, 64, 128)
MANY = 2_048 if DEVICE == "cuda" else BLOCKS  # blocks that are written together, or learnt, in a large generation
EVALUATED = 37_900 + 5 * 3_900 + 4_400  # blocks a generation: its own, WikiText-2's validation and test blocks


class Floor(NamedTuple):
    """What cannot be undercut: operations on numbers, bytes that are read; and how many a second there are of each."""

    operations: float
    read: float
    peak: float
    bandwidth: float

    @property
    def seconds(self) -> float:
        """The larger of the two."""
        return max(self.operations / self.peak, self.read / self.bandwidth)


def rows() -> list[Row]:
    """Measure, all in one run; and what it makes of a generation of the paper's size."""
    wrote, learnt, rest = writing(), fine_tuning(), measuring()
    many = wrote[0].seconds
    if MANY > BLOCKS:
        _, model, prompts = subject(MANY)
        own = deepcopy(model).to(TYPE)
        many = seconds(lambda rng: written(own, prompts, MANY), 1) * BLOCKS / MANY
    whole = PAPER * (many / BLOCKS + 5 * learnt[0].seconds / MANY) + sum(row.seconds for row in rest)
    parameters = subject(1)[1].num_parameters()
    return [
        *wrote,
        *learnt,
        *rest,
        Row(f"language: {PAPER:,} blocks, 5 epochs, extrapolated", f"{parameters:,} parameters", whole),
    ]


def fine_tuning() -> list[Row]:
    """One epoch of fine-tuning against the authors' loop, with as many threads as cores."""
    name, model, data = subject(MANY)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(THREADS))
    settings = replace(Lm(), precision="half" if DEVICE == "cuda" else "float32")
    own, other = deepcopy(model).requires_grad_(True), deepcopy(model).requires_grad_(True)
    steps = torch.optim.AdamW(own.parameters(), settings.learning_rate, fused=True)
    others = torch.optim.AdamW(other.parameters(), settings.learning_rate)
    theirs = seconds(lambda rng: authors_epoch(other, others, data), REPEATS)
    ours = seconds(lambda rng: our_epoch(own, steps, data, rng, settings), REPEATS)
    operations = 6 * model.num_parameters() * data.numel()
    top = speed("bfloat16" if DEVICE == "cuda" else "float32")
    torch.set_num_threads(threads)
    what = f"{len(data)} blocks, {name}, {DEVICE}, batch {settings.batch}"
    rate = f"language: fine-tuning {data.numel() / ours:,.0f} tokens/s"
    used = f"language: {operations / ours / top:.0%} of the peak of {top / 1e9:,.0f} GFLOP/s"
    return [
        Row(rate, what, ours, theirs / ours, 3.0 if DEVICE == "cuda" else 1.0),
        Row(used, f"{operations / 1e9:,.0f} GFLOP an epoch", operations / top),
    ]


def our_epoch(
    model: PreTrainedModel, optimiser: torch.optim.Optimizer, data: Tensor, rng: Generator, settings: Lm
) -> float:
    """An epoch of the library's loop."""
    train_epoch(model, data, optimiser, rng, settings, lambda blocks: None)
    return next(model.parameters()).flatten()[0].item()


def authors_epoch(model: PreTrainedModel, optimiser: torch.optim.Optimizer, data: Tensor) -> None:
    """An epoch as their trainer runs it: batches from a loader to the device, the loss read at every step."""
    model.train()
    for batch in DataLoader(list(data.cpu()), batch_size=128, shuffle=True):
        tokens = batch.to(DEVICE)
        loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()


def measuring() -> list[Row]:
    """What is measured of a generation of the paper's size: losses on the device, variety and compression beside it."""
    start, data = pretrained(MODEL, DEVICE), subject(MANY)[2].cpu().numpy()
    losses = seconds(lambda rng: block_losses(start.model, data), REPEATS) * EVALUATED / MANY
    text = seconds(lambda rng: (diversity(data, data), compression(data, start.tokenizer)), 1) * PAPER / MANY
    return [
        Row("language: losses of a generation, extrapolated", f"{EVALUATED:,} blocks", losses),
        Row("language: its variety, extrapolated", f"{PAPER:,} blocks", text),
    ]


def writing() -> list[Row]:
    """Writing against `generate`, both with the threads that are best for `generate`."""
    name, model, prompts = subject(BLOCKS)
    few, threads = prompts[:64], torch.get_num_threads()
    best = min(THREADS, key=lambda count: timed(count, lambda: generated(model, few)))
    torch.set_num_threads(best)
    generate = seconds(lambda rng: generated(model, prompts), REPEATS)
    own = deepcopy(model).to(TYPE)
    batch = min(BATCHES, key=lambda size: seconds(lambda rng: written(own, prompts, size), 1))
    ours = seconds(lambda rng: written(own, prompts, batch), REPEATS)
    theirs, same = generated(model, prompts), written(model, prompts, batch)
    share = float((theirs.tokens == same.tokens).all(1).float().mean())
    off = float((theirs.scores - same.scores).abs().max())
    floor = least(own, batch)
    torch.set_num_threads(threads)
    sizes = f"{BLOCKS} blocks, {name}, {DEVICE}, {best} threads"
    return [
        Row(f"language: writing {BLOCKS / ours:.3g} blocks/s, batch {batch}", sizes, ours, generate / ours, LEAST),
        Row(f"language: {share:.1%} of blocks identical in float32", "against generate", generate),
        Row("language: beam scores in float32", f"{off:.1e} nats apart, 1e-3 allowed", generate, 1e-3 / off, 1),
        Row(
            f"language: {ours / floor.seconds:.1f} times the floor of {floor.operations / 1e9:,.0f} GFLOP",
            f"{floor.peak / 1e9:,.0f} GFLOP/s; {floor.read / 1e9:,.0f} GB at {floor.bandwidth / 1e9:,.0f} GB/s",
            floor.seconds,
        ),
    ]


def timed(threads: int, run: Callable[[], object]) -> float:
    """Seconds of one run on so many threads."""
    torch.set_num_threads(threads)
    return seconds(lambda rng: run(), 1)


def subject(n: int) -> tuple[str, PreTrainedModel, Tensor]:
    """The model of the device, and n real blocks."""
    start = pretrained(MODEL, DEVICE)
    prompts = blocks(corpus("wikipedia"), start.tokenizer).train[:n]
    if len(prompts) < n:
        raise ValueError(f"n = {n}: there are only {len(prompts)} blocks")
    return start.name, start.model, torch.tensor(prompts, dtype=torch.int64, device=DEVICE)


def generated(model: PreTrainedModel, prompts: Tensor, batch: int = 128) -> Written:
    """As the authors do it."""
    parts = []
    for part in prompts.split(batch):
        output = model.generate(
            part,
            attention_mask=torch.ones_like(part),
            num_beams=BEAMS,
            do_sample=False,
            min_new_tokens=NEW,
            max_new_tokens=NEW,
            use_cache=True,
            return_dict_in_generate=True,
            output_scores=True,
        )
        parts.append(Written(output.sequences[:, part.shape[1] :].cpu(), output.sequences_scores.cpu() * NEW))
    return Written(*(torch.cat(column) for column in zip(*parts, strict=True)))


def written(model: PreTrainedModel, prompts: Tensor, batch: int) -> Written:
    """As we do it."""
    parts = [beams(model, part, NEW, beams=BEAMS) for part in prompts.split(batch)]
    return Written(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def least(model: PreTrainedModel, batch: int) -> Floor:
    """Products with weights, attention to what is followed; weights and a block's keys and values read once a step."""
    config = model.config
    positions = range(NEW, 2 * NEW - 1)  # one step each, with as many tokens before it
    tokens = NEW + BEAMS * len(positions)
    output = config.vocab_size * config.hidden_size
    attended = NEW * NEW / 2 + BEAMS * sum(positions)
    products = model.num_parameters(exclude_embeddings=True) * tokens + output * (tokens - NEW + 1)
    products += 2 * config.num_hidden_layers * config.hidden_size * attended
    shared = getattr(config, "num_key_value_heads", config.num_attention_heads) / config.num_attention_heads
    kept = 2 * config.num_hidden_layers * config.hidden_size * shared * sum(positions)
    read = kept * BLOCKS + model.num_parameters() * NEW * (BLOCKS / batch)
    top = speed(str(model.dtype).removeprefix("torch."))
    return Floor(2 * products * BLOCKS, read * model.dtype.itemsize, top, bandwidth())


def bandwidth() -> float:
    """Bytes a second that are read when an array too large for any cache is added up."""
    array = torch.ones(2**30 if DEVICE == "cuda" else 2**26, device=DEVICE)
    return 4 * len(array) / seconds(lambda rng: array.sum().item(), 3)


if __name__ == "__main__":
    for row in rows():
        print(row)
