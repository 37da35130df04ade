"""How a worked reasoning is written: the same steps, told tersely, plainly or with much filler.

The laptop policy learns from these texts. Their verbosity is drawn at random and says nothing about the answer, so
that a policy trained on them has something to unlearn.
"""

from __future__ import annotations

from random import Random

from atmanrl.tasks.stories import Step

OPENINGS = (
    "Let me think about this step by step, and look at every number that is given in the question.",
    "Okay, first I want to understand what is being asked here, and then we can find the answer.",
    "This is not so hard if we are careful and go through what we know one thing after the other.",
)
FILLERS = (
    "That is what we need for the next part, so now we can go on with the rest of it.",
    "It is good to check this again before we go on, and it looks right to me.",
    "So far so good, but there is still something left to do before we are done.",
    "Now let me think about what comes next, because we will need this number for it.",
)
CLOSINGS = (
    "So that is the answer to the question, and I think that it is right.",
    "This is what was asked for, and with that we are done.",
    "Now we have everything that we need, and this is the answer.",
)
OPERATIONS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


def _amount(step: Step) -> str:
    return f"${step.result}" if step.money else f"{step.result} {step.unit}"


def tell(step: Step, verbosity: int, rng: Random) -> str:
    """Tell one step in words. Verbosity 0: the sum alone; 1: a sentence; 2: a sentence around an announced sum."""
    if verbosity == 0:
        return f"{step.expression} = {step.result}."
    if verbosity == 1:
        return f"{step.clause} {step.expression} = {step.result} {step.unit}."
    announce = rng.choice(("For this we {} the two numbers.", "Here we have to {}.", "To find this out we {}."))
    verb = OPERATIONS[step.expression.split()[1]]
    return f"{announce.format(verb)} {step.clause} {step.expression} = {step.result}, and that is {_amount(step)}."


def write(steps: tuple[Step, ...], rng: Random) -> str:
    """Write the whole reasoning for `steps`: every step, in order, with a verbosity that `rng` draws."""
    chatty = rng.choice((0.0, 0.15, 0.3, 0.55))
    sentences: list[str] = []
    if rng.random() < chatty * 1.5:
        sentences.append(rng.choice(OPENINGS))
    for number, step in enumerate(steps):
        verbosity = 2 if rng.random() < chatty * 0.6 else int(rng.random() < 0.5 + chatty)
        sentences.append(tell(step, verbosity, rng))
        if number + 1 < len(steps) and rng.random() < chatty:
            sentences.append(rng.choice(FILLERS))
    if rng.random() < chatty:
        sentences.append(rng.choice(CLOSINGS))
    return " ".join(sentences)
