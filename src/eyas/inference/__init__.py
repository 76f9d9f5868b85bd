"""Models of a finished run, and their answers."""
