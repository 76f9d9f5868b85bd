"""Compact batches: no padding, no repeated prefix, no logits without a label.

`layout` chooses the tokens of a batch to compute and the tokens that each one reads. `attention` and `mask` make a
model follow it, `causal_lm` and `encoder` wrap a model, and `probe` verifies that the results stay the same.
"""
