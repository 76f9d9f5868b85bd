"""Each room imports only rooms below it; see CONTRIBUTING.md."""

import ast
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = {
    7: {"__main__", "launch"},  # where a process starts
    6: {"cli"},
    5: {"training", "evaluation"},
    4: {"tasks", "inference", "export"},
    3: {"data", "model", "preflight", "launchers", "demo", "verify"},
    2: {"recipe", "run_directory", "hardware", "allocator", "extras", "distributed", "sealing", "hub"},
    1: {"errors", "files", "metrics"},
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def test_every_room_imports_only_rooms_below_it():
    assert violations(ROOT) == []


def test_every_room_stands_on_a_floor():
    rooms = {
        path.stem for path in (ROOT / "src/eyas").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert len(rooms) >= 15
    assert rooms - {"__init__"} <= FLOOR_OF.keys()


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
    assert "data/splits.py: data (floor 3) imports training (floor 5)" in violations(tmp_path)


def violations(root: Path) -> list[str]:
    """Return one line for each file and room that it must not import."""
    files = {file.relative_to(root / "src/eyas"): file for file in root.glob("src/eyas/**/*.py")}
    files |= {file.relative_to(root): file for file in root.glob("launch/*.py")}
    found = set()
    for where, file in files.items():
        room = where.parts[0].removesuffix(".py")
        for other in rooms_imported(file, ["eyas", *where.parts[:-1]]) - {room}:
            if FLOOR_OF[other] >= FLOOR_OF.get(room, 0):  # the package's own __init__ imports no room
                found.add(f"{where}: {room} (floor {FLOOR_OF.get(room)}) imports {other} (floor {FLOOR_OF[other]})")
    return sorted(found)


def rooms_imported(file: Path, package: list[str]) -> set[str]:
    """Return the rooms that a file of this package imports, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            names += [".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("eyas.")} & FLOOR_OF.keys()
