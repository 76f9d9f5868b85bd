"""Every library that eyas imports is a declared dependency, and every dependency is pinned."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names_of(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


CORE = names_of(PROJECT["dependencies"])
EXTRAS = {name: names_of(requirements) for name, requirements in PROJECT["optional-dependencies"].items()}


def undeclared(root: Path) -> list[str]:
    """Return `file: module` for each import of a library that is neither a dependency nor required as an extra."""
    distributions = packages_distributions()
    found = []
    for file in sorted([*root.glob("src/**/*.py"), *root.glob("launch/*.py")]):
        text = file.read_text(encoding="utf-8")
        required = dict(re.findall(r'require\("(\w+)", "(\w+)"\)', text))
        for module in sorted(libraries_imported(text)):
            names = {canonicalize_name(name) for name in distributions.get(module, [module])}
            extra = EXTRAS.get(required.get(module, ""), set())
            reached = extra.union(*(EXTRAS[part] for part in parts_of(required.get(module, ""))))
            if not names & (CORE | reached):
                found.append(f"{file.relative_to(root)}: {module}")
    return found


def parts_of(extra: str) -> list[str]:
    """Return the extras that an extra of eyas includes."""
    for text in PROJECT["optional-dependencies"].get(extra, []):
        if (requirement := Requirement(text)).name == "eyas":
            return sorted(requirement.extras)
    return []


def libraries_imported(source: str) -> set[str]:
    """Return the top-level modules that a file imports, inside functions too, except the standard library's."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(str(node.module).partition(".")[0])
    return modules - sys.stdlib_module_names - {"eyas"}


def test_every_imported_library_is_a_dependency_or_a_required_extra():
    assert undeclared(ROOT) == []


def test_an_undeclared_library_is_found_wherever_it_is_imported(tmp_path):
    folder = tmp_path / "src" / "eyas"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text("import torch\ndef late():\n    from sklearn.metrics import f1_score\n")
    (folder / "two.py").write_text("import gguf\n")
    (folder / "three.py").write_text('from eyas.extras import require\nrequire("gguf", "demo")\nimport gguf\n')

    assert undeclared(tmp_path) == ["src/eyas/one.py: sklearn", "src/eyas/two.py: gguf"]


def test_every_dependency_is_pinned_at_or_above_its_lowest_version():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    requirements = [Requirement(text) for group in groups for text in group]

    assert len(requirements) >= 25
    for requirement in requirements:
        if requirement.name != "eyas":
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement
