"""Problems of a user's own task, checked before the first one is drawn."""

import pytest

from atmanrl.rollouts import RolloutDataModule
from atmanrl.tasks import Problem, Task, TaskError


class Own(Task):
    """Some problems, the last one as given."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def problems(self, split):
        return [*(Problem(str(i), "?", "1") for i in range(9)), self.last]

    def is_right(self, answer, problem):
        return True


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (Problem("\ud800", "?", "1"), "id"),
        (Problem("x", "half \udc00", "1"), "question"),
        (Problem("x", "?", 1), "gold"),
        (Problem("x", "?", "1", "\ud83d"), "solution"),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_text_that_cannot_be_written_is_refused_at_setup(problem, name, stage):
    data = RolloutDataModule(Own(problem), val_problems=1, queries_per_device=1)
    with pytest.raises(TaskError, match=f"Own: `{name}` of {'train' if stage == 'fit' else 'test'} problem"):
        data.setup(stage)
