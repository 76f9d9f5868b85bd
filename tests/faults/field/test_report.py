"""Report and model card can be forwarded: a conclusion, what was trained, each class, and no word of another method."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from conftest import ROOT
from eyas.cli.main import app
from eyas.data.report import DataReport, Defect, Lengths, SplitReport
from eyas.evaluation import plots
from eyas.evaluation.classes import class_table, confusion_table, never_predicted, scores_of_classes
from eyas.evaluation.compare import compare
from eyas.evaluation.conclusion import conclusion
from eyas.evaluation.report import write_report
from eyas.export.model_card import license_of, model_card
from eyas.export.parity import Parity
from eyas.export.proof import Proof
from eyas.files import write_json
from eyas.recipe import load_recipe
from eyas.run_directory import RunDirectory
from eyas.training.save import next_command

RECIPES = {
    "classifier": (ROOT / "recipes" / "minilm_lora_sentiment.yaml", []),
    "chat": (ROOT / "recipes" / "smollm2_qlora_quickstart.yaml", []),
    "tags": (ROOT / "recipes" / "minilm_lora_names.yaml", []),
    "whole model": (ROOT / "recipes" / "smollm2_qlora_quickstart.yaml", ["quantization=null", "adapter=null"]),
    "whole classifier": (ROOT / "recipes" / "minilm_lora_sentiment.yaml", ["adapter=null"]),
}


def classified(*pairs):
    return [{"loss": 1.0 + i, "text": f"row {i}", "expected": e, "answer": a} for i, (e, a) in enumerate(pairs)]


MISSED = classified(*[("bad", "good")] * 15, *[("good", "good")] * 190)


def test_a_class_that_is_never_predicted_is_named():
    scores = scores_of_classes(MISSED)

    assert never_predicted(scores) == "Never predicted: bad (0 of 15 found)."
    assert class_table(scores)[1:] == [
        ["bad", "15", "0", "0", "–", "0.0%", "0.0%"], ["good", "190", "205", "190", "92.7%", "100.0%", "96.2%"],
    ]  # fmt: skip
    assert confusion_table(MISSED) == [["true \\ predicted", "bad", "good"], ["bad", "0", "15"], ["good", "0", "190"]]
    comparison = compare({"tuned": MISSED}, {"accuracy": {"answer": "good", "score": 190 / 205}})
    assert "Never predicted: bad (0 of 15 found)." in conclusion(comparison, {"tuned": MISSED})
    assert "not clearly above the 92.7% of always answering good" in conclusion(comparison, {"tuned": MISSED})


TAGGED = [{"loss": 1.0, "words": 3, "expected": ["O", "B-X", "B-Y"], "answer": ["O", "B-X", "B-X"]}]
OTHERS = {
    "tags": (TAGGED, "Never predicted: B-Y (0 of 1 found)."),
    "two missed": (
        classified(("a", "c"), ("b", "c"), ("c", "c")),
        "Never predicted: a (0 of 1 found), b (0 of 1 found).",
    ),
    "all found": (classified(("a", "a"), ("b", "b")), None),
    "predicted, though wrong": (classified(("a", "b"), ("b", "a")), None),
    "predicted, though absent": (classified(("a", "a"), ("a", "b")), None),
    "answers": ([{"loss": 1.0, "tokens": 2, "answer": "x", "expected": "y", "right": {"exact match": False}}], None),
}


@pytest.mark.parametrize("case", OTHERS)
def test_classes_are_missed_by_what_is_predicted(case):
    records, remark = OTHERS[case]

    assert never_predicted(scores_of_classes(records)) == remark


def right(*flags, loss=1.0):
    return [
        {"loss": loss + i / 100, "tokens": 2, "answer": "x", "right": {"exact match": f}} for i, f in enumerate(flags)
    ]


CONCLUSIONS = {
    "better": (
        (right(*[False] * 40, loss=2.0), right(*[True] * 40)), "is better in loss (-1.000), exact match (+100.0%).",
    ),
    "worse": (
        (right(*[True] * 40), right(*[False] * 40, loss=2.0)), "is worse in loss (+1.000), exact match (-100.0%).",
    ),
    "no difference": (
        (right(*[True, False] * 20), right(*[True, False] * 20)), "is not clearly different in loss, exact match.",
    ),
    "both": (
        (right(*[False] * 40), right(*[True] * 40, loss=2.0)),
        "is better in exact match (+100.0%); worse in loss (+1.000).",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONCLUSIONS)
def test_the_conclusion_follows_from_the_intervals(case):
    (base, tuned), expected = CONCLUSIONS[case]
    for row, record in enumerate(tuned):
        record["loss"] += (row % 2) / 1e6 - 5e-7 if case != "no difference" else 0  # no two rows change alike
    records = {"base": base, "tuned": tuned, "merged": tuned}

    text = conclusion(compare(records, {}), records)

    assert text.startswith(f"On 40 held-out rows, the tuned model against the base {expected}")
    assert text.endswith("The merged model shows no clear difference from the tuned one.")


def data_report():
    split = SplitReport(
        paths=["a/very/long/path" * 12], formats=["text (" + "why " * 30 + ")"], rows_read=10, bad_rows=1, rows=9,
        examples=9, tokens=100, supervised_tokens=40, lengths=Lengths(3, 9, 14, 20, 22, [9]), end_tokens=9,
        defects={"truncated": Defect(2, ["a:1"])}, classes={}, digest="0",
    )  # fmt: skip
    return DataReport(split, replace(split, defects={}), None)


@pytest.fixture
def run_of(tmp_path):
    """Return a function that writes what a finished run records, without a training."""

    def make(kind):
        file, words = RECIPES[kind]
        recipe = load_recipe(file, words)
        run = RunDirectory(tmp_path / "a run")
        run.path.mkdir()
        quantized = {"kind": "4-bit nf4" if recipe.quantization else "none", "layers": 14 * bool(recipe.quantization),
                     "weights": 0, "left": [], "left_weights": 0}  # fmt: skip
        topology = {"processes": 1, "strategy": "single"}
        run.record(
            status="finished", ended="2026-05-04T03:02:01+00:00", steps=60, train_seconds=12.0, peak_bytes=2**30,
            eyas="1", hardware={"device_count": 0, "device": "cpu", "cpu_cores": 2},
            released={"step": 40, "steps": 60, "metric": "eval_loss", "value": 1.25},
            runs={"topology": topology, "parameters": {"trainable": 10, "total": 100}, "quantized": quantized},
        )  # fmt: skip
        write_json(run.data_report, data_report().as_dict())
        lines = [{"step": 20, "loss": 2.0}, {"step": 40, "loss": 1.5}, {"step": 40, "eval_loss": 1.25, "eval_f1": 0.5}]
        run.metrics.write_text("".join(f"{line}\n".replace("'", '"') for line in lines))
        return run, recipe

    return make


@pytest.mark.parametrize("kind", RECIPES)
def test_a_report_has_what_a_reader_needs(kind, run_of):
    run, recipe = run_of(kind)
    base = MISSED if kind in ("classifier", "whole classifier") else TAGGED if kind == "tags" else right(False, True)
    for record in base:
        record.setdefault("text", "a row")
        record.setdefault("expected", "y")
    records = {"base": base, "tuned": base}

    write_report(run, recipe, compare(records, {}), records, {})

    page = (run.report / "report.md").read_text()
    first, bold, *_ = page.split("\n\n")
    assert first.startswith("# a run") and re.fullmatch(r"\*\*On \d+ held-out rows?, the tuned .*\*\*", bold)
    facts = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE))
    assert facts["finished"] == "2026-05-04" and facts["trainable"] == "10 of 100 parameters (10.00%)"
    assert facts["method"] == ("full fine-tuning" if "whole" in kind else recipe.adapter.label)
    assert facts["steps"].startswith("60 of ") and facts["seed"] == str(recipe.training.seed)
    assert facts["learning rate"].startswith(f"{recipe.training.learning_rate:g}")
    assert "Released: step 40 of 60, chosen by its eval_loss of 1.25." in page
    assert "These rows also chose the released step" in page
    assert "| train | 9 | 9 | 40 of 100 | 9 | 20 | 22 |" in page and "- train: 2 rows longer than" in page
    assert ("## Classes of the tuned model" in page) == (kind in ("classifier", "whole classifier", "tags"))
    assert "## Worst mistakes of the tuned model" in page
    assert "adapter" not in page and max(map(len, page.splitlines())) < 400


def test_the_loss_plot_has_whole_steps_and_the_evaluations(run_of, monkeypatch, tmp_path):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "close", lambda _: None)
    run, _ = run_of("chat")
    for lines in (run.metric_lines(), [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]):
        plots.plot_loss(lines, "a run", tmp_path / "loss.png")
        (axes,) = pyplot.gcf().axes
        pyplot.gcf().canvas.draw()
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == (["training", "held out"] if len(lines) == 3 else ["training"])
        assert all(tick == int(tick) for tick in axes.get_xticks())
    pyplot.close("all")


@pytest.mark.parametrize("kind", RECIPES)
def test_the_model_card_says_what_it_is_and_how_to_use_it(kind, run_of):
    run, recipe = run_of(kind)
    auto = {"classifier": "AutoModelForSequenceClassification", "tags": "AutoModelForTokenClassification"}
    auto_model = auto.get(kind.removeprefix("whole "), "AutoModelForCausalLM")
    labels = None if "CausalLM" in auto_model else ["bad", "good"]
    same = Parity(0.0, 0.0, 0.0, 1.0, 10, 0)
    proof = Proof("float32", same, same, same, same, same, same, [], None)
    finished = SimpleNamespace(
        directory=run, recipe=recipe, auto_model=auto_model, labels=labels, tokenizer=SimpleNamespace(chat_template="x")
    )

    card = model_card(finished, proof, forced=False)

    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["base_model"] == recipe.model.name and metadata["library_name"] == "transformers"
    task = {"AutoModelForCausalLM": "text-generation"}.get(
        auto_model, recipe.task.replace("sequence", "text").replace("_", "-")
    )
    assert metadata["pipeline_tag"] == task and recipe.task in metadata["tags"] and "eyas" in metadata["tags"]
    assert f'pipeline("{task}", model="THIS_FOLDER")' in card
    assert ("Labels: `bad`, `good`." in card) == (labels is not None)
    assert "- loss: 1.25\n- f1: 0.5" in card and "Weights: step 40 of 60, chosen by its eval_loss of 1.25." in card
    assert ("adapter" in card) == ("whole" not in kind)
    assert ("base in 4-bit nf4" in card) == (kind == "chat")


LICENSES = {
    "a name": ("---\nlicense: apache-2.0\n---\n# A base\n", "apache-2.0"),
    "none": ("# A base\n", None),
    "not YAML": ("---\nlicense: [\n---\n", None),
    "not a name": ("---\nlicense: [mit, gpl]\n---\n", None),
    "not UTF-8": (b"---\nlicense: mit\nby: \xff\n---\n", "mit"),
    "other keys": ("---\ntags: [x]\n---\nlicense: mit\n", None),
}


@pytest.mark.parametrize("case", LICENSES)
def test_the_license_of_the_base_is_taken_from_its_card(case, tmp_path):
    text, expected = LICENSES[case]
    (tmp_path / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())

    recipe = load_recipe(RECIPES["chat"][0], [f"model.name={tmp_path}"])

    assert license_of(recipe) == expected


@pytest.mark.parametrize("kind", RECIPES)
def test_the_next_command_merges_only_an_adapter(kind):
    file, words = RECIPES[kind]

    command = next_command(load_recipe(file, words), RunDirectory("runs/x"))

    assert command == f"eyas {'report' if 'whole' in kind else 'merge'} runs/x"


@pytest.mark.slow
def test_a_whole_model_is_trained_and_reported_without_a_second_copy(overrides_for, tmp_path, monkeypatch):
    file, words = RECIPES["whole classifier"]
    monkeypatch.chdir(ROOT)
    run = tmp_path / "run"

    found = CliRunner().invoke(
        app,
        ["train", str(file), *overrides_for(file), *words, f"run_directory={run}", "training.max_steps=1", "--report"],
    )

    assert found.exit_code == 0, found.output
    assert f"(next: eyas report {run})" in found.output and (run / "report" / "report.md").exists()
    assert not (run / "merged").exists() and "adapter" not in (run / "report" / "report.md").read_text()
