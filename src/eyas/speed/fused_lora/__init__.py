"""Fused LoRA: base and adapter in one autograd function."""
