"""Groups without spread make way for groups of other problems."""

from dataclasses import replace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from test_datamodule import TASK, Recorder, data, said, trainer

from atmanrl.errors import UserError
from atmanrl.rollouts import Completion, Parts, Rollout, RolloutBatch
from atmanrl.rollouts.resampling import resample, reserves, zero_spread
from atmanrl.tasks import WordProblems

ROWS = list(enumerate(TASK.problems("train")))
MANY = list(enumerate(WordProblems(train_size=90, test_size=1).problems("train")))


def answered(rows, right) -> RolloutBatch:
    """Groups of two; `right` says of each row which of its answers are right."""
    rollouts = [
        Rollout(problem, row, s, "", [], Completion([], [], True), Parts("", "", None, 0), right(row)[s])
        for row, problem in rows
        for s in (0, 1)
    ]
    return RolloutBatch(rollouts, 2, seconds=1.0, update=3)


def even(row):
    return (True, False) if row % 2 == 0 else (True, True)


def asked(batch):
    return [r.row for r in batch.rollouts[::2]]


def test_groups_without_spread():
    kinds = {0: (True, False), 1: (True, True), 2: (False, False), 3: (False, True)}
    batch = answered(ROWS[:4], lambda row: kinds[row])
    assert zero_spread(batch) == [1, 2]
    batch.rollouts[4].correct = None
    assert zero_spread(batch) == [1, 2]


def replaced(batch, rows, answer, rounds, key):
    return resample(batch, reserves(rows, asked(batch), key), answer, rounds)


def test_they_are_replaced_in_place_until_there_is_spread():
    batch, calls = answered(ROWS[:6], even), []

    def answer(rows):
        calls.append([row for row, _ in rows])
        return answered(rows, even)

    found = replaced(batch, MANY, answer, 9, "key")
    assert asked(found)[::2] == [0, 2, 4] and not any(row % 2 for row in asked(found))
    assert len(calls) > 1 and len(calls[0]) == 3 and len(set(sum(calls, [])) | set(range(6))) == len(sum(calls, [])) + 6
    assert found.seconds == 1 + len(calls) and found.update == 3 and found.group_size == 2
    assert found.metrics == {"resampled/groups": len(sum(calls, [])) / 6, "resampled/left": 0.0}
    assert asked(batch) == [0, 1, 2, 3, 4, 5]  # the batch itself is left alone
    again, other = (asked(replaced(batch, MANY, answer, 9, key)) for key in ("key", "k"))
    assert again == asked(found) != other
    del calls[:]
    once = replaced(batch, MANY, answer, 1, "key")
    assert set(calls[0]) <= set(asked(once)) and once.metrics["resampled/groups"] == 0.5
    assert once.metrics["resampled/left"] == len(zero_spread(once)) / 6 > 0


def test_there_may_be_no_other_problem():
    batch = answered(ROWS[:3], lambda row: (False, False))
    found = replaced(batch, ROWS[:4], lambda rows: answered(rows, lambda row: (False, False)), 5, "key")
    assert found.metrics == {"resampled/groups": 1 / 3, "resampled/left": 1.0} and sorted(asked(found))[-1] == 3
    assert reserves(ROWS[:2], [0, 1], "key") == [[], []]
    spread = answered(ROWS[:3], lambda row: (True, False))
    assert replaced(spread, ROWS, None, 5, "key") == replace(
        spread, metrics={"resampled/groups": 0, "resampled/left": 0}
    )


def test_processes_that_resample_by_themselves_do_what_one_would():
    """Each needs a different number of rounds, and none asks what another asks."""
    batch, rows = answered(ROWS[:6], even), reserves(MANY, range(6), "key")
    assert len({row for reserve in rows for row, _ in reserve} | set(range(6))) == len(MANY) == sum(map(len, rows)) + 6
    whole = resample(batch, rows, lambda more: answered(more, even), 9)
    halves = [
        resample(answered(ROWS[k : k + 3], even), rows[k : k + 3], lambda more: answered(more, even), 9) for k in (0, 3)
    ]
    assert sum(map(asked, halves), []) == asked(whole)
    assert sum(half.metrics["resampled/groups"] for half in halves) / 2 == whole.metrics["resampled/groups"]


def test_a_run_with_resampling_is_the_same_after_a_restart(tiny_policy, tmp_path):
    """Everything is wrong here, so that every group is replaced; the epoch's own order must not move."""

    def rows(recorder):
        return [r.row for batches in recorder.train_batches.values() for b in batches for r in b.rollouts[::2]]

    plain, whole, begun, ended = (Recorder(tiny_policy) for _ in range(4))
    trainer(max_steps=6, limit_val_batches=0).fit(plain, data())
    options = {"resample_zero_spread": 2}
    trainer(max_steps=6, limit_val_batches=0).fit(whole, data(**options))
    saving = ModelCheckpoint(tmp_path, "c", every_n_train_steps=4)
    trainer(max_steps=4, limit_val_batches=0, enable_checkpointing=True, callbacks=saving).fit(begun, data(**options))
    trainer(max_steps=6, limit_val_batches=0).fit(
        ended, data(**options), ckpt_path=tmp_path / "c.ckpt", weights_only=False
    )
    resumed = begun.train_batches[0] + ended.train_batches[0]
    assert [said(b) for b in resumed] == [said(b) for b in whole.train_batches[0]]
    assert all(b.metrics["resampled/groups"] == 2 for b in resumed)
    assert rows(whole) != rows(plain) and not set(rows(whole)) & {row for row, _ in held_out()}
    assert [b.update for b in resumed] == [0, 1, 2, 3, 4, 5] and {b.updates for b in ended.train_batches[0]} == {6}


def held_out():
    module = data()
    module.setup("fit")
    return module.rows["val"]


def test_evaluation_is_not_resampled(tiny_policy):
    few, none = Recorder(tiny_policy), Recorder(tiny_policy)
    trainer().validate(few, data(resample_zero_spread=2), verbose=False)
    trainer().validate(none, data(), verbose=False)
    assert [said(b) for b in few.other_batches] == [said(b) for b in none.other_batches]
    assert not few.other_batches[0].metrics


def test_wrong_options():
    with pytest.raises(UserError, match=r"data\.resample_zero_spread is -1"):
        data(resample_zero_spread=-1)
    for string in ("", "##", "#####"):
        with pytest.raises(UserError, match=rf"data\.stop holds '{string}'"):
            data(stop=["\n\n", string])
    for name, value in {"top_k": -1, "top_p": 0.0, "min_p": 2.0}.items():
        with pytest.raises(UserError, match=rf"data\.{name} is {value}"):
            data(**{name: value})


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_truncation_reaches_the_sampler(tiny_policy, options):
    free = data().answer(tiny_policy, ROWS[:2], "train", 0, 4)
    batch = data(**options).answer(tiny_policy, ROWS[:2], "train", 0, 4)
    said = [[tuple(r.completion.ids) for r in made.rollouts[:4]] for made in (free, batch)]
    assert len(set(said[0])) == 4 and len(set(said[1])) == 1  # nothing is left but the likeliest tokens


def test_stop_strings_reach_the_sampler(tiny_policy):
    def ended(**options):
        batch = data(max_new_tokens=8, **options).answer(tiny_policy, ROWS[:2], "train", 0, 4)
        return [any(c in r.parts.text for c in "east1") for r in batch.rollouts if r.completion.finished]

    assert not any(ended()) and len(ended()) < 8
    found = ended(stop=list("east1"))
    assert len(found) > len(ended()) and sum(found) > 3
