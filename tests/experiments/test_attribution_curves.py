"""Deletion and insertion curves against plain loops, FlashTrace's own code, and functions of which the answer is known."""

from itertools import permutations
from random import Random

import numpy as np
import pytest

from experiments.benchmarks.attribution.curves import Areas, area, deletion, density, groups, insertion


def by_loops(responses: list[float], weights: list[float], parts: list[list[int]], inserting: bool) -> Areas:
    """RISE and MAS by their definitions, number by number."""
    weights = [max(weight, 0.0) for weight in weights]
    empty, full = (responses[0], responses[-1]) if inserting else (responses[-1], responses[0])
    curve, share, done = [], [], 0.0
    for k, response in enumerate(responses):
        n = min(1.0, max(0.0, (response - empty) / abs(full - empty)))
        if curve:
            n = max(n, curve[-1]) if inserting else min(n, curve[-1])
        curve.append(n)
        done += sum(weights[i] for i in parts[k - 1]) if k else 0.0
        share.append(done / sum(weights) if inserting else 1 - done / sum(weights))
    sign = -1 if inserting else 1
    aligned = [min(1.0, max(0.0, n + sign * abs(n - d))) for n, d in zip(curve, share, strict=True)]
    aligned = [(a - min(aligned)) / (max(aligned) - min(aligned)) for a in aligned]
    return Areas(*(sum((a + b) / 2 for a, b in zip(c, c[1:], strict=False)) / (len(c) - 1) for c in (curve, aligned)))


@pytest.mark.parametrize("count", [2, 7, 20, 33])
def test_areas_equal_plain_loops(count):
    random = Random(count)
    weights = [random.uniform(-0.2, 1) for _ in range(count)]
    parts = groups(weights)
    responses = sorted((random.uniform(-9, 0) for _ in range(len(parts) + 1)), reverse=True)
    responses[1], responses[-2] = responses[-2], responses[1]  # not monotonic
    left = density(weights, parts)
    for areas, inserting in ((deletion, False), (insertion, True)):
        some = responses[::-1] if inserting else responses
        expected = by_loops(some, weights, parts, inserting)
        found = areas(np.array(some), left)
        assert (found.rise, found.mas) == pytest.approx((expected.rise, expected.mas), rel=1e-12)


def test_steps_take_the_highest_first_and_differ_by_one_token_at_most():
    assert groups([0.1, 0.5, 0.5, -1.0, 0.2], steps=2) == [[1, 2, 4], [0, 3]]
    parts = groups(list(range(47)))
    assert len(parts) == 20 and sorted({len(part) for part in parts}) == [2, 3]
    assert parts[0] == [46, 45, 44] and sorted(sum(parts, [])) == list(range(47))


def additive(weights: list[float], order: tuple[int, ...]) -> tuple[Areas, Areas]:
    """Both curves of the function that adds up the weights of the tokens that are there."""
    n = len(weights)
    scores = [0.0] * n
    for rank, token in enumerate(order):
        scores[token] = weights[order[rank]]
    parts = [[token] for token in order]
    removed = np.array([sum(weights) - sum(weights[t] for t in order[:k]) for k in range(n + 1)])
    return deletion(removed, density(scores, parts)), insertion(sum(weights) - removed, density(scores, parts))


def test_of_all_orders_the_true_one_is_best_and_its_reverse_worst():
    weights = [3.0, 0.5, 2.0, 1.0, 4.0]
    by_order = {order: additive(weights, order) for order in permutations(range(5))}
    true = tuple(groups(weights)[k][0] for k in range(5))
    best, worst = by_order[true], by_order[true[::-1]]
    assert best[0].rise == min(a.rise for a, _ in by_order.values())
    assert best[1].rise == max(b.rise for _, b in by_order.values())
    assert worst[0].rise == max(a.rise for a, _ in by_order.values())
    assert worst[1].rise == min(b.rise for _, b in by_order.values())
    # attributions of the true size follow the response: nothing is added
    assert best[0].mas == pytest.approx(best[0].rise) and best[1].mas == pytest.approx(best[1].rise)


def test_attributions_of_the_wrong_size_are_penalized_though_their_order_is_right():
    weights, parts = [4.0, 3.0, 2.0, 1.0], [[0], [1], [2], [3]]
    removed = np.array([10.0, 6.0, 3.0, 1.0, 0.0])
    flat = density([1.04, 1.03, 1.02, 1.01], parts)
    true = density(weights, parts)
    assert deletion(removed, flat).rise == deletion(removed, true).rise
    assert deletion(removed, flat).mas > deletion(removed, true).mas + 0.05
    assert insertion(removed[::-1], 1 - flat[::-1]).mas <= insertion(removed[::-1], 1 - true[::-1]).mas


def test_where_nothing_is_defined_the_values_are_flashtraces():
    """No attribution above 0: a straight line; no difference between all tokens and none: 1 and one half."""
    assert density([-1.0, 0.0], [[1], [0]]).tolist() == [1.0, 0.5, 0.0]
    same = np.array([-2.0, -2.0, -2.0])
    assert deletion(same, np.array([1.0, 0.4, 0.0])) == Areas(1.0, 0.5)
    assert insertion(same, np.array([1.0, 0.4, 0.0])) == Areas(0.0, 0.5)
    assert area(np.array([1.0, 0.0])) == 0.5


class Evaluator:
    """What FlashTrace's evaluation asks of a model: here the response is a sum of weights, and a pad token counts none."""

    device = "cpu"

    def __init__(self, weights):
        self.weights = weights

    def tokenizer(self, text, **options):
        import torch

        class Encoding:
            input_ids = torch.arange(1, len(self.weights) + 1)[None]

        return Encoding

    def format_prompt(self, prompt):
        return prompt

    def _ensure_pad_token_id(self):
        return 0

    def compute_logprob_response_given_prompt(self, prompt, response):
        import torch

        present = [w for w, token in zip(self.weights, prompt[0].tolist(), strict=True) if token]
        return torch.tensor([sum(present, 0.0) - len(present) % 3], dtype=torch.float64)


@pytest.mark.parametrize("count", [3, 20, 45])
def test_deletion_is_flashtraces_own(count):
    improved = pytest.importorskip("flashtrace.improved")
    import torch

    random = Random(count)
    weights = [random.uniform(0.1, 2) for _ in range(count)]
    scores = [random.uniform(0, 1) for _ in range(count)]
    evaluator = Evaluator(weights)
    evaluator.tokenizer.__func__.eos_token = ""
    rise, mas, _ = improved.faithfulness_test_skip_tokens(
        evaluator, torch.tensor([scores], dtype=torch.float64), "", "", keep_prompt_token_indices=range(count),
        user_prompt_indices=range(count),
    )  # fmt: skip
    parts, here = groups(scores), list(range(1, count + 1))
    responses = [float(evaluator.compute_logprob_response_given_prompt(torch.tensor([here]), None).sum())]
    for part in parts:
        here = [0 if k in part else token for k, token in enumerate(here)]
        responses.append(float(evaluator.compute_logprob_response_given_prompt(torch.tensor([here]), None).sum()))
    found = deletion(np.array(responses), density(scores, parts))
    assert (found.rise, found.mas) == pytest.approx((rise, mas), rel=1e-9)
