"""Installed packages, checked against the lowest versions in pyproject.toml."""

import re
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.version import Version

from eyas.errors import PreflightError


def core_packages() -> dict[str, str]:
    """Return the lowest allowed version of each core dependency of eyas."""
    floors = {}
    for requirement in requires("eyas") or []:
        match = re.fullmatch(
            r"([\w.-]+)>=([\w.]+)", requirement
        )  # requirements of extras have a marker and do not match
        if match:
            floors[match[1]] = match[2]
    return floors


def installed_versions() -> dict[str, str]:
    """Return the installed version of each core dependency."""
    return {name: version(name) for name in core_packages()}


def refuse_old_versions() -> None:
    """Raise PreflightError if a core dependency is missing or too old."""
    wrong = []
    for name, floor in core_packages().items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name}>={floor} (not installed)")
            continue
        if Version(Version(installed).base_version) < Version(floor):
            wrong.append(f"{name}>={floor} (found {installed})")
    if wrong:
        raise PreflightError(f"eyas needs {', '.join(wrong)}. Install them with: pip install -c constraints.txt eyas")
