r"""What is measured of language models and of the text of each generation.

- `block_losses`, `continuation_losses`: how well a model predicts blocks of tokens, in nats per token;
- `perplexity`: three ways to turn the losses of many blocks into one number, one of them the authors';
- `bits_per_byte`: the same per byte of text, the only one of these that may be compared across tokenizers;
- `tail` and `histogram` (module `language_tail`): the distribution over blocks, which the paper shows of each
  generation's training text under the model of generation 0;
- `diversity` and `compression` (module `diversity`): the text by itself, without a model.

Blocks are integers of shape (n, T). The loss of a block is the mean of :math:`-\log p(x_t \mid x_{<t})` over its T - 1
predicted tokens, in natural logarithms; nothing predicts its first token. Perplexity is the exponential of a mean loss.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from model_collapse.arguments import integer
from model_collapse.diversity import compression, diversity
from model_collapse.language_tail import BINS, LEVELS, checked_losses, hill, histogram, tail
from model_collapse.tokens import checked_blocks, token_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "BINS",
    "LEVELS",
    "Perplexity",
    "bits_per_byte",
    "block_losses",
    "compression",
    "continuation_losses",
    "diversity",
    "hill",
    "histogram",
    "perplexity",
    "tail",
]

TOGETHER = 32, 128  # blocks on a processor, and on a GPU


class Perplexity(NamedTuple):
    """Perplexity of a model on n blocks, in three ways, and the authors' band.

    Attributes
    ----------
    corpus : float
        The exponential of the mean loss over all predicted tokens.
    block_mean : float
        The mean over the blocks of each one's perplexity; never below `corpus`.
    authors : float
        The exponential of the mean over batches of each batch's mean loss.
    authors_band : float
        The exponential of the standard deviation of batch losses: a factor >= 1 and no width in perplexity.

    Examples
    --------
    >>> Perplexity(corpus=34.0, block_mean=41.0, authors=34.1, authors_band=1.2).corpus
    34.0
    """

    corpus: float
    block_mean: float
    authors: float
    authors_band: float


def block_losses(model: "PreTrainedModel", blocks: ArrayLike, batch: int | None = None) -> NDArray[np.float64]:
    r"""Mean negative log-likelihood of each block under a model, in nats per predicted token.

    .. math:: L_k = -\frac1{T - 1} \sum_{t = 2}^{T} \log p(x_{kt} \mid x_{k1}, \dots, x_{k, t - 1}),

    63 tokens for T = 64. Logits are cast to float32 before the log-softmax, losses are summed in float64.

    Parameters
    ----------
    model : PreTrainedModel
        Any causal language model of `transformers`, in evaluation mode; it is left as it is.
    blocks : array of int, shape (n, T), T >= 2
        Without padding.
    batch : int, optional
        Blocks at once, by default 32, on a GPU 128: memory is some 8 x batch x T x vocabulary bytes. Losses change in
        their last digits with it.

    Returns
    -------
    array of float64, shape (n,)
        Not finite where the model's logits are not.

    Raises
    ------
    ValueError
        Blocks that are none or hold tokens beyond the model's vocabulary, a model in training mode, batch < 1.

    Examples
    --------
    >>> from transformers import OPTConfig, OPTForCausalLM
    >>> sizes = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_hidden_layers": 1}
    >>> model = OPTForCausalLM(OPTConfig(vocab_size=64, num_attention_heads=2, **sizes)).eval()
    >>> block_losses(model, np.arange(64)[None]).round()  # untrained: near log 64 = 4.16
    array([4.])
    """
    return _losses(model, checked_blocks(blocks, "blocks", least=2), 1, batch)


def continuation_losses(
    model: "PreTrainedModel", prompts: ArrayLike, blocks: ArrayLike, batch: int | None = None
) -> NDArray[np.float64]:
    """Mean negative log-likelihood of each block given its prompt, in nats per token; all of its tokens are predicted.

    So a text can be checked against the weights that are said to have written it: with 64 tokens, -64 times its loss is
    the logarithm of the probability that they give it.

    Parameters
    ----------
    model, batch
        As in `block_losses`.
    prompts, blocks : array of int, shapes (n, S) and (n, T)
        Row k of the blocks continues row k of the prompts.

    Returns
    -------
    array of float64, shape (n,)

    Raises
    ------
    ValueError
        As in `block_losses`; another number of prompts than of blocks.

    Examples
    --------
    >>> from transformers import OPTConfig, OPTForCausalLM
    >>> sizes = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_hidden_layers": 1}
    >>> model = OPTForCausalLM(OPTConfig(vocab_size=64, num_attention_heads=2, **sizes)).eval()
    >>> given, text = np.arange(64)[None], np.arange(64)[None, ::-1]
    >>> whole = 127 * block_losses(model, np.hstack([given, text]))
    >>> np.allclose(whole, 63 * block_losses(model, given) + 64 * continuation_losses(model, given, text))
    True
    """
    given, tokens = checked_blocks(prompts, "prompts"), checked_blocks(blocks, "blocks")
    if len(given) != len(tokens):
        raise ValueError(f"prompts: one for each block is needed, got {len(given)} for {len(tokens)}")
    return _losses(model, np.concatenate([given, tokens], axis=1), given.shape[1], batch)


def perplexity(losses: ArrayLike, batch: int = 128) -> Perplexity:
    r"""Perplexity of n blocks in three ways, from their losses L.

    .. math::
        \text{corpus} &= \exp\Bigl(\frac1n \sum_k L_k\Bigr), \qquad
        \text{block mean} = \frac1n \sum_k \exp L_k, \\
        \text{authors} &= \exp\Bigl(\frac1B \sum_b \bar L_b\Bigr), \qquad
        \text{band} = \exp\Bigl(\sqrt{\frac1{B - 1} \sum_b (\bar L_b - \bar{\bar L})^2}\Bigr),

    where :math:`\bar L_b` is the mean loss of the b-th of B batches of consecutive blocks, the last of which may be
    short: only then do the authors' and the corpus perplexity differ, for all blocks have equally many tokens. The
    block mean is never below the corpus perplexity (Jensen's inequality). The authors' code also computes the mean of
    exp over batches, which is the block mean where a batch is one block, but does not log it. Their band tells how much
    means of batches differ, so it narrows as batches grow: with independent blocks its logarithm halves when batches
    are four times as large.

    Source: ``plt_model.py`` of the authors' code (test epoch), where the band is logged as a standard deviation.

    Parameters
    ----------
    losses : array of float, shape (n,)
        Of `block_losses`, in the order of the blocks.
    batch : int
        Blocks in a batch: 128 is the default of the authors' code.

    Returns
    -------
    Perplexity
        The band is NaN where there is but one batch, as torch has it.

    Raises
    ------
    ValueError
        Losses that are none (finite, >= 0, at least one), batch < 1.

    Examples
    --------
    >>> np.round(perplexity(np.log([1, 4, 16]), batch=2), 3)
    array([4.   , 7.   , 5.657, 4.351])
    """
    known = checked_losses(losses, "losses")
    starts = np.arange(0, len(known), integer(batch, "batch"))
    means = np.add.reduceat(known, starts) / np.diff(starts, append=len(known))
    band = float(np.exp(means.std(ddof=1))) if len(means) > 1 else float("nan")
    return Perplexity(float(np.exp(known.mean())), float(np.exp(known).mean()), float(np.exp(means.mean())), band)


def bits_per_byte(losses: ArrayLike, blocks: ArrayLike, tokenizer: "PreTrainedTokenizerBase") -> float:
    r"""Loss of all predicted tokens in bits, over the bytes (UTF-8) of the text that they stand for.

    .. math:: \frac{\sum_k (T - 1) L_k / \log 2}{\sum_k \sum_{t = 2}^T \text{bytes}(x_{kt})}

    The first token of a block is predicted by nothing, so its bytes do not count. Special tokens have no bytes but
    their loss counts: a model pays for OPT's </s>, which begins each row of text. A tokenizer without such a token is
    spared that; the difference is one token a row.

    Parameters
    ----------
    losses : array of float, shape (n,)
        Of `block_losses`.
    blocks : array of int, shape (n, T)
        The same blocks.
    tokenizer : PreTrainedTokenizerBase
        As in `tokens.token_bytes`.

    Raises
    ------
    ValueError
        Losses or blocks that are none, or of different numbers; no byte of text; a tokenizer of another kind.

    Examples
    --------
    >>> from tokenizers import Tokenizer, decoders, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> pieces = Tokenizer(models.BPE({"a": 0, "bcd": 1, "</s>": 2}, []))
    >>> pieces.decoder = decoders.ByteLevel()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="</s>")
    >>> round(bits_per_byte([np.log(2)], [[0, 1, 2, 0]], tokenizer), 6)  # three tokens at one bit, four bytes
    0.75
    """
    known, tokens = checked_losses(losses, "losses"), checked_blocks(blocks, "blocks", least=2)
    if len(known) != len(tokens):
        raise ValueError(f"losses: one for each block is needed, got {len(known)} for {len(tokens)}")
    lengths = np.fromiter(map(len, token_bytes(tokenizer)), np.int64)
    predicted = tokens[:, 1:]
    total = int(lengths[predicted[predicted < len(lengths)]].sum())
    if not total:
        raise ValueError("blocks: the predicted tokens stand for no byte of text")
    return float(known.sum() * predicted.shape[1] / np.log(2) / total)


@torch.no_grad()
def _losses(model: "PreTrainedModel", tokens: NDArray[np.int64], first: int, batch: int | None) -> NDArray[np.float64]:
    """Mean loss of the tokens from position `first` on."""
    if model.training:
        raise ValueError("model: must be in evaluation mode (model.eval()), for dropout would make losses random")
    embeddings: Any = model.get_input_embeddings()
    if (most := int(tokens.max())) >= (known := embeddings.weight.shape[0]):
        raise ValueError(f"blocks: tokens must lie in the model's vocabulary, 0 to {known - 1}, got {most}")
    together = TOGETHER[model.device.type == "cuda"] if batch is None else integer(batch, "batch")
    parts = torch.split(torch.from_numpy(tokens), together)
    means = torch.cat([_part(model, part.to(model.device), first) for part in parts])
    losses: NDArray[np.float64] = means.cpu().numpy()
    return losses


def _part(model: "PreTrainedModel", tokens: Tensor, first: int) -> Tensor:
    predicted = tokens[:, first:]
    T = predicted.shape[1]
    logits = model(input_ids=tokens, use_cache=False, logits_to_keep=T + 1).logits[:, :-1].float()
    losses = functional.cross_entropy(logits.flatten(0, 1), predicted.flatten(), reduction="none")
    return losses.view(-1, T).double().mean(1)
