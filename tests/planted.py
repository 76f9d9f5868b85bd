"""Small faults for probes: a token read across a border, a token not read, a position off by one."""

import torch
from transformers.modeling_layers import GradientCheckpointingLayer


def decoder_layers(model):
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def plant(model, fault, layers):
    """Add a fault to the inputs of some layers; call the result to remove it."""
    hooks = [decoder_layers(model)[layer].register_forward_pre_hook(fault, with_kwargs=True) for layer in layers]
    return lambda: [hook.remove() for hook in hooks]


def borders(keywords):
    """Return the starts of the documents in a packed row, without the first."""
    positions = keywords.get("position_ids")
    return [] if positions is None else ((positions[0].diff() != 1).nonzero().flatten() + 1).tolist()


def in_the_mask(change):
    def fault(_layer, arguments, keywords):
        begins, mask = borders(keywords), keywords.get("attention_mask")
        if not begins or mask is None:
            return None
        boolean = mask.dtype == torch.bool
        mask = mask.clone()
        change(mask, begins, True if boolean else 0.0, False if boolean else torch.finfo(mask.dtype).min)
        return arguments, keywords | {"attention_mask": mask}

    return fault


@in_the_mask
def a_first_token_reads_the_last_before(mask, begins, read, _unread):
    mask[..., begins[0], begins[0] - 1] = read


@in_the_mask
def the_last_token_reads_the_very_first(mask, _begins, read, _unread):
    mask[..., -1, 0] = read


@in_the_mask
def last_tokens_miss_their_first(mask, begins, _read, unread):
    for begin, end in zip([0, *begins], [*begins, mask.shape[-1]], strict=True):
        mask[..., end - 1, begin] = unread


def a_position_is_off_by_one(_layer, arguments, keywords):
    begins = borders(keywords)
    if not begins:
        return None
    turned = tuple(each.clone() for each in keywords["position_embeddings"])
    for each in turned:
        each[:, begins[0] - 1] = each[:, begins[0] - 2]
    return arguments, keywords | {"position_embeddings": turned}


def window_off_by_one(window):
    @in_the_mask
    def fault(mask, begins, read, _unread):
        for begin, end in zip([0, *begins], [*begins, mask.shape[-1]], strict=True):
            for token in range(begin + window, end):
                mask[..., token, token - window] = read

    return fault
