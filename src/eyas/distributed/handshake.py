"""Handshake of the ranks: none works before all agree on what to do."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from eyas.distributed.store import gather_in_store, wait_for_all_ranks
from eyas.distributed.topology import world_size
from eyas.errors import EyasError, PreflightError

T = TypeVar("T")
Facts = Mapping[str, str]
"""Everything that must be the same on all ranks, by its name."""

SHOWN = 12
"""Differences that a refusal lists."""
FAREWELL_SECONDS = 4.0
"""Time for which rank 0 waits until the others have read a refusal."""


def start_together(name: str, prepare: Callable[[], tuple[T, Facts]], seconds: float | None = None) -> T:
    """Return this rank's result of `prepare` once every rank has one and the facts of all are the same.

    Each rank raises if one of them refuses: its own error if all refuse for the same reason, else PreflightError, which
    names the rank. Each raises PreflightError where facts differ, which names them.
    """
    if world_size() == 1:
        return prepare()[0]
    own: Exception | None = None
    try:
        result, facts = prepare()
        mine: dict[str, Any] = {"facts": dict(facts)}
    except Exception as error:
        own, mine = error, {"refused": _reason(error)}
    reason = refusal(gather_in_store(name, mine, seconds))
    if reason is None:
        return result
    with suppress(RuntimeError):  # rank 0 has waited long enough, and its store is gone
        wait_for_all_ranks(f"{name}: refused", FAREWELL_SECONDS)
    if own is not None and (reason == str(own) or not isinstance(own, EyasError)):
        raise own
    raise PreflightError(reason) from None


def refuse_together(name: str, act: Callable[[], T]) -> T:
    """Return the result of `act`; where it fails on this rank, let the others refuse the `name` that they wait for."""
    try:
        return act()
    except EyasError as error:
        if world_size() == 1:
            raise
        refused = error
    result: T = start_together(name, lambda: _raise(refused))
    return result


def refusal(ranks: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why these ranks do not start, or None. Each has `facts`, or why it `refused`."""
    refused = {index: each["refused"] for index, each in enumerate(ranks) if "refused" in each}
    if len(refused) == len(ranks) and len(set(refused.values())) == 1:
        return str(refused[0])
    if refused:
        return "\n".join(f"rank {index}: {reason}" for index, reason in refused.items())
    lines = _differences([each["facts"] for each in ranks])
    if not lines:
        return None
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return (
        "the ranks differ, so none of them starts. Give each the same recipe, files, packages and environment:\n  "
        + "\n  ".join([*lines[:SHOWN], *more])
    )


def _differences(facts: Sequence[Facts]) -> list[str]:
    """Return one line for each fact that is not the same everywhere: rank 0's value, and the first other one."""
    lines = []
    for key in dict.fromkeys(key for each in facts for key in each):
        values = [each.get(key, "not set") for each in facts]
        other = next((index for index, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            lines.append(f"{key}: {values[0]} on rank 0, {values[other]} on rank {other}")
    return lines


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, EyasError) else f"{type(error).__name__}: {error}"


def _raise(error: EyasError) -> tuple[Any, Facts]:
    raise error
