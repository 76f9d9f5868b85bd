"""The full report on a hundred thousand chats, in less than a minute."""

import json
import random
import time

import pytest
from transformers import AutoTokenizer

import stand_ins
from eyas.data.examples import LANGUAGE, ModelLimits
from eyas.data.prepare import prepare
from eyas.recipe import Recipe

ROWS, HELD_OUT, PLANTED = 95_000, 5_000, 1_000
WORDS = stand_ins.WORDS


@pytest.mark.slow
@pytest.mark.alone
def test_report_on_a_hundred_thousand_chats_finds_all_planted_overlaps_in_a_minute(models, tmp_path):
    generator = random.Random(0)

    def chat(number: int) -> list[str]:
        return [f"{number}: {' '.join(generator.choices(WORDS, k=25))}?", " ".join(generator.choices(WORDS, k=12))]

    train = [chat(row) for row in range(ROWS)]
    held_out = [chat(ROWS + row) for row in range(HELD_OUT)]
    planted = dict(zip(generator.sample(range(HELD_OUT), PLANTED), generator.sample(range(ROWS), PLANTED), strict=True))
    for index, (there, here) in enumerate(planted.items()):
        question, answer = train[here]
        held_out[there] = [question, answer] if index % 2 else [f"  {question.upper()}!", answer.title()]
    for name, rows in (("train", train), ("test", held_out)):
        with (tmp_path / f"{name}.jsonl").open("w") as stream:
            for question, answer in rows:
                messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                stream.write(json.dumps({"messages": messages}) + "\n")
    data = {
        "train": {"path": str(tmp_path / "train.jsonl")}, "evaluation": {"path": str(tmp_path / "test.jsonl")},
        "cache_directory": str(tmp_path / "prepared"), "limits": {"overlap": 1.0},
    }  # fmt: skip
    recipe = Recipe.model_validate({"task": "sft", "model": {"name": "m"}, "data": data})
    tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])

    began = time.perf_counter()
    report = prepare(recipe, tokenizer, LANGUAGE, ModelLimits(512, 400)).report
    seconds = time.perf_counter() - began

    print(report.text(), f"\n{ROWS + HELD_OUT:,} rows prepared and counted in {seconds:.1f} s")
    assert report.train.examples == ROWS and report.evaluation.examples == HELD_OUT
    assert (report.overlap.exact.count, report.overlap.normalized.count) == (PLANTED // 2, PLANTED // 2)
    assert report.train.end_tokens == ROWS and not any(found.count for found in report.train.defects.values())
    pairs = [pair.split(" = ") for pair in [*report.overlap.exact.first, *report.overlap.normalized.first]]
    lines = [tuple(int(place.rpartition(":")[2]) - 1 for place in pair) for pair in pairs]
    assert len(lines) == 40 and all(planted[there] == here for here, there in lines)
    assert seconds < 60
