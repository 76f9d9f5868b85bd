"""Bases that a task cannot train are refused before rows are read; one with another head gets a new one."""

import pytest
import torch
import transformers

import stand_ins
from eyas.errors import PreflightError
from eyas.model.load import load_config, load_model
from eyas.recipe.library_models import attention_names, model_types
from eyas.recipe.model import Model
from eyas.recipe.task_traits import TASK_TRAITS
from eyas.tasks import TASKS
from field_recipes import FieldRecipe

OTHER_KINDS = [
    ("sft", "T5Config", "t5"),
    ("sft", "DistilBertConfig", "distilbert"),
    ("sft", "ViTConfig", "vit"),
    ("classes", "MambaConfig", "mamba"),
    ("classes", "WhisperConfig", "whisper"),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return stand_ins.text_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


@pytest.mark.parametrize("checked", ["by eyas check", "by its config"])
@pytest.mark.parametrize(("kind", "config", "name"), OTHER_KINDS)
def test_a_model_of_another_kind_is_refused_at_its_name(kind, config, name, checked, rows, tmp_path, monkeypatch):
    getattr(transformers, config)().save_pretrained(tmp_path / "base")
    recipe = FieldRecipe(tmp_path, tmp_path / "base", rows, kind, "training.seed=1")
    if checked == "by its config":  # as for a hub name, which `eyas check` does not open
        monkeypatch.setattr("field_recipes.check", lambda _: [])

    with pytest.raises(PreflightError, match=f"is a {name} model, and transformers has none of that kind") as refusal:
        recipe.check(model=checked == "by its config")

    assert recipe.settings_in(str(refusal.value)) == ["model.name"]


@pytest.mark.parametrize("task", TASKS)
def test_the_kinds_read_from_source_are_those_of_the_imported_class(task):
    imported = getattr(transformers.models.auto.modeling_auto, TASK_TRAITS[task].models)

    assert model_types(TASK_TRAITS[task].models) == imported.keys()
    assert getattr(transformers, TASKS[task].auto_model)._model_mapping._model_mapping is imported


def test_the_attention_names_read_from_source_are_those_of_the_imported_interface():
    imported = transformers.AttentionInterface._global_mapping

    own = {name for name in imported if name.startswith("eyas_")}  # registered by a packed training in this process
    assert {*attention_names()} == {"eager", *(name for name in imported if "|" not in name)} - own


@pytest.mark.parametrize("labels", [["a", "b", "c"], ["a", "b", "c", "d", "e"]])
def test_a_head_for_other_classes_than_the_rows_is_new_and_the_rest_is_the_bases(labels, tmp_path, caplog):
    base = stand_ins.bert(tmp_path / "base")
    kind = transformers.AutoModelForSequenceClassification
    two = kind.from_config(load_config(Model(name=str(base)), ["x", "y"]))
    two.save_pretrained(base)
    model = Model(name=str(base), dtype="float32")

    with caplog.at_level("INFO"):
        loaded, new = load_model(model, None, load_config(model, labels), "AutoModelForSequenceClassification")

    assert new == ["classifier.bias", "classifier.weight"]
    assert loaded.classifier.out_features == len(labels)
    assert torch.equal(loaded.bert.pooler.dense.weight, two.bert.pooler.dense.weight)
    assert f"has 2 classes, the rows have {len(labels)}: a new one is trained" in caplog.text


def test_weights_of_other_shapes_than_the_config_are_refused_in_words(tmp_path):
    base = stand_ins.bert(tmp_path / "base")
    config = load_config(Model(name=str(base)), ["x", "y"])
    config.intermediate_size *= 2

    with pytest.raises(PreflightError, match=r"dense.(weight|bias) has the shape .*, and its config says"):
        load_model(Model(name=str(base)), None, config, "AutoModelForSequenceClassification")
