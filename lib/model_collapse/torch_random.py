"""Random numbers for torch, from streams that are passed in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from numpy.random import Generator


def torch_generator(rng: Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on a device, seeded from the stream of a numpy generator.

    Examples
    --------
    >>> import numpy as np
    >>> torch_generator(np.random.default_rng(0)).initial_seed()
    5874934615388537135
    """
    return torch.Generator(device).manual_seed(int(rng.integers(2**63)))


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let code that takes no generator (dropout) draw from this one; torch's global state is as before afterwards.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with drawing_from(torch.Generator().manual_seed(0)):
    ...     kept = torch.nn.functional.dropout(torch.ones(1000)).count_nonzero().item()
    >>> 400 < kept < 600, torch.equal(before, torch.get_rng_state())
    (True, True)
    """
    on_gpu = generator.device.type == "cuda"
    with torch.random.fork_rng(devices=[generator.device] if on_gpu else []):
        if on_gpu:
            torch.cuda.set_rng_state(generator.get_state(), generator.device)
            torch.default_generator.manual_seed(generator.initial_seed())  # whole layers are dropped by draws there
        else:
            torch.set_rng_state(generator.get_state())
        yield
        generator.set_state(torch.cuda.get_rng_state(generator.device) if on_gpu else torch.get_rng_state())
