from pathlib import Path

import pytest


@pytest.fixture
def write_recipe(tmp_path, monkeypatch):
    """Return a function that writes `recipe.yaml`."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("recipe.yaml").write_text(text, encoding="utf-8")
        return Path("recipe.yaml")

    return write
