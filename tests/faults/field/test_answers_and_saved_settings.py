"""Answers are greedy whatever a base's settings, and saved models stop where the trained answers end."""

import json
import re
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import families
import merges
import stand_ins
from eyas.data.examples import LANGUAGE
from eyas.data.prompt_checks import _difference
from eyas.data.row_spec import Encoding
from eyas.evaluation import side_by_side
from eyas.export.parity import predictions
from eyas.inference.generate import Answer, generate
from eyas.model.saved import gathered, write_adapter
from eyas.model.stop_tokens import prepare_to_save, stop_tokens
from eyas.model.tokenizer import save_tokenizer

PUBLISHED = [
    {"repetition_penalty": 1.8}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2, "do_sample": True},
    {"stop_strings": ["a"]}, {"do_sample": True, "temperature": 0.7, "top_k": 5}, {"no_repeat_ngram_size": 1},
    {"min_new_tokens": 9}, {"bad_words_ids": [[7]]}, {"suppress_tokens": [3, 4, 5]}, {"return_dict_in_generate": True},
    {"max_length": 3}, {"use_cache": False}, {"forced_eos_token_id": 5}, {"exponential_decay_length_penalty": [1, 3.0]},
    {"prompt_lookup_num_tokens": 3}, {"penalty_alpha": 0.6, "top_k": 4}, {"cache_implementation": "static"},
]  # fmt: skip
"""Settings that a base may be published with. The first ones are known from reports; the others do more."""


@pytest.fixture(scope="module")
def tokenizer(models):
    made = AutoTokenizer.from_pretrained(models["falcon7b"])
    made.pad_token = made.eos_token
    return made


def greedy_by_hand(model, prompt, count, ends):
    ids = list(prompt)
    for _ in range(count):
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("settings", PUBLISHED, ids=lambda settings: next(iter(settings)))
def test_answers_are_greedy_whatever_the_base_was_published_with(settings, tokenizer):
    model = families.make("llama").eval()
    prompts = [[5, 9, 11, 20], [7, 8, 30, 31, 32, 9]]
    written = [greedy_by_hand(model, one, 8, {0, 2}) for one in prompts]
    expected = [Answer(tokenizer.decode(ids, skip_special_tokens=True), ids[-1] not in {0, 2}) for ids in written]
    model.generation_config = published = GenerationConfig(eos_token_id=2)
    for name, value in settings.items():  # as from a file, which nothing validates
        setattr(published, name, value)

    assert generate(model, tokenizer, prompts, 8) == expected
    assert model.generation_config is published


@pytest.mark.parametrize("base_ends", [None, 5, [5, 6]], ids=["no end", "one end", "two ends"])
@pytest.mark.parametrize("contradiction", [{}, {"temperature": 0.6, "top_p": 0.9}], ids=["plain", "as Llama 2"])
def test_saved_adapter_and_model_stop_at_the_trained_and_the_published_ends(
    base_ends, contradiction, tokenizer, tmp_path
):
    from peft import LoraConfig, get_peft_model

    model = families.make("llama")
    model.generation_config = GenerationConfig(eos_token_id=base_ends, **contradiction)
    prepare_to_save(model, tokenizer, [7])

    model.save_pretrained(tmp_path / "model")
    adapter = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    write_adapter(adapter, gathered(adapter), tmp_path / "adapter")

    known = base_ends if isinstance(base_ends, list) else [base_ends] if base_ends else []
    for folder in ("model", "adapter"):
        saved = GenerationConfig.from_pretrained(tmp_path / folder)
        assert stop_tokens(saved) == [0, 7, *known] and saved.pad_token_id == 0
        assert {name: getattr(saved, name) for name in contradiction} == contradiction
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").generation_config.eos_token_id == [0, 7, *known]


def test_merged_model_stops_at_the_end_tokens_of_the_runs_rows(tmp_path, monkeypatch):
    from eyas.export import merge

    run, recipe = merges.finished_run(tmp_path, dtype="float32", export={"dtype": "float32"})
    monkeypatch.setattr(merge, "end_tokens_of", lambda directory: [9, 11] if directory == run else [])

    merges.merged(run, recipe)

    assert stop_tokens(GenerationConfig.from_pretrained(run.merged)) == [9, 11, 2]


def test_saved_tokenizer_has_only_names_that_transformers_4_knows(models, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(models["smollm2"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>", "<|think|>"]})

    save_tokenizer(tokenizer, tmp_path)

    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["additional_special_tokens"] == ["<|tool|>", "<|think|>"]
    assert "extra_special_tokens" not in settings
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|im_start|>user\nthe hill<|tool|> and<|think|>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.all_special_tokens == tokenizer.all_special_tokens
    assert again.chat_template == tokenizer.chat_template


BASE_CHANGERS = [
    {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}, {"bias": "all"}, {"bias": "lora_only"},
    {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]}, {"trainable_token_indices": [3, 4]},
    {"init_lora_weights": "pissa_niter_2"}, {"init_lora_weights": "orthogonal"}, {"use_dora": True},
]  # fmt: skip


@pytest.mark.parametrize("settings", BASE_CHANGERS, ids=lambda one: "-".join(map(str, *one.items())))
def test_base_that_is_scored_is_the_published_base(settings, tmp_path, monkeypatch):
    run, recipe = merges.finished_run(tmp_path, family="qwen2", dtype="float32", adapter=settings)
    rows, seen = merges.random_rows(4), {}
    monkeypatch.setattr(side_by_side, "evaluate", lambda model, *_: predictions(model, rows))
    monkeypatch.setattr(side_by_side, "say", seen.setdefault)
    splits = type("Splits", (), {"labels": None, "report": type("R", (), {"train": type("T", (), {"prompts": None})})})

    records, _ = side_by_side.score_all(run, recipe, "AutoModelForCausalLM", None, splits)

    published = AutoModelForCausalLM.from_pretrained(recipe.model.name, dtype=torch.float32).eval()
    expected = predictions(published, rows)
    assert list(records) == ["base", "tuned"]
    assert all(torch.equal(one, other) for one, other in zip(records["base"], expected, strict=True))
    assert not torch.equal(records["tuned"][0], expected[0])


HEADS = "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endfor %}"
PROMPTED = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHAT = {"messages": [{"role": "user", "content": "the hill"}, {"role": "assistant", "content": "it"}]}
OTHERS = {
    "a generation prompt with more than is trained": (
        HEADS + PROMPTED.replace("assistant\n", "assistant\n<think>"), r"its prompt continues with .*<think>",
    ),
    "a mark that starts after the generation prompt": (
        "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' }}{% if m.role == 'assistant' %}{{ 'so: ' }}"
        "{% generation %}{{ m.content ~ '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content ~ '<|im_end|>' }}"
        "{% endif %}{% endfor %}" + PROMPTED, "the text before its answer continues with 'so:'",
    ),
    "no end token after an earlier answer": (
        HEADS.replace("<|im_end|>", "") + PROMPTED, "the trained text with .*endoftext",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_rows_whose_prompts_differ_from_the_trained_text_are_found(case, tokenizer):
    template, message = OTHERS[case]
    tokenizer.chat_template = template
    row = {"messages": CHAT["messages"] * 2}
    *_, example = LANGUAGE.encode([row], Encoding(tokenizer, 512))[0]

    assert re.search(message, _difference(row, example.columns, tokenizer, {}))


def test_refusal_names_the_row(tmp_path):
    from eyas.errors import DataError
    from eyas.recipe import Recipe
    from eyas.tasks.rows import check_prompts, load_rows

    base, file = stand_ins.llama(tmp_path / "base"), tmp_path / "rows.jsonl"
    made = AutoTokenizer.from_pretrained(base)
    made.chat_template = OTHERS["a generation prompt with more than is trained"][0]
    made.save_pretrained(base)
    file.write_text((json.dumps(CHAT) + "\n") * 40)
    recipe = Recipe.model_validate({
        "task": "sft", "model": {"name": str(base)}, "run_directory": str(tmp_path / "run"),
        "data": {
            "train": {"path": str(file)}, "evaluation": {"path": str(file)}, "limits": {"overlap": 1.0},
            "cache_directory": str(tmp_path / "prepared"),
        },
    })  # fmt: skip

    with pytest.raises(DataError, match=r"rows.jsonl:\d+: its prompt continues with .*model.chat_template"):
        check_prompts(recipe, load_rows(recipe))


def test_saved_tokenizer_says_whether_it_puts_a_space_before_a_text(models, tmp_path):
    """transformers 4.57 takes that from the settings alone, and else changes the tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(models["minilm"])

    save_tokenizer(tokenizer, tmp_path)

    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["add_prefix_space"] is True
    assert AutoTokenizer.from_pretrained(tmp_path)("the hill")["input_ids"] == tokenizer("the hill")["input_ids"]


@pytest.mark.parametrize(
    "settings", [{"num_return_sequences": 2}, {"max_new_tokens": 0}, {"cache_implementation": "nope"}], ids=str
)
def test_generation_config_that_the_library_refuses_is_a_refusal_in_words(settings, models, tmp_path):
    from eyas.errors import PreflightError
    from eyas.model.load import load_config, load_model
    from eyas.recipe.model import Model

    shutil.copytree(models["smollm2"], tmp_path / "base")
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(settings))
    model = Model(name=str(tmp_path / "base"), dtype="float32")

    with pytest.raises(PreflightError, match=rf"its settings cannot be loaded: .*{next(iter(settings))}"):
        load_model(model, None, load_config(model), "AutoModelForCausalLM")


@pytest.mark.parametrize("count", ["0", "-3"])
def test_generate_refuses_an_answer_without_tokens_before_it_opens_the_run(count, tmp_path):
    from typer.testing import CliRunner

    from eyas.cli.main import app

    shown = CliRunner().invoke(app, ["generate", str(tmp_path), "--prompt", "a", f"--max-new-tokens={count}"])

    assert shown.exit_code == 2 and "'--max-new-tokens': Input should be greater than" in shown.output
