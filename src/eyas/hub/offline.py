"""The libraries' own hub clients, kept from asking for anything that was not fetched."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def libraries_offline() -> Iterator[None]:
    """Have transformers, peft and datasets read the cache and ask no hub, in this process and in those that it starts.

    Everything that a run reads was fetched before, by its commit. transformers 5.23 would look for optional files with
    every load, its tokenizers and peft 0.21 would ask for the newest commit's description.
    """
    from huggingface_hub import constants

    with patch.object(constants, "HF_HUB_OFFLINE", True), patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}):
        yield
