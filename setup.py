"""Puts the shipped recipes, configs and training script into the wheel, as `eyas/shipped/`.

Their only source is at the top of the repository. An editable install reads them there.
"""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("recipes", "accelerate_configs", "ds_configs", "launch")


class BuildWithShippedFiles(build_py):
    """Copies the shipped folders next to the package's modules."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in SHIPPED:
                target = Path(self.build_lib, "eyas", "shipped", folder)
                copytree(folder, target, ignore=ignore_patterns("__pycache__"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithShippedFiles})
