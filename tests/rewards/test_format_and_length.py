"""The format reward and the length reward."""

import pytest
from test_rewards import batch

from atmanrl.errors import UserError
from atmanrl.rewards import FormatReward, LengthReward
from atmanrl.rollouts import Completion

FORMS = {
    "1 + 2 = 3 ##### 3": 1.0,
    "1 + 2 = 3 ##### 4": 1.0,  # a wrong answer is an answer
    "no delimiter 3": 0.0,
    "so ##### 3 ##### 4": 0.0,
    "so #####": 0.0,
    "so ##### I don't know": 0.0,
}


def judged(policy, texts):
    from atmanrl.tasks import WordProblems

    made, task = batch(policy, texts, [None] * len(texts), 1), WordProblems(train_size=1, test_size=1)
    for r in made.rollouts:
        r.readable = r.parts.answer is not None and task.can_read(r.parts.answer, r.problem)
    return made


def test_the_form(tiny_policy):
    made = judged(tiny_policy, list(FORMS))
    assert FormatReward(weight=0.5)(made, None).tolist() == list(FORMS.values())
    for r in made.rollouts:
        r.completion = Completion(r.completion.ids, [], False)
    assert FormatReward()(made, None).tolist() == [0.0] * len(FORMS)


def test_the_form_of_traces_that_no_task_has_judged(tiny_policy):
    made = batch(tiny_policy, list(FORMS), [None] * len(FORMS), 1)
    assert FormatReward()(made, None).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(("limit", "cache"), [(12, 6), (20, 20), (9, 0), (12, 1)])
def test_the_length_as_trl_punishes_it(tiny_policy, limit, cache):
    rewards = pytest.importorskip("trl.rewards")
    made = batch(tiny_policy, ["a", "##### 3", *(" ".join(["1 + 2"] * n) for n in (2, 3, 4, 9))], [None] * 6, 1)
    ids = [r.completion.ids for r in made.rollouts]
    expected = rewards.get_soft_overlong_punishment(limit, cache)(ids)
    assert LengthReward(limit, cache, weight=2.0)(made, None).tolist() == pytest.approx(expected)
    assert min(expected) == -1 and max(expected) == (0 if cache < limit else expected[0])


def test_the_length_of_the_reasoning_alone(tiny_policy):
    made = batch(tiny_policy, ["1 + 2 = 3 ##### 3 and more"], [True], 1)
    (rollout,) = made.rollouts
    cot, whole = rollout.parts.cot_length, len(rollout.completion.ids)
    assert cot < whole
    assert LengthReward(whole, whole, of="reasoning")(made, None).item() == pytest.approx(-cot / whole)
    assert LengthReward(whole, whole)(made, None).item() == -1


@pytest.mark.parametrize(("limit", "cache"), [(0, 0), (10, -1), (10, 11)])
def test_wrong_lengths(limit, cache):
    with pytest.raises(UserError, match=f"max_completion_len is {limit} and soft_punish_cache is {cache}"):
        LengthReward(limit, cache)
    with pytest.raises(UserError, match="of is 'words'; choose completion or reasoning"):
        LengthReward(10, 5, of="words")
