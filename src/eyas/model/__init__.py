"""The base model, its adapter, and probes of what they compute."""
