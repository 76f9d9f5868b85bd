"""Packing on a GPU, in the precision of the Falcon recipes. Not yet run on a GPU."""

import pytest
import torch
from transformers import AutoModelForCausalLM

import stand_ins
from eyas.model.packing import pack_safely

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_falcon_separates_packed_documents_on_a_gpu(attention, dtype, tmp_path):
    folder = stand_ins.falcon(tmp_path / "falcon", initializer_range=0.2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).to("cuda")

    result = pack_safely(model)

    print(result.text())
    assert result.mode == "block_diagonal" and result.reaction > 10 * result.tolerance
