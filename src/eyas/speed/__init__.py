"""Optional speed-ups, each verified on the loaded model before training. `apply` is the one entry point."""
