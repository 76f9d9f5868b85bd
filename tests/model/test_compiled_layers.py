"""What torch compiles computes what it replaces, wherever it replaces it."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import families
from eyas.errors import PreflightError
from eyas.launchers.bitwise import first_difference
from eyas.model.compiled_layers import compile_layers, probe_compiled, take_compiled_apart
from eyas.model.lora_linear import fuse_lora
from eyas.run_directory import RunDirectory

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own
needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()


def model_of(family, targets=LINEAR, **more):
    torch.manual_seed(0)
    adapter = LoraConfig(target_modules=targets, task_type="CAUSAL_LM", r=4, init_lora_weights=False, **more)
    model = get_peft_model(families.make(family, "sdpa"), adapter).train()
    fuse_lora(model)
    return model


def loss_and_gradients(model, tokens):
    loss = model(input_ids=tokens, labels=tokens).loss
    trained = [each for each in model.parameters() if each.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, trained)]


@needs_a_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "targets"),
    [("llama", LINEAR), ("llama", ["q_proj", "v_proj"]), ("qwen3", LINEAR), ("mistral", ["o_proj", "up_proj"])],
)
def test_losses_and_gradients_are_those_of_the_library(family, targets, tmp_path):
    model = model_of(family, targets)
    batches = [torch.randint(families.VOCABULARY, shape) for shape in ((1, 12), (3, 7), (2, 32), (1, 1 + 3))]
    wanted = [loss_and_gradients(model, batch) for batch in batches]

    layers = compile_layers(model, tmp_path)
    difference, tolerance = probe_compiled(layers)

    assert len(layers) == 2 and difference < tolerance == 1e-5
    for batch, expected in zip(batches, wanted, strict=True):
        for found, one in zip(loss_and_gradients(model, batch), expected, strict=True):
            torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-5)
    model.base_model.model.model.activation_checkpointing_enable()
    for found, one in zip(loss_and_gradients(model, batches[0]), wanted[0], strict=True):
        torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-5)
    take_compiled_apart(layers)
    for found, one in zip(loss_and_gradients(model, batches[0]), wanted[0], strict=True):
        assert torch.equal(found, one)


def test_a_wrong_piece_is_seen(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "compile", lambda piece, **_: lambda *given: 1.001 * piece(*given))
    layers = compile_layers(model_of("llama"), tmp_path)

    difference, tolerance = probe_compiled(layers)

    assert difference > tolerance


@pytest.mark.parametrize("family", ["gemma", "gemma3", "phi3", "gpt-neox"])
def test_layers_of_another_kind_are_left(family, tmp_path):
    assert compile_layers(model_of(family, "all-linear"), tmp_path) == []


@pytest.mark.parametrize(
    "apart", [{"layers_to_transform": [0]}, {"rank_pattern": {"layers.0.mlp.up_proj": 2}, "alpha_pattern": {
        "layers.0.mlp.up_proj": 4}}], ids=["some adapted", "ranks"]
)  # fmt: skip
def test_layers_that_are_not_alike_are_left(apart, tmp_path):
    assert compile_layers(model_of("llama", **apart), tmp_path) == []


def test_dropout_and_evaluation_go_the_way_of_the_library(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "compile", lambda piece, **_: pytest.fail)
    model = model_of("llama")
    layers = compile_layers(model, tmp_path)
    tokens = torch.arange(8)[None]

    assert len(layers) == 2 and compile_layers(model_of("llama", lora_dropout=0.1), tmp_path) == []
    model.eval()(input_ids=tokens)
    with torch.no_grad():
        model.train()(input_ids=tokens)
    with model.disable_adapter():
        model(input_ids=tokens)


@needs_a_compiler
@pytest.mark.slow
def test_a_resumed_run_ends_as_one_never_stopped(trained, tmp_path, capsys):
    words = [
        "training.max_steps=4", "training.save_steps=2", "speed.compiled_layers=true", "quantization=null",
        "model.dtype=bfloat16", "adapter.lora_dropout=0",
    ]  # fmt: skip
    run, _ = trained("smollm2_qlora_quickstart", *words)
    whole = RunDirectory(Path(shutil.copytree(run.path, tmp_path / "whole")))
    shutil.rmtree(run.adapter)
    shutil.rmtree(run.checkpoint(4))

    again, _ = trained("smollm2_qlora_quickstart", *words, resume=True)

    assert capsys.readouterr().out.count("2 layers, compiled in") == 2
    assert whole.read_manifest()["speed"]["compiled_layers"]
    assert first_difference(again, whole) is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model.dtype=float32"], "pays in bfloat16 alone"),
        (["model.dtype=bfloat16"], "2 steps would not repay the compiler"),
        (["model.dtype=bfloat16", "training.max_steps=-1", "training.num_train_epochs=1"], "off  3 steps would not"),
        (["speed.compiled_layers=false"], "the recipe says so"),
    ],
)
def test_it_is_said_why_it_is_not_done(words, told, trained, capsys):
    trained("smollm2_qlora_quickstart", *words)

    assert any("compiled_layers" in line and told in line for line in capsys.readouterr().out.splitlines())


@pytest.mark.slow
def test_without_a_compiler_a_long_run_goes_on_and_one_that_insists_is_refused(trained, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("eyas.tasks.speed.REPAID_AFTER", 2)
    dense = ["quantization=null", "model.dtype=bfloat16"]

    with torch._inductor.config.patch({"cpp.cxx": (None, "/nowhere/g++")}):
        trained("smollm2_qlora_quickstart", *dense)

        assert any(
            "compiled_layers" in line and "off  torch.compile: " in line for line in capsys.readouterr().out.split("\n")
        )
        with pytest.raises(PreflightError, match=r"compiled_layers: asked for, and cannot be: torch\.compile: "):
            trained(
                "smollm2_qlora_quickstart", *dense, "speed.compiled_layers=true", f"run_directory={tmp_path / 'other'}"
            )
