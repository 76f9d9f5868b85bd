import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from eyas.errors import PreflightError
from eyas.preflight import versions
from eyas.preflight.versions import core_packages, installed_versions, refuse_old_versions


def test_the_core_packages_are_the_dependencies_of_pyproject():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    assert [f"{name}>={floor}" for name, floor in core_packages().items()] == project["dependencies"]


def test_this_environment_is_new_enough():
    refuse_old_versions()

    assert installed_versions().keys() == core_packages().keys()
    assert {"torch", "transformers", "peft", "trl"} <= installed_versions().keys()


def install(monkeypatch: pytest.MonkeyPatch, **instead: str | None) -> None:
    """Pretend that these packages have other versions; None is a missing package."""
    real = versions.version

    def version(name: str) -> str:
        found = instead[name] if name in instead else real(name)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(versions, "version", version)


def test_an_old_and_a_missing_package_are_named_in_one_message(monkeypatch):
    install(monkeypatch, peft="0.9.2", trl=None)
    floors = core_packages()

    with pytest.raises(PreflightError) as refused:
        refuse_old_versions()

    assert str(refused.value) == (
        f"eyas needs peft>={floors['peft']} (found 0.9.2), trl>={floors['trl']} (not installed). "
        "Install them with: pip install -c constraints.txt eyas"
    )


@pytest.mark.parametrize("found", ["5.23.0", "5.23", "5.100.0", "6", "5.23.0.dev0", "5.23.1rc1", "10.0+cpu"])
def test_the_lowest_version_and_every_later_one_is_accepted(found, monkeypatch):
    monkeypatch.setattr(versions, "requires", lambda name: ["transformers>=5.23"])
    install(monkeypatch, transformers=found)

    refuse_old_versions()


@pytest.mark.parametrize("found", ["5.22.9", "5.3", "5", "4.100.0", "5.22.0+cpu"])
def test_a_version_below_the_lowest_one_is_refused(found, monkeypatch):
    monkeypatch.setattr(versions, "requires", lambda name: ["transformers>=5.23"])
    install(monkeypatch, transformers=found)

    with pytest.raises(PreflightError, match=rf"transformers>=5.23 \(found {found.replace('+', '.')}\)"):
        refuse_old_versions()


def test_trailing_zeros_of_the_lowest_version_do_not_matter(monkeypatch):
    monkeypatch.setattr(versions, "requires", lambda name: ["transformers>=5.23.0"])
    install(monkeypatch, transformers="5.23")

    refuse_old_versions()


def test_packages_of_extras_are_not_core_packages(monkeypatch):
    monkeypatch.setattr(versions, "requires", lambda name: ["rich>=14", 'gguf>=0.19; extra == "export"'])

    assert core_packages() == {"rich": "14"}
