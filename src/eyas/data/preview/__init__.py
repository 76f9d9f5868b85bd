"""Preview of the first batches: tensors, text, terminal and HTML."""
