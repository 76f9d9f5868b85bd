"""Real small models and labeled sentences from the package index, as plain folders and files."""
