"""The supervised warm start: its loss, its batches, and that it learns."""

import logging

import pytest
import torch
from lightning import Trainer

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.sft import ByLength, SFTDataModule, SFTModule
from atmanrl.tasks import DELIMITER, Problem, Task, WordProblems


class Sums(Task):
    """Ten problems of different lengths."""

    def __init__(self, solved: bool = True) -> None:
        super().__init__(instruction="")
        self.solved = solved

    def problems(self, split):
        solutions = ["1 + 1 = 2. " * (i + 1) for i in range(10)]
        return [Problem(f"p/{i}", f"{i}?", str(i), s.strip() if self.solved else None) for i, s in enumerate(solutions)]

    def is_right(self, answer, problem):
        return answer == problem.gold


def trainer(**options) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", devices=1, logger=False, num_sanity_val_steps=0, **(quiet | options))


class Watched(SFTModule):
    """Notes the loss of every step and the examples of every epoch."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.losses, self.batches = [], {}

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss.detach()))
        self.batches.setdefault(self.current_epoch, []).append([tuple(row.tolist()) for row in batch["input_ids"]])
        return loss


@pytest.fixture
def data(tiny_policy) -> SFTDataModule:
    """Set up for a policy without a trainer of its own."""
    module = SFTDataModule(Sums(), batch_size=4, val_problems=2)
    module.trainer = trainer()
    module.trainer.strategy._lightning_module = SFTModule(tiny_policy)
    module.setup("fit")
    return module


def test_an_example_is_a_turn_and_its_reply(data, tiny_policy):
    assert len(data.examples) == 10
    example = data.examples[3]
    assert tiny_policy.tokenizer.decode(example.prompt) == "<s>Question: 3?\nReasoning:"
    solution = " ".join(["1 + 1 = 2."] * 4)
    assert tiny_policy.tokenizer.decode(example.completion) == f" {solution}\n{DELIMITER} 3</s>"


def test_the_loss_is_that_of_hugging_face(data, tiny_policy):
    module = SFTModule(tiny_policy)
    batch = data.collate(data.examples[:5])
    labels = batch["input_ids"].masked_fill(~batch["learn"], -100)
    expected = tiny_policy.model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    loss = module.loss(batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    parameters = list(tiny_policy.parameters())
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (loss, expected))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))
    # padding and company change nothing: the mean over tokens of each alone
    each = [(float(module.loss(data.collate([e])).detach()), len(e.completion)) for e in data.examples[:5]]
    assert loss.item() == pytest.approx(sum(x * n for x, n in each) / sum(n for _, n in each), rel=1e-6)


def test_what_is_learned_is_the_reply_alone(data):
    batch = data.collate(data.examples[:5])
    for row, example in enumerate(data.examples[:5]):
        assert batch["input_ids"][row][batch["learn"][row]].tolist() == example.completion
        assert batch["attention_mask"][row].sum() == len(example)
        assert (batch["input_ids"][row, len(example) :] == data.pad_id).all()


@pytest.mark.parametrize(("count", "size", "window"), [(103, 8, 4), (64, 8, 32), (7, 8, 2), (33, 1, 3)])
def test_batches_of_like_lengths(count, size, window):
    lengths = [(i * 37) % 101 for i in range(count)]
    sampler = ByLength(lengths, size, seed=1, window=window)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    for batches in (first, second):
        drawn = sum(batches, [])
        assert len(batches) == len(sampler) == count // size and all(len(b) == size for b in batches)
        assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(count))
    assert first == list(ByLength(lengths, size, 1, window))
    if count > size:
        assert first != second and first != list(ByLength(lengths, size, 2, window))
    if count > 100:  # one window is 32 examples: a batch spans about a quarter of the lengths
        assert sum(max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in first) / len(first) < 40


def test_a_short_fit(tiny_folder):
    torch.manual_seed(0)
    module = Watched(Policy(str(tiny_folder), pretrained=False), lr=5e-3, warmup_steps=4)
    feed = SFTDataModule(WordProblems(train_size=60, test_size=1, instruction=""), batch_size=8, val_problems=12)
    run = trainer(max_steps=20)
    run.fit(module, feed)
    assert run.global_step == len(module.losses) == 20
    assert sum(module.losses[-3:]) / 3 < 0.8 * module.losses[0]
    assert float(run.callback_metrics["val/loss"]) < 0.8 * module.losses[0]
    held_out = {tuple(e.prompt) for e in feed.examples[-12:]}
    seen = {row[: len(p)] for epoch in module.batches.values() for b in epoch for row in b for p in held_out}
    assert not seen & held_out
    # linear warm-up, then a cosine down to a tenth
    scale = run.lr_scheduler_configs[0].scheduler.lr_lambdas[0]
    assert [scale(step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert scale(12) == pytest.approx(0.55) and scale(20) == scale(99) == pytest.approx(0.1)


def test_each_epoch_has_its_own_order(tiny_folder):
    module = Watched(Policy(str(tiny_folder)))
    trainer(max_epochs=2, limit_val_batches=0).fit(module, SFTDataModule(Sums(), batch_size=2, val_problems=2))
    first, second = module.batches[0], module.batches[1]
    assert len(first) == len(second) == 4 and len(set(sum(first, []))) == 8
    assert first != second


def test_being_set_up_again_changes_nothing(data):
    before = list(data.examples)
    data.setup("validate")
    assert data.examples == before


@pytest.mark.parametrize("held_out", [0, 10_000])
def test_holding_out_none_or_all_is_refused(data, held_out):
    data.val_problems = held_out
    with pytest.raises(UserError, match="val_problems"):
        data.setup("fit")


def test_problems_that_cannot_be_used(data):
    data.task = Sums(solved=False)
    with pytest.raises(UserError, match="p/0 has no worked solution: Sums"):
        data.setup("fit")
    data.task, data.val_problems, data.examples = Sums(), 10, []
    with pytest.raises(UserError, match="val_problems is 10; of the task's 10 problems"):
        data.setup("fit")
