"""Each package imports only packages below it; see CONTRIBUTING.md."""

import ast
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = {
    7: {"__main__", "launch"},  # where a process starts
    6: {"cli"},
    5: {"training", "evaluation"},
    4: {"tasks", "speed", "inference", "export", "selftest"},
    3: {"data", "model", "preflight", "launchers", "demo", "verify"},
    2: {"recipe", "run_directory", "hardware", "allocator", "extras", "distributed", "sealing", "hub"},
    1: {"errors", "files", "disk_faults", "metrics", "run_records"},
}
LAYER_OF = {package: layer for layer, packages in LAYERS.items() for package in packages}


def test_every_package_imports_only_packages_below_it():
    assert violations(ROOT) == []


def test_every_package_stands_on_a_layer():
    packages = {
        path.stem for path in (ROOT / "src/eyas").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert len(packages) >= 15
    assert packages - {"__init__"} <= LAYER_OF.keys()


def test_an_import_from_above_or_beside_is_caught_wherever_it_hides(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    planted = {
        "data/splits.py": "def late():\n    from eyas.training.run import train",
        "model/load.py": "import eyas.data.splits",
        "errors.py": "from eyas import metrics",
        "recipe/load.py": "from ..cli import main",
        "hardware.py": "if True:\n    from .recipe.load import load_recipe",
    }
    for file, line in planted.items():
        with (tmp_path / "src/eyas" / file).open("a") as stream:
            stream.write(f"\n{line}\n")

    assert [violation.partition(":")[0] for violation in violations(tmp_path)] == sorted(planted)
    assert "data/splits.py: data (layer 3) imports training (layer 5)" in violations(tmp_path)


def violations(root: Path) -> list[str]:
    """Return one line for each file and package that it must not import."""
    files = {file.relative_to(root / "src/eyas"): file for file in root.glob("src/eyas/**/*.py")}
    files |= {file.relative_to(root): file for file in root.glob("launch/*.py")}
    found = set()
    for where, file in files.items():
        package = where.parts[0].removesuffix(".py")
        for other in packages_imported(file, ["eyas", *where.parts[:-1]]) - {package}:
            if LAYER_OF[other] >= LAYER_OF.get(package, 0):  # the package's own __init__ imports no package
                found.add(
                    f"{where}: {package} (layer {LAYER_OF.get(package)}) imports {other} (layer {LAYER_OF[other]})"
                )
    return sorted(found)


def packages_imported(file: Path, package: list[str]) -> set[str]:
    """Return the packages that a file of this package imports, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            names += [".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("eyas.")} & LAYER_OF.keys()
