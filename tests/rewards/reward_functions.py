"""Reward functions as a user of TRL writes them; they run in a process of their own."""

import asyncio
import contextlib
import os
import sys
import time


def sees_everything(prompts, completions, completion_ids, **columns):
    """Shows what it was given."""
    columns["log_extra"]("seen", [str(c) for c in zip(prompts, completions, strict=True)])
    columns["log_extra"]("names", [" ".join(sorted(columns))] * len(prompts))
    columns["log_metric"]("my/step", columns["trainer_state"].global_step)
    columns["log_metric"]("my/step", columns["trainer_state"].max_steps)
    return [len(ids) + float(gold) for ids, gold in zip(completion_ids, columns["solution"], strict=True)]


def abstains(completions, **_):
    return [None if "so" in c else 1.0 for c in completions]


def variable(name, **_):
    return os.environ.get(name)


async def later(completions, **_):
    await asyncio.sleep(0.001)
    return [float(len(c)) for c in completions]


CLIENT = asyncio.Queue(1)
"""Belongs to the loop in which it was waited for first, as a connection does."""


async def with_a_client(completions, **_):
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(CLIENT.get(), 0.001)
    return [1.0] * len(completions)


def as_tensor(completions, **_):
    import torch  # here, as every process that runs a function of this file would wait for it

    return torch.tensor([float(len(c)) for c in completions], requires_grad=True)


def as_array(completions, **_):
    import numpy as np

    return np.array([len(c) for c in completions])


def as_scalars(completions, **_):
    import torch

    return [torch.tensor(float(len(c))) for c in completions]


def one_by_one(completions, **_):
    return (len(c) for c in completions)


def by_level(completions, level, **columns):
    assert columns["gold"] == ["mine"] * len(completions), columns
    return level


def where(completions, **_):
    return [float(os.getpid())] * len(completions)


def heavy(completions, **_):
    return [float("torch" in sys.modules or "transformers" in sys.modules)] * len(completions)


def stumbles(completions, **_):
    return [1 / (len(c) - len("so ##### 4")) for c in completions]


def loops(completions, **_):
    while any("so" in c for c in completions):
        pass
    return [0.0] * len(completions)


def sleeps(completions, **_):
    time.sleep(30 if any("so" in c for c in completions) else 0)
    return [0.0] * len(completions)


def dies(completions, **_):
    os._exit(3)


def gives_too_few(completions, **_):
    return [1.0] * (len(completions) - 1)


def gives_a_function(completions, **_):
    return lambda: None


no_function = 7
