"""Keep the libraries' own hub clients offline."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def libraries_offline() -> Iterator[None]:
    """Make transformers, peft and datasets read the cache only, in this process and its children.

    All files of a run were downloaded before, by commit. Online, transformers 5.23 would look for optional files at
    every load, and its tokenizers and peft 0.21 would request the newest commit's description.
    """
    from huggingface_hub import constants

    with patch.object(constants, "HF_HUB_OFFLINE", True), patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}):
        yield
