"""Distance between two models' predictions."""

import math

import pytest
import torch

from eyas.export.parity import parity_between


def test_equal_predictions_have_no_distance():
    logits = [torch.randn(5, 7), torch.randn(3, 7)]

    parity = parity_between(logits, logits)

    assert parity.kl_per_token == 0 and parity.largest_logit_difference == 0
    assert parity.top1_agreement == 1 and parity.positions == 8


def test_the_kl_of_two_known_distributions_follows_the_formula():
    reference, other = torch.log(torch.tensor([[0.5, 0.5]])), torch.log(torch.tensor([[0.25, 0.75]]))

    parity = parity_between([reference], [other])

    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert parity.kl_per_token == pytest.approx(expected, rel=1e-6)


def test_a_constant_added_to_all_logits_changes_no_distribution():
    logits = torch.randn(4, 9)

    parity = parity_between([logits], [logits + 3])

    assert parity.kl_per_token == pytest.approx(0, abs=1e-12)
    assert parity.largest_logit_difference == pytest.approx(3, abs=1e-5)
    assert parity.top1_agreement == 1


def test_one_changed_top1_of_four_is_an_agreement_of_three_quarters():
    logits = torch.eye(4)
    changed = logits.clone()
    changed[0] = torch.tensor([0.0, 0.0, 0.0, 2.0])

    assert parity_between([logits], [changed]).top1_agreement == 0.75


def test_a_changed_top1_is_clear_only_above_the_margin():
    logits = torch.tensor([[1.0, 0.0], [0.1, 0.0]])
    flipped = logits.flip(1)

    assert parity_between([logits], [flipped]).clear_flips == 2
    assert parity_between([logits], [flipped], margin=0.5).clear_flips == 1


def test_one_outlier_changes_the_mean_kl_but_not_the_median():
    logits = torch.zeros(9, 2)
    other = logits.clone()
    other[0, 0] = 20.0

    parity = parity_between([logits], [other])

    assert parity.kl_per_token > 0.5 and parity.median_kl == 0
