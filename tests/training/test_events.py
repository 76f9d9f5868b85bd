"""Guards get the trainer's events in order; checks act on any rank's finding."""

from types import SimpleNamespace

import pytest
from transformers import TrainerCallback

from eyas.training import events as module
from eyas.training.events import EVENTS, AfterEachStep, events


class Guard:
    """A guard with two methods."""

    def __init__(self, name, calls):
        self._name, self._calls = name, calls

    def on_step_end(self, trainer):
        self._calls.append((self._name, "step", trainer))

    def on_log(self, trainer, logs):
        self._calls.append((self._name, "log", logs))


@pytest.fixture
def trainer():
    return SimpleNamespace()


def test_guards_are_called_in_their_order_with_the_trainer_and_the_logs(trainer):
    calls = []
    callback = events(trainer, [Guard("first", calls), object(), Guard("second", calls)])

    callback.on_step_end(None, None, None, model=1, optimizer=2)
    callback.on_log(None, None, None, logs={"loss": 1.0})
    callback.on_save(None, None, None)

    assert calls == [
        ("first", "step", trainer), ("second", "step", trainer), ("first", "log", {"loss": 1.0}),
        ("second", "log", {"loss": 1.0}),
    ]  # fmt: skip


def test_each_event_is_one_of_the_library_s():
    library = {name for name in dir(TrainerCallback) if name.startswith("on_")}

    assert set(EVENTS) == library - {"on_init_end", "on_predict", "on_push_begin"}


class Check:
    """A check with a fixed finding, which records its actions."""

    def __init__(self, finding):
        self.finding, self.acted = finding, []

    def check(self, _trainer):
        return self.finding

    def act(self, _trainer, finding):
        self.acted.append(finding)


def test_a_check_acts_on_the_gravest_finding_of_any_rank(trainer, monkeypatch):
    other_rank = [2, 0, 0]
    monkeypatch.setattr(
        module.Agreement, "highest", lambda _self, mine: [max(both) for both in zip(mine, other_rank, strict=True)]
    )
    checks = [Check(1), Check(3), Check(0)]

    AfterEachStep(checks).on_step_end(trainer)

    assert [check.acted for check in checks] == [[2], [3], []]
