"""A row's loss does not depend on the other rows of its batch."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from eyas.evaluation.losses import class_losses, token_losses


def test_losses_of_a_language_model_equal_those_of_each_row_alone(models):
    model = AutoModelForCausalLM.from_pretrained(models["smollm2"], dtype=torch.float32).eval()
    rows = []
    for length in (5, 19, 9, 12):
        ids = torch.arange(3, 3 + length)[None]
        labels = ids.clone()
        labels[0, : length // 2] = -100
        rows.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})

    losses = token_losses(model, rows, pad_token_id=2)

    with torch.inference_mode():
        alone = [float(model(**row).loss) for row in rows]
    assert losses == pytest.approx(alone, rel=1e-4)


def test_choices_of_a_classifier_equal_those_of_each_row_alone(models):
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(models["minilm"], num_labels=3).eval()
    rows = [
        {
            "input_ids": torch.arange(3, 3 + n)[None],
            "attention_mask": torch.ones(1, n).long(),
            "labels": torch.tensor([n % 3]),
        }
        for n in (4, 11, 7)
    ]

    scored = class_losses(model, rows, pad_token_id=0)

    with torch.inference_mode():
        outputs = [model(**row) for row in rows]
    assert [choice for _, choice in scored] == [int(o.logits.argmax()) for o in outputs]
    assert [loss for loss, _ in scored] == pytest.approx([float(o.loss) for o in outputs], rel=1e-4)
