import json

import pytest

from eyas.errors import PreflightError
from eyas.extras import require


def test_an_installed_package_is_handed_over():
    assert require("json", "export") is json


def test_a_missing_package_is_named_with_the_extra_that_brings_it():
    with pytest.raises(PreflightError) as refused:
        require("no_such_package", "export")

    assert str(refused.value) == "no_such_package is not installed. Install it with: pip install 'eyas[export]'"


def test_a_package_that_is_installed_but_broken_keeps_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('its own')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(RuntimeError, match="its own"):
        require("broken_package", "export")


def test_a_package_whose_own_dependency_is_missing_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_a_package.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises((PreflightError, ModuleNotFoundError)) as refused:
        require("half_a_package", "export")

    assert "half_a_package is not installed" not in str(refused.value)
    assert "no_such_package" in str(refused.value)
