"""A task says how many problems it holds, without a network and without reading what is far away."""

import pytest

from atmanrl.tasks import GSM8K, MMLU, MixtureTask, MultiHop, Task, WordProblems


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "task",
    [
        WordProblems(train_size=30, test_size=7),
        MultiHop(train_size=9, test_size=4),
        MixtureTask(
            {"a": WordProblems(train_size=30, test_size=7), "b": MultiHop(train_size=9, test_size=4)}, {"a": 3, "b": 1}
        ),
    ],
)
def test_a_size_is_the_number_of_problems(task, split):
    assert task.size(split) == len(task.problems(split))


def test_sizes_of_the_hubs_data_sets_are_those_of_the_real_data(shared_data):
    for known, read in ((GSM8K(), GSM8K(str(shared_data / "gsm8k"))), (MMLU(), MMLU(str(shared_data / "mmlu")))):
        assert [known.size(split) for split in ("train", "test")] == [read.size(split) for split in ("train", "test")]


def test_a_size_that_only_a_download_would_tell_is_none():
    unknown = [GSM8K(hub_name="someone/else"), MMLU(hub_name="someone/else"), MMLU(subjects=["virology"])]
    for task in [*unknown, MMLU(auxiliary=True), MixtureTask({"a": WordProblems(), "b": unknown[0]})]:
        assert task.size("train") is None
    assert MMLU(auxiliary=True).size("test") == MMLU().size("test")


def test_a_task_of_ones_own_need_not_know():
    class Own(Task):
        def problems(self, split):
            raise AssertionError("not asked")

        def is_right(self, answer, problem):
            return True

    assert Own().size("train") is None
