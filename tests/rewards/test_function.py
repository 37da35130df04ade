"""Reward functions of TRL's kind, run unchanged."""

import dataclasses
import math
import os
import time
from types import SimpleNamespace

import pytest
import torch
from test_rewards import batch

from atmanrl.errors import UserError
from atmanrl.rewards import FunctionReward, RewardError, score
from atmanrl.worker import Worker

TEXTS = ["1 + 2 = 3 ##### 3", "so ##### 4", "  ##### 3", "no delimiter"]


def mine(name: str, **options) -> FunctionReward:
    return FunctionReward(f"reward_functions.{name}", **options)


@pytest.fixture
def four(tiny_policy):
    made = batch(tiny_policy, TEXTS, [True, False, True, None])
    made.update, made.updates = 7, 20
    return made


@pytest.fixture
def policy():
    return SimpleNamespace(tokenizer=SimpleNamespace(chat_template=None))


@pytest.mark.parametrize("timeout_s", [20.0, None])
def test_a_function_is_given_what_trl_gives(four, policy, timeout_s):
    reward = mine("sees_everything", columns={"solution": "gold"}, timeout_s=timeout_s)
    assert reward(four, policy).values.tolist() == [len(r.completion.ids) + 3.0 for r in four.rollouts]
    assert reward(four, policy).metrics == {"my/step": (7 + 20) / 2}
    notes = [r.notes for r in four.rollouts]
    assert [n["seen"] for n in notes] == [str(("1 + 2?", r.parts.text)) for r in four.rollouts]
    given = "answer gold log_extra log_metric problem_id question solution trainer_state"
    assert {n["names"] for n in notes} == {given}


@pytest.mark.parametrize(
    ("template", "option", "chat"), [(None, None, False), ("{}", None, True), (None, True, True), ("{}", False, False)]
)
def test_messages_where_the_policy_has_a_chat_template(four, template, option, chat):
    policy = SimpleNamespace(tokenizer=SimpleNamespace(chat_template=template))
    mine("sees_everything", columns={"solution": "gold"}, conversational=option, timeout_s=None)(four, policy)
    seen = ([{"role": "user", "content": "1 + 2?"}], [{"role": "assistant", "content": four.rollouts[1].parts.text}])
    assert four.rollouts[1].notes["seen"] == str(seen if chat else ("1 + 2?", four.rollouts[1].parts.text))


def test_none_abstains_and_async_is_awaited(four, policy):
    assert [math.isnan(v) for v in mine("abstains")(four, policy).values.tolist()] == [False, True, False, False]
    lengths = [float(len(r.parts.text)) for r in four.rollouts]
    assert (
        mine("later", timeout_s=None)(four, policy).values.tolist()
        == lengths
        == mine("later")(four, policy).values.tolist()
    )


@pytest.mark.parametrize("timeout_s", [20.0, None])
def test_what_a_coroutine_keeps_is_of_use_in_the_next_call(four, policy, timeout_s):
    reward = mine("with_a_client", timeout_s=timeout_s)
    assert reward(four, policy).values.tolist() == reward(four, policy).values.tolist() == [1.0] * 4


@pytest.mark.parametrize("name", ["as_tensor", "as_array", "as_scalars", "one_by_one"])
def test_whatever_trl_can_go_through_is_taken(four, policy, name):
    lengths = [float(len(r.parts.text)) for r in four.rollouts]
    assert mine(name, timeout_s=None)(four, policy).values.tolist() == lengths
    if name in ("as_array", "one_by_one"):
        assert mine(name)(four, policy).values.tolist() == lengths


def test_columns_of_the_task_reach_the_function(four, policy):
    """A column that the data has stands in for one of ours; a problem without it has None there."""
    for i, rollout in enumerate(four.rollouts):
        level = {"level": float(i)} if i else {}
        rollout.problem = dataclasses.replace(rollout.problem, columns={"gold": "mine", **level})
    values = mine("by_level", timeout_s=None)(four, policy).values.tolist()
    assert math.isnan(values[0]) and values[1:] == [1.0, 2.0, 3.0]
    assert len({rollout.problem for rollout in four.rollouts}) == 4  # a problem can be a key all the same


def test_trls_own_rewards_unchanged(four, policy):
    trl = pytest.importorskip("trl.rewards")
    ids = [r.completion.ids for r in four.rollouts]
    overlong = {"max_completion_len": 12, "soft_punish_cache": 6}
    reward = FunctionReward("trl.rewards.get_soft_overlong_punishment", arguments=overlong, timeout_s=None)
    expected = trl.get_soft_overlong_punishment(**overlong)(ids)
    assert reward(four, policy).values.tolist() == pytest.approx(expected) and len(set(expected)) > 2
    reward = FunctionReward("trl.rewards.get_repetition_penalty_reward", arguments={"ngram_size": 1}, timeout_s=None)
    expected = trl.get_repetition_penalty_reward(ngram_size=1)(ids)
    assert reward(four, policy).values.tolist() == pytest.approx(expected) and min(expected) < 0
    four.rollouts[0].parts = SimpleNamespace(text="<think>\n1 + 2\n</think>\n3")
    reward = FunctionReward("trl.rewards.think_format_reward", conversational=True, timeout_s=None)
    assert reward(four, policy).values.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_trls_accuracy_reward(four, policy):
    pytest.importorskip("math_verify")
    path, columns = "trl.rewards.accuracy_reward", {"solution": "gold"}
    four.rollouts[0].parts = SimpleNamespace(text=r"so \boxed{3}")
    values = FunctionReward(path, columns=columns, conversational=True, timeout_s=None)(four, policy).values
    assert values[:2].tolist() == [1.0, 0.0]


def test_it_runs_in_one_process_of_its_own(four, policy):
    reward = mine("where")
    first, second = reward(four, policy).values, reward(four, policy).values
    assert torch.equal(first, second) and first[0] != os.getpid()
    assert mine("where", timeout_s=None)(four, policy).values[0] == os.getpid()


def test_its_process_imports_neither_torch_nor_transformers(four, policy):
    assert mine("heavy")(four, policy).values.tolist() == [0.0] * 4


@pytest.mark.parametrize("timeout_s", [20.0, None])
def test_what_raises_is_named(four, policy, timeout_s):
    with pytest.raises(RewardError) as error:
        score({"mine": mine("stumbles", timeout_s=timeout_s)}, four, policy)
    said = str(error.value)
    assert said.startswith("reward 'mine' raised in reward_functions.stumbles: ZeroDivisionError: ")
    assert "reward_functions.py, line " in said
    assert said.endswith("on problem test/0, sample 1, whose completion is 'so ##### 4'.")


@pytest.mark.parametrize("name", ["loops", "sleeps"])
def test_what_hangs_is_stopped_and_named(four, policy, name):
    reward, began = mine(name, timeout_s=0.2), time.perf_counter()
    with pytest.raises(
        RewardError, match=r"reward 'mine' took longer than timeout_s=0\.2 .* test/0, sample 1, .*so ##"
    ):
        score({"mine": reward}, four, policy)
    assert time.perf_counter() - began < 20
    assert reward.worker.process is None
    assert reward(four.part([0, 2]), policy).values.tolist() == [0.0, 0.0]  # the next call has a process again


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dies", "its process ended with status 3"),
        ("gives_too_few", "returned 0 values for 1 rollouts"),
        ("gives_a_function", "raised in reward_functions.gives_a_function: .*pickle"),
    ],
)
def test_what_gives_no_numbers_is_named(four, policy, name, said):
    with pytest.raises(RewardError, match=f"reward 'mine' .*{said}.* on problem test/0, sample 0"):
        score({"mine": mine(name)}, four.part([0]), policy)


@pytest.mark.parametrize("timeout_s", [20.0, None])
@pytest.mark.parametrize("name", ["nothing", "no_function"])
def test_what_is_not_there(four, policy, name, timeout_s):
    with pytest.raises(UserError, match=rf"'reward_functions\.{name}' cannot be loaded"):
        score({"mine": mine(name, timeout_s=timeout_s)}, four, policy)


def test_wrong_options():
    with pytest.raises(UserError, match="'nodots' is no dotted path"):
        FunctionReward("nodots")
    with pytest.raises(UserError, match=r"columns\.solution is 'golden'; choose one of problem_id, question, gold"):
        mine("later", columns={"solution": "golden"})
    with pytest.raises(UserError, match="timeout_s is 0"):
        mine("later", timeout_s=0)


def test_a_process_may_have_variables_of_its_own(monkeypatch):
    monkeypatch.setenv("ATMANRL_HERE", "here")
    worker = Worker("reward_functions.variable", None, {"ATMANRL_HERE": "there", "ATMANRL_NEW": "new"})
    there = [worker({"name": name}, 20.0).value for name in ("ATMANRL_HERE", "ATMANRL_NEW")]
    worker.stop()
    assert there == ["there", "new"]
    assert os.environ["ATMANRL_HERE"] == "here" and "ATMANRL_NEW" not in os.environ
