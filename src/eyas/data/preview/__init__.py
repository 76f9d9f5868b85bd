"""The first batches as the model gets them: tensors, text, terminal and HTML."""
