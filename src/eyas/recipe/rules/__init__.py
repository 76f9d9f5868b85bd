"""Rules across sections. Each is a function, named as the sentence it enforces."""

from collections.abc import Iterator

from eyas.recipe.recipe import Recipe
from eyas.recipe.rules import best_model, data, library, model, sources, training
from eyas.recipe.rules.rule import Rule, Violation

RULES: tuple[Rule, ...] = (
    *model.RULES,
    *training.RULES,
    *best_model.RULES,
    *library.RULES,
    *data.RULES,
    *sources.RULES,
)

__all__ = ["RULES", "Rule", "Violation", "violations"]


def violations(recipe: Recipe) -> Iterator[Violation]:
    """Yield each setting that conflicts with another."""
    for rule in RULES:
        violation = rule(recipe)
        if violation is not None:
            yield violation
