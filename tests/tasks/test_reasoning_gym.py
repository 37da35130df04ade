"""The generators of reasoning-gym as a task."""

import sys

import pytest
from conftest import fenced

from atmanrl.metrics.majority import answer_classes
from atmanrl.tasks import MixtureTask, ReasoningGym, TaskError, reasoning_gym
from atmanrl.tasks.gym_worker import Generator
from atmanrl.worker import CallResult, FunctionError, FunctionTimeoutError


class Here:
    """Stands in for the process, without its seconds to start."""

    def __init__(self, path, options, environment):
        self.function = Generator(**options)

    def __call__(self, arguments, seconds):
        return CallResult(self.function(**arguments))


@pytest.fixture
def gym(monkeypatch):
    """Make a task whose generator runs in this process."""
    pytest.importorskip("reasoning_gym", reason="pip install 'atmanrl[reasoning-gym]'")
    monkeypatch.setattr(reasoning_gym, "Worker", Here)
    return ReasoningGym


def test_a_process_of_its_own_draws_and_scores():
    pytest.importorskip("reasoning_gym", reason="pip install 'atmanrl[reasoning-gym]'")
    loaded = set(sys.modules)
    task = ReasoningGym("isomorphic_strings", train_size=3, test_size=2)
    problems = task.problems("train")
    assert all(p.id.startswith("reasoning_gym/isomorphic_strings/0/train/") for p in problems)
    assert all(task.is_right(p.gold, p) and not task.is_right("perhaps", p) for p in problems)
    # it draws by the order of a set of texts, which follows from the seed of Python's hashes
    assert task.worker.environment == {"PYTHONHASHSEED": "0"}
    task.worker.stop()
    assert not any(name.startswith("reasoning_gym") for name in set(sys.modules) - loaded)


def test_the_splits_share_no_question_whatever_the_seed_and_the_sizes(gym):
    config = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}  # 200 questions in all
    questions = {"train": set(), "test": set()}
    for seed, sizes in ((0, (60, 20)), (1, (30, 25))):
        task = gym("chain_sum", config, *sizes, seed=seed)
        for split, size in zip(questions, sizes, strict=True):
            own = {p.question for p in task.problems(split)}
            assert len(own) == len({p.id for p in task.problems(split)}) == task.size(split) == size
            questions[split] |= own
    assert not questions["train"] & questions["test"]


def test_problems_follow_from_the_seed_and_a_larger_split_begins_with_the_smaller(gym):
    few, many, other = (
        [p.question for p in gym("gcd", train_size=size, seed=seed).problems("train")]
        for size, seed in ((5, 0), (40, 0), (5, 1))
    )
    assert few == many[:5] and not set(few) & set(other)


def test_a_generator_that_has_too_few_problems_says_how_many(gym):
    task = gym("chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}, train_size=5000)
    with pytest.raises(TaskError, match=r"only \d\d+ different train problems.*fewer than 5000 by train_size"):
        task.problems("train")


def test_a_generator_that_always_fails_says_why(gym):
    task = gym("gcd")
    task.worker.function.dataset = {}
    task.worker.function._open = lambda seed: setattr(task.worker.function, "seed", seed)
    with pytest.raises(TaskError, match="gcd failed at 500 draws in a row; the last: KeyError"):
        task.problems("train")


def test_the_instruction_shows_an_answer_of_a_problem_that_is_in_neither_split(gym):
    task = gym("spell_backward", train_size=20, test_size=5)
    problems = [*task.problems("train"), *task.problems("test")]
    prompt = task.prompt(problems[0])
    assert prompt.startswith(problems[0].question) and prompt.endswith(f"for example: ##### {task.answer_example}")
    assert task.answer_example not in [p.gold for p in problems]
    assert gym("spell_backward", instruction="").prompt(problems[0]) == problems[0].question
    assert gym("game_of_life").answer_example == "..."  # a board is too long
    assert gym("rush_hour").answer_example == ReasoningGym.answer_example  # no answer is known


def test_only_full_marks_are_right_unless_less_is_asked_for(gym):
    strict, lenient = gym("spell_backward", train_size=1), gym("spell_backward", train_size=1, least_score=0.5)
    (problem,) = strict.problems("train")
    near = problem.gold[:-1] + "#"
    assert 0.5 < strict.score(near, problem) < 1
    assert not strict.is_right(near, problem) and lenient.is_right(near, problem)
    assert strict.can_read(near, problem) and not strict.can_read(" ", problem)


def test_answers_that_the_scorer_takes_for_one_are_one_vote(gym):
    task = gym("fraction_simplification", train_size=1)
    (problem,) = task.problems("train")
    assert answer_classes(task, problem, [problem.gold, "$\\dfrac{1}{7}$", "\\dfrac{1}{7}", "1"])[0] == 0
    word = gym("spell_backward", train_size=1)
    (problem,) = word.problems("train")
    assert answer_classes(word, problem, [problem.gold, "abc", "ABC", "abd", None]) == [0, 1, 1, 2, -1]


@pytest.mark.parametrize("error", [FunctionTimeoutError(), FunctionError("its process ended with status -9")])
def test_an_answer_that_the_scorer_does_not_survive_is_wrong_and_said(gym, monkeypatch, error):
    task = gym("gcd", train_size=1)
    (problem,) = task.problems("train")

    def fail(arguments, seconds):
        raise error

    monkeypatch.setattr(task, "worker", fail)
    with pytest.warns(UserWarning, match=f"gcd's scorer .* on an answer to {problem.id}"):
        assert not task.is_right("1", problem)


def test_a_mixture_takes_generators_and_sends_their_entry_along(gym):
    task = MixtureTask({"sums": gym("chain_sum", train_size=4), "words": gym("spell_backward", train_size=4)})
    for problem in task.problems("train"):
        assert task.is_right(problem.gold, problem) and problem.columns["entry"]["question"] == problem.question


def test_the_documented_reward_gives_partial_marks(gym):
    (problem,) = gym("spell_backward", train_size=1).problems("train")
    names = {}
    exec(fenced("docs/tasks.md", "python", "# partial.py"), names)
    near = problem.gold[:-1] + "#"
    answers = [f"Let me see. ##### {problem.gold}", f"##### {near}", "no delimiter"]
    right, partial, none = names["marks"](answers, [problem.columns["entry"]] * 3)
    assert right == 1 and 0.5 < partial < 1 and none == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "spel_backward"}, "did you mean spell_backward"),
        ({"name": "gcd", "train_size": 0}, "train_size is 0"),
        ({"name": "gcd", "least_score": 0.0}, "least_score is 0.0"),
        ({"name": "gcd", "least_score": 1.5}, "least_score is 1.5"),
    ],
)
def test_bad_options_are_refused(gym, options, message):
    with pytest.raises(TaskError, match=message):
        gym(**options)
    with pytest.raises(TaskError, match="splits train and test, not 'dev'"):
        gym("gcd").problems("dev")


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(reasoning_gym, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"pip install 'atmanrl\[reasoning-gym\]'"):
        ReasoningGym("gcd")
