"""Trainable parameters without a gradient are named after the first step."""

import logging

import pytest
import torch
import transformers
from trl import SFTTrainer

import stand_ins
from eyas.errors import TrainingError
from eyas.training.guards.nonfinite import NonfiniteStop

SMALL = {"vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 0,
         "eos_token_id": 0, "initializer_range": 0.02}  # fmt: skip
GROUPED = {**SMALL, "intermediate_size": 128, "num_key_value_heads": 2}
EXPERTS = {**GROUPED, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES = {
    "Falcon": ("FalconForCausalLM", SMALL),
    "Llama": ("LlamaForCausalLM", {**GROUPED, "tie_word_embeddings": True}),
    "GPT2": ("GPT2LMHeadModel", SMALL),
    "OPT": ("OPTForCausalLM", {**SMALL, "ffn_dim": 128, "word_embed_proj_dim": 64, "pad_token_id": 0}),
    "Qwen3": ("Qwen3ForCausalLM", {**GROUPED, "head_dim": 16}),
    "Gemma2": ("Gemma2ForCausalLM", {**GROUPED, "head_dim": 16, "pad_token_id": 0}),
    "Qwen3Moe": ("Qwen3MoeForCausalLM", {**EXPERTS, "head_dim": 16}),
}
TARGETS = {"GPT2": "[c_attn, c_proj, c_fc]"}
SHIPPED = ("distilbert_lora_sst2", "minilm_lora_sentiment", "distilbert_full_yelp", "smollm2_qlora_quickstart",
           "falcon7b_qlora")  # fmt: skip
ONE_STEP = ("training.max_steps=1", "training.global_batch_size=4", "training.per_device_train_batch_size=2")


# peft's notices: of fused experts, and of GPT-2's own kind of linear layer.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The following .* keys did not match"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),
]


@pytest.fixture(autouse=True)
def nothing_saved(monkeypatch):
    monkeypatch.setattr("eyas.training.loop.save_and_reopen", lambda *_: None)


@pytest.fixture
def family(tmp_path):
    """Return overrides that train a small model of a family."""

    def made(name, *how):
        model_class, settings = FAMILIES[name]
        config = getattr(transformers, f"{name}Config")(**settings)
        folder = stand_ins._write(tmp_path / "model", getattr(transformers, model_class), config)
        return (
            "falcon7b_lora",
            f"model.name={folder}",
            "model.dtype=float32",
            "training.packing=false",
            *how,
            *ONE_STEP,
        )

    return made


def without_gradient(run):
    return run.read_manifest().get("without_gradient")


def each_with_and_without_checkpointing(names, quick=()):
    return [
        pytest.param(name, checkpointing, id=f"{name}, checkpointing {checkpointing}",
                     marks=[] if (name, checkpointing) in quick else pytest.mark.slow)
        for name in names for checkpointing in ("false", "true")
    ]  # fmt: skip


QUICK = [("Falcon", "false"), ("Llama", "true"), ("Qwen3Moe", "true")]


@pytest.mark.parametrize(("name", "checkpointing"), each_with_and_without_checkpointing(FAMILIES, QUICK))
def test_adapters_of_each_family_give_no_false_alarm(name, checkpointing, family, trained, caplog):
    words = family(name, f"training.activation_checkpointing={checkpointing}")

    run, _ = trained(*words, f"adapter.target_modules={TARGETS.get(name, 'all-linear')}")

    assert without_gradient(run) is None and "no gradient" not in caplog.text


@pytest.mark.parametrize(("name", "checkpointing"), each_with_and_without_checkpointing(FAMILIES))
def test_full_training_gives_no_false_alarm(name, checkpointing, family, trained):
    run, _ = trained(*family(name, f"training.activation_checkpointing={checkpointing}"), "adapter=null")

    assert without_gradient(run) is None


@pytest.mark.parametrize(("recipe", "checkpointing"), each_with_and_without_checkpointing(SHIPPED))
def test_shipped_recipes_give_no_false_alarm(recipe, checkpointing, trained):
    run, _ = trained(recipe, f"training.activation_checkpointing={checkpointing}", "training.max_steps=1")

    assert without_gradient(run) is None


def without_history(_module, _inputs, output):
    if hasattr(output, "last_hidden_state"):
        output.last_hidden_state = output.last_hidden_state.detach()
        return output
    if isinstance(output, tuple):
        return tuple(part.detach() if torch.is_tensor(part) else part for part in output)
    return output.detach()


@pytest.fixture
def detached(monkeypatch):
    """Cut the gradient at the output of a module of the trained model."""

    def cut(name, trainer_class=SFTTrainer):
        plain = trainer_class.create_optimizer

        def create_optimizer(self, *more):
            self.model.get_submodule(name).register_forward_hook(without_history)
            return plain(self, *more)

        monkeypatch.setattr(trainer_class, "create_optimizer", create_optimizer)

    return cut


LAYER = "base_model.model.transformer.h.1.self_attention.query_key_value"


@pytest.mark.parametrize("checkpointing", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_a_detached_module_is_named_and_recorded(checkpointing, trained, detached, caplog):
    detached(LAYER)

    run, _ = trained("falcon7b_lora", *ONE_STEP, f"training.activation_checkpointing={checkpointing}")

    names = [f"{LAYER}.{half}.default.weight" for half in ("lora_A", "lora_B")]
    assert without_gradient(run) == names
    warning = next(record for record in caplog.records if "no gradient" in record.message)
    assert warning.levelno == logging.WARNING
    assert warning.message.startswith("2 of 16 trainable parameters got no gradient in the first step")
    assert all(name in warning.message for name in names) and "expert" not in warning.message


def test_an_unused_head_is_named(trained, monkeypatch):
    plain = transformers.Trainer.create_optimizer

    def create_optimizer(self, *more):
        self.model.spare_head = torch.nn.Linear(4, 4)
        return plain(self, *more)

    monkeypatch.setattr(transformers.Trainer, "create_optimizer", create_optimizer)

    run, _ = trained("minilm_lora_sentiment", "training.max_steps=1")

    assert without_gradient(run) == ["spare_head.weight", "spare_head.bias"]


def test_the_first_ten_of_many_parameters_are_named(trained, detached, caplog):
    detached("base_model.model.transformer.h.0")
    detached("base_model.model.transformer.h.1.self_attention")
    # What the second layer's attention gives is cut, and what goes around it comes from the first, which is cut too.
    run, _ = trained("falcon7b_lora", *ONE_STEP, "training.packing=false")

    names = without_gradient(run)
    assert len(names) == 12
    assert all(name in caplog.text for name in names[:10]) and names[10] not in caplog.text
    assert "  and 2 more" in caplog.text


def test_a_parameter_that_another_rank_reached_is_not_reported(trained, detached, monkeypatch):
    detached(LAYER)
    other = {f"{LAYER}.{half}.default.weight" for half in ("lora_A", "lora_B")}
    monkeypatch.setattr("eyas.training.guards.missing_gradients.gather_objects", lambda reached: [reached, other])

    run, _ = trained("falcon7b_lora", *ONE_STEP)

    assert without_gradient(run) is None


def test_a_loss_that_depends_on_no_parameter_ends_the_run(trained, detached):
    detached("base_model.model.transformer")

    with pytest.raises(TrainingError, match="none of 16 trainable parameters got a gradient") as stopped:
        trained("falcon7b_lora", *ONE_STEP)
    assert "  and 6 more" in str(stopped.value)


def test_gradients_that_reach_no_trainable_parameter_end_the_run(trained, monkeypatch):
    """The wrong part of the model is frozen: no trainable parameter has a gradient."""
    plain = transformers.Trainer.create_optimizer

    def create_optimizer(self, *more):
        self.model.spare_head = torch.nn.Linear(4, 4)
        self.alone = torch.nn.Parameter(torch.ones(()))
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("spare_head"))
        self.model.get_submodule("classifier").register_forward_hook(
            lambda _module, _inputs, output: output * self.alone
        )
        return plain(self, *more)

    monkeypatch.setattr(transformers.Trainer, "create_optimizer", create_optimizer)

    with pytest.raises(TrainingError, match="none of 2 trainable parameters got a gradient"):
        trained("distilbert_full_yelp", "training.max_steps=1")


def test_an_expert_without_tokens_is_explained(family, trained, detached, caplog):
    detached("base_model.model.model.layers.1.mlp.experts")

    trained(*family("Qwen3Moe"), "adapter.target_modules=[q_proj]", "adapter.target_parameters=[mlp.experts.down_proj]")

    assert "MoE experts that received no token in this step have no gradient either; that is normal" in caplog.text


def test_the_hooks_are_gone_after_the_first_step(trained, monkeypatch):
    hooked = []

    def check(self, trainer):
        hooked.append(sum(bool(p._backward_hooks) for p in trainer.model.parameters()))
        return 0

    monkeypatch.setattr(NonfiniteStop, "check", check)
    trained("minilm_lora_sentiment", "training.max_steps=3")

    assert hooked[0] > 0 and hooked[1:] == [0, 0]
