import importlib
import json
import sys

import pytest

from eyas.errors import PreflightError
from eyas.extras import hidden, require


def test_an_installed_package_is_returned():
    assert require("json", "export") is json


def test_a_missing_package_is_reported_with_its_extra():
    with pytest.raises(PreflightError) as refused:
        require("no_such_package", "export")

    assert str(refused.value) == "no_such_package is not installed. Install it with: pip install 'eyas[export]'"


def test_a_package_that_is_installed_but_broken_keeps_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('its own')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(RuntimeError, match="its own"):
        require("broken_package", "export")


def test_a_missing_dependency_of_a_package_is_not_reported_as_the_package(tmp_path, monkeypatch):
    (tmp_path / "half_a_package.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises((PreflightError, ModuleNotFoundError)) as refused:
        require("half_a_package", "export")

    assert "half_a_package is not installed" not in str(refused.value)
    assert "no_such_package" in str(refused.value)


def test_a_hidden_package_is_absent_within_the_block_and_present_after_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    import wave

    with hidden("this", "wave"):
        assert importlib.util.find_spec("this") is None
        assert sys.modules["wave"] is wave  # it is imported already, so hiding it would save nothing
        with pytest.raises(ImportError):
            importlib.import_module("this")

    assert importlib.util.find_spec("this") is not None and "this" not in sys.modules
