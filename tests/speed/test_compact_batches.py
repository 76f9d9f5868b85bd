"""Compact batches are off for adapters with virtual tokens, whatever the recipe sets."""

from types import SimpleNamespace

import peft
import pytest

from eyas.recipe.speed import Speed
from eyas.speed.compact_batches import COMPACTIONS
from families import make

PROMPT = {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}


@pytest.mark.parametrize("setting", [None, True])
@pytest.mark.parametrize("compaction", COMPACTIONS)
def test_prompt_learning_turns_compact_batches_off(compaction, setting):
    model = peft.get_peft_model(make("llama"), peft.PromptTuningConfig(**PROMPT))
    recipe = SimpleNamespace(adapter=SimpleNamespace(method="prompt_tuning"), speed=Speed(compact_batches=setting))

    optimizations = COMPACTIONS[compaction](recipe, SimpleNamespace(model=model), None)

    assert optimizations and {each.reason for each in optimizations} == {"the adapter adds virtual tokens"}
    assert not any(each.on for each in optimizations)
    assert "forward" not in vars(model.get_base_model())
