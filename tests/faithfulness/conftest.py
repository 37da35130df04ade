"""Rollouts of a tiny random policy, whose answers are what it would say greedily or not."""

import pytest
from hand_built import copying_policy, rollout


@pytest.fixture(scope="session")
def reader_of_reasoning(tiny_folder):
    """A policy that copies from its reasoning alone."""
    return copying_policy(tiny_folder, "reasoning")


@pytest.fixture(scope="session")
def reader_of_prompt(tiny_folder):
    """A policy that ignores its reasoning."""
    return copying_policy(tiny_folder, "prompt")


@pytest.fixture
def rollouts(tiny_policy):
    """Of several lengths, one without a reasoning and one without an answer."""
    texts = [
        (" He has 3 + 4 = 7 apples in all.\n##### 7", "7"),
        (" 3 + 4 is 12.\n##### 12", "7"),
        ("##### 7", "7"),
        (" 3 + 4 = 7 apples", "7"),
    ]
    return [rollout(tiny_policy, "How many are 3 and 4?", text, gold, k) for k, (text, gold) in enumerate(texts)]
