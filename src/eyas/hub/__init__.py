"""The model hub: names become commits, files are fetched and checked against what the hub says they are."""
