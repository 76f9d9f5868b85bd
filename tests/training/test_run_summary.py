"""What runs is held against what was asked."""

from dataclasses import replace

import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from conftest import ROOT
from eyas.distributed.topology import Topology
from eyas.errors import PreflightError
from eyas.recipe import load_recipe
from eyas.training.run_summary import RunSummary, refuse_what_was_not_asked

RECIPE = load_recipe(ROOT / "recipes" / "falcon7b_qlora.yaml")
AS_ASKED = RunSummary(
    topology=Topology(2, "zero-2"), device="cpu", dtype="bfloat16", quantization="4-bit nf4", mixed_precision="bf16",
    attention="sdpa", quantized_layers=8, trainable=10, total=100, trainable_dtypes=["float32"], micro_batch=4,
    accumulation=2, rows=24, packed=False,
)  # fmt: skip


def test_a_run_that_is_what_was_asked_passes():
    refuse_what_was_not_asked(AS_ASKED, Topology(2, "zero-2"), RECIPE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topology": Topology(1, "zero-2"), "accumulation": 4}, "processes: 2 were requested; 1 train together"),
        ({"topology": Topology(2, "ddp")}, "zero-2 was requested; ddp runs"),
        ({"topology": Topology(2, "zero-3")}, "zero-2 was requested; zero-3 runs"),
        ({"accumulation": 1}, "global_batch_size 16 was asked for; 8 runs"),
        ({"mixed_precision": "no"}, "bf16 autocast was asked for; no runs"),
        ({"quantized_layers": 0}, "quantization was asked for; 0 layers are quantized"),
        ({"trainable": 0}, "nothing would train"),
    ],
)
def test_each_thing_that_runs_otherwise_is_refused_by_name(change, message):
    with pytest.raises(PreflightError, match=message):
        refuse_what_was_not_asked(replace(AS_ASKED, **change), Topology(2, "zero-2"), RECIPE)


def test_the_card_says_how_the_global_batch_is_made():
    assert "global batch  16 = 4 micro × 2 accumulated × 2 ranks; 24 rows" in AS_ASKED.text()
    assert "weights 4-bit nf4, the rest bfloat16; computing in bfloat16 autocast; training float32" in AS_ASKED.text()


@pytest.mark.parametrize("rows", [17, 21, 24, 3])
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_rows_that_accelerate_takes_again_are_counted(rows, ranks):
    batches = BatchSampler(range(rows), batch_size=4, drop_last=False)
    taken = [row for rank in range(ranks) for batch in BatchSamplerShard(batches, ranks, rank) for row in batch]

    card = replace(AS_ASKED, rows=rows, topology=Topology(ranks, "ddp"))

    assert card.taken_again == len(taken) - rows
    assert (f"{rows} rows, and the first {card.taken_again} again" in card.text()) == (card.taken_again > 0)
    assert replace(card, topology=Topology(1, "single")).taken_again == 0
