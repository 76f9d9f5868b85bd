"""LoRA layers as one autograd function, batched over layers that share an input."""
