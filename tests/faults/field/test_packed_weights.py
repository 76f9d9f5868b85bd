"""4-bit weights that are kept as floating-point numbers are unpacked like those kept as bytes."""

from functools import cache

import pytest

import small_runs


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """Return the loss and the gradient's norm of a first step by kind of storage and fused layers."""

    @cache
    def of(storage, fused):
        folder = tmp_path_factory.mktemp("packed")
        speed = {"dequantized_gib": 0, "fused_lora": fused}
        quantization = small_runs.NF4 | {"bnb_4bit_quant_storage": storage}
        run, _ = small_runs.start(folder, "sft", small_runs.base_of("llama", folder), {}, quantization, speed=speed)
        first = run.metric_lines()[0]
        return first["loss"], first["grad_norm"]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["bfloat16", "float16", "float32"])
def test_the_first_step_is_that_of_bytes(storage, losses):
    assert losses(storage, True) == losses("uint8", True)
    assert losses(storage, True)[0] == pytest.approx(losses("uint8", False)[0], rel=2e-3)
