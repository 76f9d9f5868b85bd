"""Conclusion of a comparison, in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eyas.evaluation.classes import never_predicted, scores_of_classes
from eyas.evaluation.compare import Comparison, Score
from eyas.evaluation.records import Record
from eyas.files import counted
from eyas.model.released_step import ReleasedStep, warning_of_chosen_rows

BETTER, WORSE, UNCLEAR = "better", "worse", "no clear difference"


def conclusion(comparison: Comparison, records: Mapping[str, Sequence[Record]]) -> str:
    """Return what the models' scores show, from the intervals of their differences."""
    return " ".join([*_against_the_base(comparison), *_against_the_majority(comparison), *_after_the_merge(comparison),
                     *filter(None, [never_predicted(scores_of_classes(list(records.values())[-1]))])])  # fmt: skip


def remarks(manifest: Mapping[str, Any], kind: str) -> list[str]:
    """Return what a reader of scores must know: the released step, and what else used these rows."""
    released = ReleasedStep.of_manifest(manifest)
    lines = [] if released is None else [f"Released: {released}."]
    if kind == "training":
        lines.append("The model was trained on these rows, as none are held out. Set data.holdout or data.evaluation.")
    warning = warning_of_chosen_rows(released, untouched=kind == "test")
    return [*lines, *([warning] if warning else [])]


def _against_the_base(comparison: Comparison) -> Iterator[str]:
    changes = _changes(comparison, "tuned - base")
    if not any(changes.values()):
        return
    parts = [f"{word} in {', '.join(names)}" for word, names in changes.items() if names and word != UNCLEAR]
    if changes[UNCLEAR]:
        parts.append(f"not clearly different in {', '.join(changes[UNCLEAR])}")
    rows = counted(comparison.rows, f"{comparison.kind} row")
    yield f"On {rows}, the tuned model against the base is {'; '.join(parts)}."


def _against_the_majority(comparison: Comparison) -> Iterator[str]:
    for measure, constant in comparison.majority.items():
        score = comparison.scores[measure].get("tuned")
        if score is not None and score.interval is not None and score.interval[0] <= constant["score"]:
            yield (
                f"Its {measure} of {score.value:.1%} is not clearly above the {constant['score']:.1%} of always "
                f"answering {constant['answer']}."
            )


def _after_the_merge(comparison: Comparison) -> Iterator[str]:
    changes = _changes(comparison, "merged - tuned")
    differing = [*changes[BETTER], *changes[WORSE]]
    if differing:
        yield f"The merged model differs from the tuned one in {', '.join(differing)}."
    elif changes[UNCLEAR]:
        yield "The merged model shows no clear difference from the tuned one."


def _changes(comparison: Comparison, pair: str) -> dict[str, list[str]]:
    """Return the measures by whether they got better, with the change of those that differ clearly."""
    changes: dict[str, list[str]] = {BETTER: [], WORSE: [], UNCLEAR: []}
    for measure, by_pair in comparison.differences.items():
        if pair in by_pair:
            name, change = measure.partition(" (nats")[0], by_pair[pair]
            word = _change(change)
            changes[word].append(name if word == UNCLEAR else f"{name} ({change.text('+').partition(' ')[0]})")
    return changes


def _change(difference: Score) -> str:
    """Return whether a measure got better: a share by growing, a loss by falling."""
    if difference.interval is None or difference.interval[0] <= 0 <= difference.interval[1]:
        return UNCLEAR
    return BETTER if (difference.value > 0) == difference.is_share else WORSE
