"""Download the hub files of one recipe and exit: a process that a test can kill. Argument: the recipe's file."""

import sys

from eyas.cli.errors import errors_as_text
from eyas.preflight.pinning import pinned
from eyas.recipe import load_recipe

if __name__ == "__main__":
    with errors_as_text(), pinned(load_recipe(sys.argv[1]), print):
        print("fetched", flush=True)
