"""Answers of a trained model equal those that plain transformers gives for the same rows, by hand.

A few rows are learned by heart, so a model that is prompted as it was trained answers all of them.
"""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import stand_ins
from eyas.evaluation.evaluate import evaluate
from eyas.inference.load import load
from eyas.recipe import Recipe
from eyas.run_directory import RunDirectory
from eyas.tasks.rows import load_rows
from eyas.training.run import train

pytestmark = pytest.mark.slow

CHATML = (
    "{% for tool in tools or [] %}{{ '<|im_start|>tools\n' ~ tool.function.name ~ '<|im_end|>\n' }}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ (m.content or '') }}"
    "{% for call in m.tool_calls or [] %}{{ '[call]' ~ (call.function | tojson) }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QUESTIONS = [stand_ins.sentence(seed) for seed in range(4)]
ANSWERS = ["a green hill", "it fear", "run", "small mice saw"]


def message(role, content, **more):
    return {"role": role, "content": content, **more}


def tool(name):
    return {"type": "function", "function": {"name": name, "description": name, "parameters": {}}}


def call(name):
    return {"type": "function", "function": {"name": name, "arguments": {"a": 1}}}


def chat(question, *turns):
    return {"messages": [message("user", question), *turns]}


def plain_chats():
    return [chat(q, message("assistant", a)) for q, a in zip(QUESTIONS, ANSWERS, strict=True)]


def chats_with_tools():
    """The same question each time; only the tools tell which answer is right."""
    return [chat(QUESTIONS[0], message("assistant", a)) | {"tools": [tool(a.split()[0])]} for a in ANSWERS]


def answers_that_call_tools():
    return [
        chat(q, message("assistant", None, tool_calls=[call(a.split()[0])])) | {"tools": [tool("it")]}
        for q, a in zip(QUESTIONS, ANSWERS, strict=True)
    ]


def completions_of_several_turns():
    return [
        {
            "prompt": [message("user", q)],
            "completion": [message("assistant", "it"), message("user", "and"), message("assistant", a)],
        }
        for q, a in zip(QUESTIONS, ANSWERS, strict=True)
    ]


def chats_that_start_with_the_answer():
    return [{"messages": [message("assistant", a)]} for a in ANSWERS[:1] * 4]


def prompts_and_completions():
    return [{"prompt": f"{q} =>", "completion": f" {a}"} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]


def byte_level(folder, template=None, closing=None, eos="<|endoftext|>"):
    """Write a tokenizer; `closing` is a token that it puts after each text."""
    stand_ins.tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.eos_token = eos
    if closing is not None:
        from tokenizers.processors import TemplateProcessing

        pair = (closing, tokenizer.convert_tokens_to_ids(closing))
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {closing}", special_tokens=[pair])
    tokenizer.save_pretrained(folder)


CASES = {
    "ChatML whose end token is not the base's": (plain_chats, {"template": CHATML}),
    "rows with tools": (chats_with_tools, {"template": CHATML}),
    "a tokenizer that ends every text with its end token": (prompts_and_completions, {"closing": "<|endoftext|>"}),
    "a tokenizer that ends every text with another token": (prompts_and_completions, {"closing": "<|im_end|>"}),
    "answers that call tools": (answers_that_call_tools, {"template": CHATML}),
    "completions of several turns": (completions_of_several_turns, {"template": CHATML}),
    "chats that start with the answer": (chats_that_start_with_the_answer, {"template": CHATML}),
    "plain prompts under a chat template": (prompts_and_completions, {"template": CHATML}),
}


def base(folder, **tokens):
    """Write a tiny Llama that ends with <|endoftext|>, and whose generation_config is not greedy."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.update(repetition_penalty=1.5, no_repeat_ngram_size=2, eos_token_id=0)
    model.save_pretrained(folder)
    byte_level(folder, **tokens)
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Train each case once, on demand."""
    runs = {}

    def run(case):
        if case not in runs:
            rows, tokens = CASES[case]
            folder = tmp_path_factory.mktemp("run")
            file = folder / "rows.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows()))
            recipe = Recipe.model_validate({
                "task": "sft", "model": {"name": str(base(folder / "base", **tokens)), "dtype": "float32"},
                "data": {
                    "train": {"path": str(file)}, "evaluation": {"path": str(file)}, "limits": {"overlap": 1.0},
                    "cache_directory": str(folder / "prepared"),
                },
                "training": {
                    "learning_rate": 5e-3, "max_steps": 80, "global_batch_size": 4, "max_length": 256,
                    "per_device_train_batch_size": 4, "warmup_steps": 0, "logging_steps": 20, "save_steps": 1000,
                },
                "evaluation": {"max_new_tokens": 48}, "run_directory": str(folder / "run"),
            })  # fmt: skip
            directory = RunDirectory(folder / "run")
            train(recipe, directory)
            runs[case] = directory, recipe, rows()
        return runs[case]

    return run


def by_hand(folder, rows, closing):
    """Return the answers of plain transformers to each row, prompted as its documentation tells."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.update(repetition_penalty=1.0, no_repeat_ngram_size=0)
    answers = []
    for row in rows:
        if isinstance(row.get("prompt"), str):
            ids = tokenizer(row["prompt"], return_tensors="pt")["input_ids"][:, : -1 if closing else None]
        else:
            messages = row["messages"] if "messages" in row else row["prompt"] + row["completion"]
            ids = tokenizer.apply_chat_template(
                messages[:-1] or [message("assistant", "")], tools=row.get("tools"), add_generation_prompt=True,
                return_tensors="pt", return_dict=True,
            )["input_ids"]  # fmt: skip
            if not messages[:-1]:  # no template renders an empty chat: its generation prompt alone
                ids = tokenizer("<|im_start|>assistant\n", return_tensors="pt")["input_ids"]
        written = model.generate(ids, max_new_tokens=48, do_sample=False)
        answers.append(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))
    return answers


@pytest.mark.parametrize("case", CASES)
def test_scored_answers_are_those_of_plain_transformers_and_right(case, learned):
    run, recipe, rows = learned(case)
    loaded = load_rows(recipe)

    records = evaluate(
        load(run, recipe, "AutoModelForCausalLM", None, "tuned"), loaded.tokenizer, recipe, loaded.splits
    )

    answers = [record["answer"] for record in records]
    assert answers == by_hand(run.model, rows, CASES[case][1].get("closing"))
    assert [record["right"]["exact match"] for record in records] == [True] * 4, answers
