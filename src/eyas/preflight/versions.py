"""The floors of pyproject.toml, held against what is installed."""

import re
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.version import Version

from eyas.errors import PreflightError


def core_packages() -> dict[str, str]:
    """Return each core dependency of eyas and the lowest version it takes."""
    floors = {}
    for requirement in requires("eyas") or []:
        match = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement)  # extras carry a marker and do not match
        if match:
            floors[match[1]] = match[2]
    return floors


def installed_versions() -> dict[str, str]:
    """Return the installed version of each core dependency."""
    return {name: version(name) for name in core_packages()}


def refuse_old_versions() -> None:
    """Refuse a machine on which a core dependency is missing or older than eyas was built on."""
    wrong = []
    for name, floor in core_packages().items():
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name}>={floor} (not installed)")
            continue
        if Version(Version(found).base_version) < Version(floor):
            wrong.append(f"{name}>={floor} (found {found})")
    if wrong:
        raise PreflightError(f"eyas needs {', '.join(wrong)}. Install them with: pip install -c constraints.txt eyas")
