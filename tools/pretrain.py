"""Make the tiny language model of `lib/model_collapse/tiny_opt` anew: tokenizer, weights, model card (`make pretrain`).

A byte-level BPE of 4,096 tokens and a small model of OPT's architecture are trained on the 42 pretraining articles that
`model_collapse.data_splits` sets apart. All follows from one seed, on one thread: the same processor and versions give
the same bytes. Others sum in another order, and give a model that is as good but not the same. The tokenizer is the
same everywhere, which ``--check`` verifies.
"""

import argparse
import hashlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from model_collapse.corpus import Blocks, Corpus, Tokens, blocks
from model_collapse.data_splits import DIGESTS, Article, splits
from model_collapse.data_text import WIKIPEDIA_SHA256
from model_collapse.language_measures import bits_per_byte, block_losses, perplexity
from model_collapse.pretrained import pretrained
from model_collapse.stored import as_json
from model_collapse.torch_random import drawing_from

FOLDER = Path(__file__).resolve().parent.parent / "lib/model_collapse/tiny_opt"
CARD, README = "model_card.json", "README.md"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # tokens 0 to 3, as OPT has them; </s> stands before each text
BEFORE, PAD, UNKNOWN = 2, 1, 3
SHAPE: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 128,
    "word_embed_proj_dim": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "ffn_dim": 512,
    "max_position_embeddings": 256,
    "dropout": 0.1,
}


WHERE = {
    "pretraining_validation": "6 articles that pretraining was watched on",
    "test": "9 test articles of the experiment, which the model has never seen",
}
TEMPLATE = """---
language: en
license: cc-by-sa-3.0
library_name: transformers
pipeline_tag: text-generation
---
# A tiny language model of OPT's architecture

The pretrained model that the small scale of *Model Collapse, the executable book* starts from: {parameters:,}
parameters, made by `tools/pretrain.py` (`make pretrain`), which also measured it and wrote this page.

| file | SHA-256 |
|---|---|
| `model.safetensors`, float16 | `{weights}` |
| `tokenizer.json` | `{tokenizer}` |

## How good it is

Without fine-tuning, on blocks of 64 tokens, from these very weights in float32: perplexity is the exponential of the
mean loss over the 63 predicted tokens of all blocks; bits per byte, unlike it, may be compared between tokenizers.

| text | blocks | perplexity | bits per byte |
|---|---|---|---|
{rows}

## What it is not fit for

It writes English-looking sentences without sense, and knows nothing that could be relied on: it is for experiments that
must run in minutes on a laptop, and for nothing else. It was trained on {articles} articles, all from the beginning
of the alphabet, repeats some of their phrases, and has their biases.

## Data, licence, attribution

Text: articles of the English Wikipedia, by its contributors, under
[CC BY-SA 3.0](https://creativecommons.org/licenses/by-sa/3.0/), from a test file of the package gensim (SHA-256
`{wikipedia}`), cleaned by `model_collapse.data_text`
and divided by `model_collapse.data_splits`. The tokenizer and the weights are derived from this text and are given
under the same licence, CC BY-SA 3.0, other than the code around them. Each article's history names its authors.
The {articles} articles:

{titles}

## Architecture and training

`OPTForCausalLM` of transformers: {num_hidden_layers} layers, hidden size {hidden_size}, {num_attention_heads}
heads, feed-forward size {ffn_dim}, tied embeddings, {max_position_embeddings} positions. Tokenizer: byte-level BPE of
{vocab_size:,} tokens, trained on the same articles; `<s>`, `<pad>`, `</s>`, `<unk>` are tokens 0 to 3, and `</s>`
stands before each text, as OPT has it.

{tokens:,} tokens, each paragraph with `</s>` before it, in blocks of {block}; {epochs} epochs in batches of {batch}
blocks; AdamW, weight decay {decay}; learning rate at most {rate}, rising over the first {warm_up:.0%} of the steps and
falling along a cosine to nothing; gradients cut at norm {clip}; dropout {dropout}; seed {seed}; {versions}.
Perplexity on the validation articles after each epoch: {history}.
One choice was made by looking at them, after one epoch of each: four blocks of 256 tokens a step, not sixteen of 128.
"""


class Training(NamedTuple):
    """How the weights are trained: AdamW, its rate rising over the first steps, then falling along a cosine."""

    seed: int = 0
    epochs: int = 8
    block: int = 256  # tokens: so that all positions are trained
    batch: int = 4  # blocks
    rate: float = 3e-3
    warm_up: float = 0.05  # share of the steps
    decay: float = 0.1
    clip: float = 1.0  # largest norm of a gradient


def main() -> None:
    """Train and describe; or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the model is, or is to be")
    parser.add_argument("--epochs", type=int, default=Training().epochs, help="fewer, to try: into another folder")
    parser.add_argument("--check", action="store_true", help="train the tokenizer only, and compare")
    arguments = parser.parse_args()
    training = Training(epochs=arguments.epochs)
    if training != Training() and arguments.folder == FOLDER:
        parser.error(f"--epochs {training.epochs}: the shipped model has {Training().epochs}; name another --folder")
    if arguments.check:
        sys.exit(check(arguments.folder))
    torch.set_num_threads(1)
    text = texts()
    tokenizer = tokenizer_of(text.train)
    model, history = train(SHAPE, blocks(text, tokenizer, training.block).train, blocks(text, tokenizer), training)
    save(arguments.folder, model, tokenizer)
    describe(arguments.folder, {**training._asdict(), "validation_perplexity": history})


def texts() -> Corpus:
    """Paragraphs to pretrain on, to watch pretraining on, and to measure the model on, of the experiment."""
    parts = splits()
    rows = [paragraphs(part) for part in (parts.pretraining, parts.pretraining_validation, parts.test)]
    return Corpus(*rows, "wikipedia, pretraining", DIGESTS["pretraining"])


def paragraphs(part: tuple[Article, ...]) -> tuple[str, ...]:
    """All paragraphs of the articles, in order."""
    return tuple(line for _, text in part for line in text.split("\n"))


def tokenizer_of(rows: Iterable[str], size: int = SHAPE["vocab_size"]) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE, with OPT's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(rows, trainer)
    before = SPECIAL[BEFORE]
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{before} $A", pair=f"{before} $A {before} $B", special_tokens=[(before, BEFORE)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=before,
        eos_token=before,
        pad_token=SPECIAL[PAD],
        unk_token=SPECIAL[UNKNOWN],
        clean_up_tokenization_spaces=False,
    )


def train(
    shape: dict[str, Any], rows: Tokens, measured: Blocks, training: Training
) -> tuple[OPTForCausalLM, list[float]]:
    """Pretrain on blocks (n, size); give the model, and its validation perplexity after each epoch."""
    text = torch.tensor(rows, dtype=torch.int64)
    with drawing_from(torch.Generator().manual_seed(training.seed)):  # start values, order of the blocks, dropout
        model = OPTForCausalLM(OPTConfig(bos_token_id=BEFORE, eos_token_id=BEFORE, pad_token_id=PAD, **shape))
        optimizer = torch.optim.AdamW(model.parameters(), lr=training.rate, weight_decay=training.decay)
        steps = training.epochs * math.ceil(len(text) / training.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: height((step + 1) / steps, training))
        history: list[float] = []
        for epoch in range(1, training.epochs + 1):
            begin = time.monotonic()
            for batch in text[torch.randperm(len(text))].split(training.batch):
                model.train()
                model(input_ids=batch, labels=batch).loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            speed = text.numel() / (time.monotonic() - begin)
            history.append(perplexity(block_losses(model.eval(), measured.validation)).corpus)
            print(
                f"epoch {epoch} of {training.epochs}: perplexity {history[-1]:.1f}, {speed:,.0f} tokens/s", flush=True
            )
    return model, history


def height(progress: float, training: Training) -> float:
    """Learning rate, as a share of its highest, when this share of the steps is done."""
    if progress < training.warm_up:
        return progress / training.warm_up
    return (1 + math.cos(math.pi * (progress - training.warm_up) / (1 - training.warm_up))) / 2


def save(folder: Path, model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write weights, in half precision, and tokenizer."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def describe(folder: Path, training: dict[str, Any]) -> None:
    """Measure the model as it was saved, and write the model card and what it states as numbers."""
    _, _, model, tokenizer = pretrained(str(folder))
    text = texts()
    measured = blocks(text, tokenizer)
    stated = {
        "sha256": {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name not in (CARD, README)},
        "wikipedia_sha256": WIKIPEDIA_SHA256,
        "articles_sha256": {name: DIGESTS[name] for name in ("pretraining", "pretraining_validation", "test")},
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "tokens": blocks(text, tokenizer, training["block"]).train.size,
        "training": training,
        "measured": {
            "pretraining_validation": measures(model, measured.validation, tokenizer),
            "test": measures(model, measured.test, tokenizer),
        },
        "versions": {library.__name__: library.__version__ for library in (tokenizers, torch, transformers)},
    }
    (folder / CARD).write_bytes(as_json(stated))
    (folder / README).write_text(card(stated), encoding="utf-8")


def measures(model: PreTrainedModel, rows: Tokens, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Perplexity and bits per byte on blocks of 64 tokens."""
    losses = block_losses(model, rows)
    bits = bits_per_byte(losses, rows, tokenizer)
    return {"blocks": len(rows), "perplexity": perplexity(losses).corpus, "bits_per_byte": bits}


def sha256(path: Path) -> str:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(folder: Path) -> str | None:
    """Train the tokenizer again; say what differs from the folder, or from the digests that its card states."""
    stated = json.loads((folder / CARD).read_bytes())["sha256"]
    with tempfile.TemporaryDirectory() as again:
        tokenizer_of(texts().train).save_pretrained(again)
        found = {name: sha256((Path(again) if "tokenizer" in name else folder) / name) for name in stated}
    different = [name for name in stated if stated[name] != found[name]]
    return f"{folder}: not as the model card states: {', '.join(different)}" if different else None


def card(stated: dict[str, Any]) -> str:
    """The model card."""
    training, measured, weights = stated["training"], stated["measured"], stated["sha256"]["model.safetensors"]
    titles = [title for title, _ in splits().pretraining]
    return TEMPLATE.format(
        **{**SHAPE, **training, "parameters": stated["parameters"], "tokens": stated["tokens"], "weights": weights},
        tokenizer=stated["sha256"]["tokenizer.json"],
        wikipedia=stated["wikipedia_sha256"],
        articles=len(titles),
        titles="; ".join(f"[{title}](https://en.wikipedia.org/wiki/{title.replace(' ', '_')})" for title in titles),
        history=", ".join(f"{value:.1f}" for value in training["validation_perplexity"]),
        rows="\n".join(
            f"| {WHERE[name]} | {row['blocks']:,} | {row['perplexity']:.2f} | {row['bits_per_byte']:.4f} |"
            for name, row in measured.items()
        ),
        versions=", ".join(f"{name} {version}" for name, version in stated["versions"].items()),
    )


if __name__ == "__main__":
    main()
