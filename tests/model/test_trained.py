"""A run's model, opened again: merges of its adapter."""

import peft
import pytest

from eyas.errors import ExportError
from eyas.model.trained import merged
from families import make


def test_method_that_does_not_merge_is_refused():
    config = peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")

    with pytest.raises(ExportError, match="prompt_tuning: it cannot be merged; keep base and adapter together"):
        merged(peft.get_peft_model(make("llama"), config))
