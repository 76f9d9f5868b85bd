"""A language model that sees the tokens it should predict is refused before the first step."""

import pytest
import torch
import transformers

import families
from eyas.errors import PreflightError
from eyas.model.probes.causality import refuse_unless_causal

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
XLNET = {"vocab_size": 97, "d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 32}
BIDIRECTIONAL = {
    "Roberta": SMALL, "Bert": SMALL, "Electra": SMALL | {"embedding_size": 32}, "XLMRoberta": SMALL, "XLNet": XLNET,
}  # fmt: skip


def model_of(name, **settings):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{name}Config")(**settings))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_model_that_sees_the_answer_is_refused(name, dtype):
    model = model_of(name, **BIDIRECTIONAL[name]).to(dtype)

    with pytest.raises(PreflightError, match=r"reads the tokens that it would be trained to predict: .* task: sft"):
        refuse_unless_causal(model)

    assert model.dtype == dtype and model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", families.FAMILIES)
def test_causal_model_of_every_family_passes(family, dtype):
    refuse_unless_causal(families.make(family, dtype=dtype, attention=families.FAMILIES[family][2][0]))


def test_encoder_that_its_config_makes_a_decoder_passes():
    refuse_unless_causal(model_of("Roberta", **SMALL, is_decoder=True))
