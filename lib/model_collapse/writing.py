"""Continuations of blocks of tokens, all of one length: by beam search, or sampled at temperature 1.

Beam search as `generate` of transformers does it when every continuation has exactly the length asked for, in another
order of work. There, each beam is a sequence of its own: a prompt is kept once for every beam, and what is cached is
re-ordered and re-allocated after every token. Here the beams of a block are positions of one sequence: each new
position holds the last token of a beam and is told, by a mask, which earlier positions it continues. So a prompt is
kept once, cached keys and values stay where they were written, and the mask alone follows the beams.

All of it through what transformers offers to everybody: `input_ids`, `position_ids`, `attention_mask` of four
dimensions, `past_key_values` (a cache of our own kind of layer), and an attention function that is registered.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache, DynamicLayer, PreTrainedModel

from model_collapse.arguments import integer, real

ATTENTION = "model_collapse"  # the name under which `attention` is registered


class Written(NamedTuple):
    """Continuations, and how likely the model found them.

    Attributes
    ----------
    tokens : Tensor of int64, shape (n, new)
        Continuations, without their prompts.
    scores : Tensor of float32, shape (n,)
        Sum over a continuation's tokens of their log-probability in nats, as whoever chose them saw it.

    Examples
    --------
    >>> Written(torch.tensor([[5, 7]]), torch.tensor([-3.0])).tokens.shape
    torch.Size([1, 2])
    """

    tokens: Tensor
    scores: Tensor


@torch.no_grad()
def beams(model: PreTrainedModel, prompts: Tensor, new: int = 64, *, beams: int = 5, penalty: float = 1.0) -> Written:
    """Continue each prompt by the best of a beam search, as `model.generate` with as many tokens at least as at most.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model in evaluation mode that honours masks of four dimensions, positions and a cache, with
        attention "sdpa" or "eager". Of its `generation_config` the end tokens count, and nothing else.
    prompts : Tensor of integers, shape (n, length)
        Tokens without padding, on the model's device.
    new : int
        Length of a continuation. End tokens are never in it: their log-probability is minus infinity, and the others
        keep theirs.
    beams : int
        How many beginnings are kept after each token.
    penalty : float
        Repetition penalty: log-probabilities of tokens that the prompt or the beam has already are multiplied by it
        (sums are then no log-probabilities, but what beams are ranked by). 1 is none.

    Returns
    -------
    Written
        The best beam of each prompt. Log-probabilities and their sums are float32 whatever the model's type.

    Raises
    ------
    ValueError
        Prompts that are no integers in two dimensions, or not tokens of the model; a model whose context is shorter
        than prompt and continuation, or that cannot be asked in this way; a penalty that is not positive; more beams
        than there are tokens.
    FloatingPointError
        Log-probabilities that are no numbers.

    Examples
    --------
    >>> from transformers import OPTConfig, OPTForCausalLM
    >>> from model_collapse.torch_random import drawing_from
    >>> config = OPTConfig(
    ...     vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, ffn_dim=8, word_embed_proj_dim=8,
    ...     max_position_embeddings=16)
    >>> with drawing_from(torch.Generator().manual_seed(0)):
    ...     model = OPTForCausalLM(config).eval()
    >>> prompts = torch.tensor([[4, 5, 6]])
    >>> written = beams(model, prompts, 8)
    >>> generated = model.generate(prompts, num_beams=5, min_new_tokens=8, max_new_tokens=8)
    >>> torch.equal(written.tokens, generated[:, 3:])
    True
    """
    ends = _end_tokens(model, prompts, new, penalty)
    gains = partial(_ranking, penalty=penalty, ends=ends)
    n, length = prompts.shape
    beams = integer(beams, "beams", 1, model.config.get_text_config().vocab_size - len(ends))
    cache = _cache(model, length + beams * (new - 1))
    logits = _logits(model, prompts, past_key_values=cache, logits_to_keep=1)
    text, score = prompts[:, None].long(), torch.zeros(n, 1, device=prompts.device)
    mask = torch.zeros(n, 1, length, dtype=model.dtype, device=prompts.device)
    itself = torch.full((beams, beams), torch.finfo(model.dtype).min, dtype=model.dtype, device=prompts.device)
    itself = itself.fill_diagonal_(0).expand(n, -1, -1)
    with _attention_of(model):
        for step in range(new):
            ranked = gains(logits, text).add_(score[..., None])
            score, best = ranked.flatten(1).topk(beams)
            parent, token = best // ranked.shape[-1], best % ranked.shape[-1]
            text = torch.cat([_rows(text, parent), token[..., None]], -1)
            if step + 1 < new:
                mask = torch.cat([_rows(mask, parent), itself], -1)
                at = torch.full_like(token, length + step)
                logits = _logits(model, token, past_key_values=cache, position_ids=at, attention_mask=mask[:, None])
    _confirm(model, text[:1, 0], score[:, 0], gains, new)
    return Written(text[:, 0, length:], score[:, 0])


@torch.no_grad()
def sampled(
    model: PreTrainedModel, prompts: Tensor, generator: torch.Generator, new: int = 64, *, penalty: float = 1.0
) -> Written:
    """Continue each prompt by a draw from the model, at temperature 1 and without truncation.

    Parameters
    ----------
    model, prompts, new
        As in `beams`.
    generator : torch.Generator
        For the draws, one uniform number for each token; on the model's device.
    penalty : float
        Repetition penalty, on logits: of tokens that the prompt or the continuation has already, positive ones are
        divided by it, negative ones multiplied. 1 is none.

    Returns
    -------
    Written
        Scores are log-probabilities of the laws that were drawn from: penalty applied, end tokens excluded.

    Raises
    ------
    ValueError
        As in `beams`; a generator on another device.
    FloatingPointError
        As in `beams`.

    Examples
    --------
    >>> from transformers import OPTConfig, OPTForCausalLM
    >>> from model_collapse.torch_random import drawing_from
    >>> config = OPTConfig(
    ...     vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, ffn_dim=8, word_embed_proj_dim=8,
    ...     max_position_embeddings=16)
    >>> with drawing_from(torch.Generator().manual_seed(0)):
    ...     model = OPTForCausalLM(config).eval()
    >>> sampled(model, torch.tensor([[4, 5, 6]]), torch.Generator().manual_seed(0), 8).tokens.shape
    torch.Size([1, 8])
    """
    ends = _end_tokens(model, prompts, new, penalty)
    if not isinstance(generator, torch.Generator) or generator.device != prompts.device:
        raise ValueError(f"generator = {generator!r:.80}: must be a torch.Generator on {prompts.device}")
    laws = partial(_law, penalty=penalty, ends=ends)
    n, length = prompts.shape
    cache = _cache(model, length + new - 1)
    logits = _logits(model, prompts, past_key_values=cache, logits_to_keep=1)
    text, score = prompts[:, None].long(), torch.zeros(n, 1, dtype=torch.float64, device=prompts.device)
    with _attention_of(model):
        for step in range(new):
            law = laws(logits, text)[:, 0]
            below = law.exp().cumsum(-1)
            uniform = torch.rand(n, 1, dtype=torch.float64, generator=generator, device=prompts.device)
            token = torch.searchsorted(below, uniform * below[:, -1:], right=True)  # the first that is above
            token.clamp_(max=below.shape[-1] - 1)  # where a law is not finite, which is said in the end
            score += law.gather(1, token)
            text = torch.cat([text, token[..., None]], -1)
            if step + 1 < new:
                at = torch.full_like(token, length + step)
                logits = _logits(model, token, past_key_values=cache, position_ids=at)
    _confirm(model, text[:1, 0], score[:, 0], laws, new)
    return Written(text[:, 0, length:], score[:, 0].float())


class _Layer(DynamicLayer):
    """Keys and values of one layer, in memory that is taken once; what is read is a view of it."""

    def __init__(self, size: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = size

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the memory, once shapes are known."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.room = [x.new_empty(*x.shape[:2], self.size, x.shape[3]) for x in (key_states, value_states)]
        self.keys, self.values = (x[:, :, :0] for x in self.room)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write behind what is there already, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        self.keys, self.values = (x[:, :, :end] for x in self.room)
        return self.keys, self.values


def _cache(model: PreTrainedModel, size: int) -> Cache:
    """An empty cache with room for so many positions."""
    return Cache(layers=[_Layer(size) for _ in range(model.config.get_text_config().num_hidden_layers)])


def _logits(model: PreTrainedModel, tokens: Tensor, **more: Any) -> Tensor:
    """Logits (n, rows, vocabulary) of what follows each of the tokens (n, rows)."""
    logits: Tensor = model(input_ids=tokens, use_cache="past_key_values" in more, **more).logits
    return logits


def _ranking(logits: Tensor, text: Tensor, penalty: float, ends: Tensor) -> Tensor:
    """What a beam gains by each token: its log-probability, penalised; by end tokens minus infinity."""
    return _penalised(logits.float().log_softmax(-1), text, penalty).index_fill_(-1, ends, -torch.inf)


def _law(logits: Tensor, text: Tensor, penalty: float, ends: Tensor) -> Tensor:
    """Log-probabilities, in float64, of the law that is sampled from."""
    return _penalised(logits.float(), text, penalty).index_fill_(-1, ends, -torch.inf).double().log_softmax(-1)


def _penalised(scores: Tensor, text: Tensor, penalty: float) -> Tensor:
    """Scores (n, rows, vocabulary), changed in place where a row of text (n, rows, length) has the token already."""
    if penalty == 1:
        return scores
    seen = scores.gather(-1, text)
    return scores.scatter_(-1, text, torch.where(seen < 0, seen * penalty, seen / penalty))


def _rows(values: Tensor, chosen: Tensor) -> Tensor:
    """Of values (n, rows, size), the chosen (n, beams) rows."""
    return values.gather(1, chosen[..., None].expand(-1, -1, values.shape[-1]))


def _attention(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention where the heads that share keys and values (grouped queries) are rows of one product.

    transformers copies keys and values for each of them, all that is cached at every token, when there is a mask.
    """
    n, heads, rows, size = query.shape
    shared = key.shape[1]
    if attention_mask is not None and shared < heads:
        attention_mask = attention_mask.repeat(1, 1, heads // shared, 1)
    query = query.reshape(n, shared, -1, size)
    output = scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
    return output.reshape(n, heads, rows, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)


@contextmanager
def _attention_of(model: PreTrainedModel) -> Iterator[None]:
    """Let the model use `_attention` in place of torch's kernel, for a while."""
    if model.config._attn_implementation != "sdpa":
        yield
        return
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def _confirm(
    model: PreTrainedModel, text: Tensor, scores: Tensor, rule: Callable[[Tensor, Tensor], Tensor], new: int
) -> None:
    """Refuse scores that are no numbers, and a model that says of the first text (1, length + new) something else.

    If that text, read in one go, has another score, the model's memory is not the cache, or it does not see what the
    mask shows it (it attends to a window, say).
    """
    if not torch.isfinite(scores).all():
        raise FloatingPointError(
            f"model = {type(model).__name__}: log-probabilities are not finite in {model.dtype}; try float32"
        )
    score = float(scores[0])
    length = text.shape[1] - new
    logits = _logits(model, text[:, :-1])[:, length - 1 :]
    places = torch.arange(text.shape[1], device=text.device)
    before = torch.where(places < places[length:, None], text, text[:, :1])  # of each new token, at one length
    read = float(rule(logits, before[None]).gather(-1, text[:, length:, None]).double().sum())
    least = 2**-10 if logits.is_cuda else torch.finfo(torch.float32).eps  # GPUs may round products to TF32
    precision = max(torch.finfo(logits.dtype).eps, least) ** 0.5  # at most, of sums
    if not abs(read - score) <= precision * max(new, abs(score)):
        raise ValueError(
            f"model = {type(model).__name__}: must honour positions, a mask of four dimensions and a cache "
            f"(what it wrote with {score:.6g} nats has {read:.6g} when read in one go)"
        )


def _end_tokens(model: PreTrainedModel, prompts: Tensor, new: int, penalty: float) -> Tensor:
    """Refuse what cannot be continued; return the model's end tokens."""
    integer(new, "new")
    if real(penalty, "penalty") <= 0:
        raise ValueError(f"penalty = {penalty}: must be positive (1: none)")
    if not isinstance(prompts, Tensor):
        raise ValueError(f"prompts = {prompts!r:.80}: must be a tensor of integers (n, length)")
    if prompts.dtype not in (torch.int32, torch.int64) or prompts.ndim != 2 or not prompts.numel():
        shape = tuple(prompts.shape)
        raise ValueError(f"prompts of {prompts.dtype}, shape {shape}: must be int32 or int64 (n, length), not empty")
    _refuse(model, prompts.shape[1], new)
    vocabulary = model.config.get_text_config().vocab_size
    least, most = (int(x) for x in prompts.aminmax())
    if least < 0 or most >= vocabulary:
        raise ValueError(f"prompts with tokens from {least} to {most}: must be from 0 to {vocabulary - 1}")
    end = model.generation_config.eos_token_id
    ends = [] if end is None else [end] if isinstance(end, int) else end
    if not all(0 <= token < vocabulary for token in ends):
        raise ValueError(f"model with end tokens {ends}: must be from 0 to {vocabulary - 1}")
    return torch.tensor(sorted(set(ends)), dtype=torch.int64, device=prompts.device)


def _refuse(model: PreTrainedModel, length: int, new: int) -> None:
    """Refuse a model that cannot continue texts of this length, as far as it says so itself."""
    name, config = type(model).__name__, model.config.get_text_config()
    if model.training:
        raise ValueError(f"model = {name} in training: must be in evaluation mode, by model.eval()")
    for argument in ("position_ids", "attention_mask", "past_key_values", "logits_to_keep"):
        if argument not in signature(model.forward).parameters:
            raise ValueError(f"model = {name}: must take {argument}")
    if config._attn_implementation not in ("sdpa", "eager"):
        raise ValueError(f"model with attention {config._attn_implementation!r}: must be 'sdpa' or 'eager'")
    for limit in ("max_position_embeddings", "sliding_window"):
        most = getattr(config, limit, None)
        if most is not None and most < length + new:
            raise ValueError(f"new = {new}: with prompts of {length} tokens more than the model's {limit} = {most}")
