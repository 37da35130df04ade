"""`RolloutDataModule`: which problems, in which order, and rollouts that depend on nothing but their seeds."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from atmanrl.errors import UserError
from atmanrl.rollouts import Completion, RolloutBatch, RolloutDataModule, Sampler
from atmanrl.rollouts.datamodule import ProblemBatch
from atmanrl.rollouts.order import EpochOrder
from atmanrl.tasks import WordProblems

TASK = WordProblems(train_size=26, test_size=9, instruction="")


def data(**options) -> RolloutDataModule:
    options = {"queries_per_device": 3, "group_size": 2, "max_new_tokens": 4, "val_problems": 5} | options
    return RolloutDataModule(**({"task": TASK} | options))


def said(batch: RolloutBatch) -> list[tuple]:
    return [(r.row, r.sample, r.completion.ids, r.completion.logprobs) for r in batch.rollouts]


class Recorder(LightningModule):
    """Takes rollouts and notes them; one optimizer step a batch, so that `global_step` counts them."""

    def __init__(self, policy) -> None:
        super().__init__()
        self.policy, self.automatic_optimization = policy, False
        self.train_batches: dict[int, list[RolloutBatch]] = {}
        self.other_batches: list[RolloutBatch] = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.policy.parameters(), lr=0.0)

    def training_step(self, batch, batch_idx):
        self.train_batches.setdefault(self.current_epoch, []).append(batch)
        self.optimizers().step()

    def validation_step(self, batch, batch_idx):
        self.other_batches.append(batch)

    test_step = predict_step = validation_step

    def rows(self, epoch: int) -> list[int]:
        return [r.row for batch in self.train_batches[epoch] for r in batch.rollouts[:: batch.group_size]]


def trainer(**options) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", devices=1, logger=False, **(quiet | options))


def test_the_held_out_slice():
    module = data()
    module.setup("fit")
    train, val = dict(module.rows["train"]), dict(module.rows["val"])
    assert len(val) == 5 and len(train) == 21 and not set(train) & set(val)
    problems = TASK.problems("train")
    assert all(problems[row] == problem for row, problem in [*train.items(), *val.items()])
    assert list(val) != sorted(val)[:5] != list(range(5))  # drawn, not the first ones
    before = {name: list(rows) for name, rows in module.rows.items()}
    module.setup("validate")
    assert module.rows == before and "test" not in module.rows
    same, other = data(), data(seed=1)
    same.setup("validate")
    other.setup("fit")
    assert same.rows == before and other.rows["val"] != before["val"]


def test_the_drawn_test_problems():
    few, all_of_them = data(test_problems=4), data(test_problems=100)
    few.setup("test")
    all_of_them.setup("predict")
    assert len(few.rows["test"]) == 4 and few.rows["test"] == all_of_them.rows["test"][:4]
    assert sorted(row for row, _ in all_of_them.rows["test"]) == list(range(9)) and set(few.rows) == {"test"}
    assert {p.id.split("/")[2] for _, p in few.rows["test"]} == {"test"}


def test_the_order_of_an_epoch():
    done = 0
    order = EpochOrder(20, seed=3, done=lambda: done)
    first = list(order)
    assert sorted(first) == list(range(20)) and first == list(order) == list(EpochOrder(20, 3, lambda: 0))
    order.set_epoch(1)
    second = list(order)
    assert sorted(second) == list(range(20)) and second != first
    assert list(EpochOrder(20, 4, lambda: 0)) not in (first, second)
    done = 6
    assert list(order) == second[6:] and len(order) == 20
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    list(order)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_seed_draws_the_order_and_what_stands_in_reserve(monkeypatch):
    """With the same problems held out, so that it is not these that make the difference."""
    from atmanrl.rollouts import datamodule

    modules, orders, spares = [data(resample_zero_spread=1) for _ in range(3)], [], []
    monkeypatch.setattr(datamodule, "resample", lambda batch, spare, *_: spares.append(spare))
    for module, seed in zip(modules, (0, 0, 1), strict=True):
        module.setup("fit")
        module.seed = seed
        orders.append(list(module.train_dataloader().sampler))
        monkeypatch.setattr(module, "answer", lambda *_: None)
        module._answered(None, ProblemBatch(module.rows["train"][:3]), SimpleNamespace(training=True, global_step=0))
    assert orders[0] == orders[1] != orders[2] and spares[0] == spares[1] != spares[2]


@pytest.mark.parametrize("name", ["queries_per_device", "max_new_tokens", "val_problems", "test_problems",
                                  "eval_samples", "eval_queries", "temperature"])  # fmt: skip
def test_wrong_options_are_named(name):
    for value in (0, -1):
        with pytest.raises(UserError, match=rf"data\.{name} is {value}"):
            data(**{name: value})


def test_wrong_combinations():
    with pytest.raises(UserError, match=r"data\.temperature is inf"):
        data(temperature=float("inf"))
    with pytest.raises(UserError, match=r"data\.group_size is 1"):
        data(group_size=1)
    for options in ({"task": None}, {"traces": "t.jsonl"}):
        with pytest.raises(UserError, match=r"data\.task .* or data\.traces"):
            data(**options)
    with pytest.raises(UserError, match=r"WordProblems has 26 training problems.*data\.val_problems=24"):
        data(val_problems=24).setup("fit")
    data(val_problems=23).setup("fit")


def test_answers_stand_in_whole_groups(tiny_policy):
    module, problems = data(), list(enumerate(TASK.problems("train")))[7:10]
    batch = module.answer(tiny_policy, ProblemBatch(problems), "train", 0, 4)
    assert len(batch) == 12 and batch.group_size == 4 and batch.seconds > 0
    for i, rollout in enumerate(batch.rollouts):
        row, problem = problems[i // 4]
        assert (rollout.row, rollout.sample, rollout.problem) == (row, i % 4, problem)
        assert rollout.prompt == problem.question and rollout.prompt_ids == tiny_policy.encode_prompt(problem.question)
        assert 1 <= len(rollout.completion.ids) <= 4 and rollout.correct is False
    assert len({tuple(r.completion.ids) for r in batch.rollouts}) == 12


def test_the_task_judges_what_follows_the_delimiter(tiny_policy):
    problem = TASK.problems("train")[0]
    texts = [f"so ##### {problem.gold}", f"so {problem.gold}", f"##### {int(problem.gold) + 1} not {problem.gold}"]
    ids = [tiny_policy.tokenizer(text).input_ids for text in texts]

    class Parrot(Sampler):
        def sample(self, policy, prompts, uniforms, options):
            assert options.max_new_tokens == uniforms.shape[2] == 4 and len(prompts) == 1
            return [[Completion(i, [0.0] * len(i), True) for i in ids]]

    batch = data(sampler=Parrot()).answer(tiny_policy, [(0, problem)], "train", 0, 3)
    assert [r.correct for r in batch.rollouts] == [True, False, False]
    assert [r.parts.cot for r in batch.rollouts] == ["so ", texts[1], ""]


def test_rollouts_depend_on_their_seeds_alone(tiny_policy):
    problems = list(enumerate(TASK.problems("train")))[:4]
    base = said(data().answer(tiny_policy, problems, "train", 5, 2))
    assert said(data().answer(tiny_policy, problems, "train", 5, 2)) == base
    alone = said(data().answer(tiny_policy, problems[2:3], "train", 5, 2))
    assert [entry[:3] for entry in alone] == [entry[:3] for entry in base[4:6]]
    for changed in (
        data().answer(tiny_policy, problems, "train", 6, 2),
        data().answer(tiny_policy, problems, "val", 5, 2),
        data(seed=1).answer(tiny_policy, problems, "train", 5, 2),
        data(temperature=3.0).answer(tiny_policy, problems, "train", 5, 2),
    ):
        assert not any(a[2] == b[2] for a, b in zip(said(changed), base, strict=True))


def test_two_epochs_in_a_trainer(tiny_policy):
    module, feed = Recorder(tiny_policy), data(eval_samples=3, eval_queries=4)
    trainer(max_epochs=2, num_sanity_val_steps=1).fit(module, feed)
    train = {row for row, _ in feed.rows["train"]}
    for epoch in (0, 1):
        assert all(len(b) == 6 and b.group_size == 2 for b in module.train_batches[epoch])
        assert sorted(module.rows(epoch)) == sorted(train)
    assert module.rows(0) != module.rows(1)
    first, second = (
        {(r.row, r.sample): r.completion.ids for b in module.train_batches[e] for r in b.rollouts} for e in (0, 1)
    )
    assert first.keys() == second.keys() and all(first[key] != second[key] for key in first)
    sanity, *rest = map(said, module.other_batches)
    assert [len(b) for b in module.other_batches] == [12, 12, 3, 12, 3]
    assert rest[:2] == rest[2:] and rest[0] == sanity
    assert {entry[0] for b in rest[:2] for entry in b} == {row for row, _ in feed.rows["val"]}


def test_a_restart_goes_on_where_the_run_stood(tiny_policy, tmp_path):
    whole, begun, ended = (Recorder(tiny_policy) for _ in range(3))
    trainer(max_epochs=2, limit_val_batches=0).fit(whole, data())
    saving = ModelCheckpoint(tmp_path, "c", every_n_train_steps=4)
    trainer(max_steps=4, limit_val_batches=0, enable_checkpointing=True, callbacks=saving).fit(begun, data())
    trainer(max_epochs=2, limit_val_batches=0).fit(ended, data(), ckpt_path=tmp_path / "c.ckpt", weights_only=False)
    assert len(begun.train_batches[0]) == 4 and len(ended.train_batches[0]) == 3
    resumed = {0: begun.train_batches[0] + ended.train_batches[0], 1: ended.train_batches[1]}
    for epoch in (0, 1):
        assert [said(b) for b in resumed[epoch]] == [said(b) for b in whole.train_batches[epoch]]


def test_stored_traces_are_predicted_on_and_nothing_else(tiny_policy, tmp_path):
    path, module = tmp_path / "t.jsonl", Recorder(tiny_policy)
    lines = [json.dumps({"prompt": f"{i}?", "cot": "a b", "gold": str(i)}) for i in range(5)]
    path.write_text("\n".join(lines))
    feed = data(task=None, traces=str(path), eval_queries=2)
    trainer().predict(module, feed)
    assert [(len(b), b.group_size) for b in module.other_batches] == [(2, 1), (2, 1), (1, 1)]
    rollouts = [r for b in module.other_batches for r in b.rollouts]
    assert [(r.row, r.prompt, r.parts.answer) for r in rollouts] == [(i, f"{i}?", str(i)) for i in range(5)]
    for command, loader in (("fit", feed.train_dataloader), ("validate", feed.val_dataloader)):
        with pytest.raises(UserError, match=rf"`{command}` samples from the live policy: give data\.task"):
            loader()
    path.write_text("\n\n")
    with pytest.raises(UserError, match=r"t\.jsonl holds no trace"):
        feed.predict_dataloader()
    module.other_batches.clear()
    trainer().predict(module, data(test_problems=3, eval_samples=2))
    (batch,) = module.other_batches
    again = [(r.row, r.problem) for r in batch.rollouts[::2]]
    assert said(batch) == said(data().answer(tiny_policy, again, "test", 0, 2))
