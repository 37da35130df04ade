"""Problems whose prompts are too long: named at the start, or left out and counted."""

import pytest

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rollouts import RolloutDataModule
from atmanrl.rollouts.prompt_lengths import fitting_problems
from atmanrl.tasks import Problem, WordProblems

ROWS = [(i, Problem(f"p/{i}", question, "1")) for i, question in enumerate(["1 + 1?", "0 " * 900, "2?", "0 " * 400])]


class Asking:
    """A task whose prompts are its questions."""

    def prompt(self, problem):
        return problem.question


def fitting(folder, *, room=8, limit=None, too_long="error"):
    return fitting_problems(ROWS, Asking(), Policy(str(folder)), room, limit, too_long)


def test_the_longest_is_named_before_the_model_is_loaded(tiny_folder):
    with pytest.raises(
        UserError, match=r"the prompt of p/1 has \d+ tokens, .* of the model's 1024: .*data.too_long=drop"
    ):
        fitting(tiny_folder)
    with pytest.raises(UserError, match=r"and data.max_prompt_tokens is 20, and so have 1 others no room"):
        fitting(tiny_folder, limit=20)


def test_they_are_left_out_and_counted(tiny_folder, capsys):
    assert [row for row, _ in fitting(tiny_folder, too_long="drop")] == [0, 2, 3]
    assert "1 of 4 problems are left out: the prompt of p/1" in capsys.readouterr().err
    assert [row for row, _ in fitting(tiny_folder, limit=20, too_long="drop")] == [0, 2]


def test_where_all_fit_nothing_changes(tiny_folder):
    policy = Policy(str(tiny_folder))
    assert fitting_problems(ROWS[::2], Asking(), policy, 8, None, "error") == ROWS[::2]
    assert policy.model is None and policy.tokenizer is not None


@pytest.mark.parametrize("options", [{"max_prompt_tokens": 0}, {"too_long": "cut"}])
def test_options_that_cannot_be(options):
    with pytest.raises(UserError, match="data."):
        RolloutDataModule(WordProblems(train_size=4), **options)
