"""Real small models and real labelled sentences from the package index, as ordinary folders and files."""
