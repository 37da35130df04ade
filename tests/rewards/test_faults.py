"""Rewards that raise or hang, of whatever class."""

import signal
import threading
import time

import pytest
import torch
from test_rewards import batch

from atmanrl.errors import UserError
from atmanrl.rewards import Reward, RewardError, score


class Does(Reward):
    """Does something with each completion."""

    def __init__(self, what, **options) -> None:
        super().__init__(**options)
        self.what = what

    def __call__(self, batch, policy):
        return torch.tensor([float(self.what(r.parts.text) or 0) for r in batch.rollouts])


class WithPolicy(Does):
    uses_policy = True


@pytest.fixture
def four(tiny_policy):
    texts = ["1 + 2 = 3 ##### 3", "so" + " and so" * 60, "  ##### 3", "no delimiter"]
    return batch(tiny_policy, texts, [True, False, True, None])


def loop(text):
    while "so" in text:
        try:
            time.sleep(0)
        except Exception:  # what a careless reward does; the limit must not drown in it
            pass


def sleep(text):
    time.sleep(30 if "so" in text else 0)


def test_what_raises_is_named_with_its_completion_shortened(four):
    with pytest.raises(RewardError) as error:
        score({"mine": Does(lambda text: {}[text] if "so" in text else 1.0)}, four, None)
    said = str(error.value)
    assert said.startswith("reward 'mine' raised KeyError: ") and "test_faults.py, line " in said
    assert "on problem test/0, sample 1, whose completion is 'so and so" in said and said.endswith("...'.")
    assert said.count("and so") < 100 and isinstance(error.value.__cause__, KeyError)


def test_what_fails_only_together_is_named_without_a_row(four):
    class Together(Reward):
        def __call__(self, batch, policy):
            return torch.zeros(1 // (len(batch) == 1))

    with pytest.raises(RewardError, match="reward 'mine' raised ZeroDivisionError.* on 4 rollouts together"):
        score({"mine": Together()}, four, None)


def test_what_runs_the_policy_keeps_its_exception(four):
    def fail(text):
        raise MemoryError(text)

    with pytest.raises(MemoryError) as error:
        score({"mine": WithPolicy(fail)}, four, None)
    assert error.value.__notes__ == ["This came up in the reward 'mine'."]


def test_a_users_error_keeps_its_message(four):
    def fail(text):
        raise UserError("Give another model.")

    with pytest.raises(UserError, match=r"^Give another model\.$"):
        score({"mine": Does(fail)}, four, None)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="a system without alarms")
@pytest.mark.parametrize("what", [loop, sleep])
def test_what_hangs_is_stopped_and_named(four, what):
    before, began = signal.getsignal(signal.SIGALRM), time.perf_counter()
    with pytest.raises(RewardError, match=r"reward 'mine' took longer than timeout_s=0\.1 .* problem test/0, sample 1"):
        score({"mine": Does(what, timeout_s=0.1)}, four, None)
    assert time.perf_counter() - began < 20
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    with pytest.raises(RewardError, match=r"took longer than timeout_s=0\.1"):
        score({"mine": WithPolicy(what, timeout_s=0.1)}, four, None)


def test_what_is_quick_is_left_alone(four):
    assert score({"mine": Does(len, timeout_s=30)}, four, None).total[3] == len("no delimiter")
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    found = []
    off_the_main_thread = threading.Thread(
        target=lambda: found.append(score({"mine": Does(len, timeout_s=30)}, four, None))
    )
    off_the_main_thread.start()
    off_the_main_thread.join()
    assert found[0].total[3] == len("no delimiter")


@pytest.mark.parametrize("timeout_s", [0, -1.0])
def test_a_limit_that_is_no_time(timeout_s):
    with pytest.raises(UserError, match=f"Does: timeout_s is {timeout_s}"):
        Does(len, timeout_s=timeout_s)
