"""Tasks: what is asked, and when an answer is right. A plugin point: subclass `Task` in a module of your own."""

from atmanrl.tasks.base import DELIMITER, INSTRUCTION, Problem, Split, Task, TaskError
from atmanrl.tasks.gsm8k import GSM8K
from atmanrl.tasks.mixture import MixtureTask
from atmanrl.tasks.mmlu import MMLU
from atmanrl.tasks.multihop import MultiHop
from atmanrl.tasks.reasoning_gym import ReasoningGym
from atmanrl.tasks.wordproblems import WordProblems

__all__ = [
    "DELIMITER",
    "GSM8K",
    "INSTRUCTION",
    "MMLU",
    "MixtureTask",
    "MultiHop",
    "Problem",
    "ReasoningGym",
    "Split",
    "Task",
    "TaskError",
    "WordProblems",
]
