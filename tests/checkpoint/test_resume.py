"""What a run that goes on may change: it counts from there, or is refused by name."""

import json
import shutil
from datetime import date

import pytest
import torch
import yaml
from conftest import ROOT
from lightning.pytorch.callbacks import EarlyStopping
from small_model import DATA, Small, train
from torch.optim.lr_scheduler import ExponentialLR

from atmanrl.__main__ import main
from atmanrl.callbacks import RunCheckpoint
from atmanrl.checkpoint.reading import CheckpointError
from atmanrl.commands.run_folder import recorded_date
from atmanrl.grpo import WarmupSchedule
from atmanrl.models.policy import Policy


class Asked(Small):
    """A small model with the optimizer and the schedule that it is given."""

    def __init__(self, optimizer, schedule=None):
        super().__init__()
        torch.manual_seed(5)
        torch.nn.init.normal_(self.layer.weight)
        self.optimizer, self.schedule, self.lrs = optimizer, schedule, []

    def training_step(self, batch, index):
        self.lrs.append(self.optimizers().param_groups[0]["lr"])
        super().training_step(batch, index)
        if self.schedule is not None:
            self.lr_schedulers().step()

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters())
        return (
            optimizer if self.schedule is None else {"optimizer": optimizer, "lr_scheduler": self.schedule(optimizer)}
        )


def sgd(**options):
    return lambda parameters: torch.optim.SGD(parameters, **{"lr": 0.1, **options})


def adamw(**options):
    return lambda parameters: torch.optim.AdamW(parameters, **{"lr": 0.1, **options})


def warmup(**options):
    return lambda optimizer: WarmupSchedule(optimizer, **{"shape": "linear", "total_updates": 10, **options})


def exponential(gamma):
    return lambda optimizer: ExponentialLR(optimizer, gamma)


def resumed(folder, before, after, updates=4):
    """Two updates of one module, and the rest of another that goes on from there."""
    train(folder / "first", Asked(*before), 2)
    module = Asked(*after)
    train(folder / "second", module, updates, ckpt_path=str(folder / "first/checkpoints/update_00002.ckpt"))
    return module


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        (sgd(), sgd(lr=0.001), "lr"),
        (sgd(momentum=0.9), sgd(momentum=0.5), "momentum"),
        (sgd(), sgd(momentum=0.5), "momentum"),
        (adamw(), adamw(weight_decay=0.3), "weight_decay"),
        (adamw(), adamw(betas=(0.5, 0.9)), "betas"),
    ],
)
def test_what_is_given_of_the_optimizer_counts(tmp_path, capsys, before, after, name):
    module = resumed(tmp_path, (before,), (after,))
    group, expected = module.optimizers().param_groups[0], after(module.parameters()).param_groups[0]
    assert {n: v for n, v in group.items() if n != "params"} | {"betas": None} == {
        n: v for n, v in expected.items() if n != "params"
    } | {"betas": None}
    assert list(group.get("betas", ())) == list(expected.get("betas", ()))
    assert f"model.optimizer.{name} is" in capsys.readouterr().err
    assert module.lrs == [expected["lr"]] * 2


def test_a_learning_rate_counts_under_a_schedule(tmp_path):
    module = resumed(tmp_path, (sgd(), warmup()), (sgd(lr=1.0), warmup()))
    assert module.lrs == pytest.approx([0.8, 0.7])


def test_a_schedule_of_ours_counts_from_the_first_update_on(tmp_path):
    module = resumed(tmp_path, (sgd(), warmup()), (sgd(), warmup(total_updates=4)))
    assert module.lrs == pytest.approx([0.05, 0.025])


def test_nothing_changes_where_nothing_else_is_given(tmp_path, capsys):
    for number, options in enumerate([(sgd(momentum=0.9), warmup()), (adamw(), exponential(0.9)), (adamw(),)]):
        whole = Asked(*options)
        train(tmp_path / f"whole{number}", whole, 4)
        again = resumed(tmp_path / f"{number}", options, options)
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
        assert again.lrs == whole.lrs[2:]
    assert "what is given now counts" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ((sgd(),), (adamw(),), "model.optimizer is 'AdamW' and was 'SGD'"),
        ((adamw(),), (lambda p: torch.optim.Adam(p, lr=0.1),), "model.optimizer is 'Adam' and was 'AdamW'"),
        ((adamw(),), (adamw(amsgrad=True),), "model.optimizer.amsgrad is True and was False"),
        ((sgd(),), (sgd(), warmup()), "model.lr_scheduler is 'WarmupSchedule' and was 'none'"),
        ((sgd(), warmup()), (sgd(),), "model.lr_scheduler is 'none' and was 'WarmupSchedule'"),
        ((sgd(), exponential(0.9)), (sgd(), exponential(0.5)), "model.lr_scheduler.gamma is 0.5 and was 0.9"),
        ((sgd(), exponential(0.9)), (sgd(lr=1.0), exponential(0.9)), "model.optimizer.lr is 1.0 and was 0.1"),
    ],
)
def test_what_cannot_change_on_the_way_is_refused(tmp_path, before, after, says):
    with pytest.raises(CheckpointError, match=says.replace(".", r"\.")):
        resumed(tmp_path, before, after)
    assert not (tmp_path / "second/metrics.csv").exists()


def test_the_options_of_a_callback_count(tmp_path, monkeypatch):
    """Lightning's own keeps its patience in the checkpoint."""
    stops = [EarlyStopping("loss", patience=3), EarlyStopping("loss", patience=7)]
    setup = RunCheckpoint.setup

    def with_stop(self, trainer, pl_module, stage):
        trainer.callbacks.append(stops[number])
        setup(self, trainer, pl_module, stage)

    monkeypatch.setattr(RunCheckpoint, "setup", with_stop)
    for number in (0, 1):
        path = str(tmp_path / "0/checkpoints/update_00002.ckpt") if number else None
        train(tmp_path / str(number), Asked(sgd(lr=1e-6)), 2 + number, ckpt_path=path, data=DATA)
    assert stops[1].patience == 7


SMALL = [
    "--data.queries_per_device=2", "--data.group_size=2", "--data.max_new_tokens=8", "--data.val_problems=2",
    "--data.eval_samples=1", "--data.task.train_size=20", "--data.task.test_size=2", "--checkpoint.every_n_updates=1",
    "--trainer.val_check_interval=100", "--trainer.enable_progress_bar=false",
]  # fmt: skip


def fit(folder, policy, updates, *more):
    config = ["--config", str(ROOT / "configs/laptop_baseline.yaml"), f"--model.policy.path={policy}"]
    return main(
        ["fit", *config, f"--trainer.default_root_dir={folder}", f"--trainer.max_steps={updates}", *SMALL, *more]
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_folder):
    """A run of one update by the command line."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert fit(folder, tiny_folder, 1) == 0
    return folder


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--data.queries_per_device=3", "data.queries_per_device (times the number of processes) is 3 and was 2"),
        ("--data.seed=1", "data.seed is 1 and was 0"),
        ("--data.val_problems=3", "data.val_problems is 3 and was 2"),
        ("--data.task.train_size=21", "task (a digest of its problems)"),
        ("--data.task.seed=3", "task (a digest of its problems)"),
        ("--seed_everything=3", "seed_everything is '3' and was '0'"),
        ("--model.optimizer.nesterov=maybe", "nesterov"),
    ],
)
def test_options_that_would_pass_problems_over_are_refused_and_nothing_is_touched(
    run, tiny_folder, tmp_path, capsys, option, says
):
    folder = shutil.copytree(run, tmp_path / "run", symlinks=True)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    try:
        assert fit(folder, tiny_folder, 2, option, "--ckpt_path=last") == 1
    except SystemExit as stop:
        assert stop.code == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error, error
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_another_start_is_refused_and_a_moved_one_is_not(run, tiny_folder, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run", symlinks=True)
    other = Policy(str(tiny_folder)).build()
    with torch.no_grad():
        other.model.lm_head.weight.mul_(1.5)
    other.save(tmp_path / "other")
    assert fit(folder, tmp_path / "other", 2, "--ckpt_path=last") == 1
    assert "began with other weights than those of" in capsys.readouterr().err
    moved = shutil.copytree(tiny_folder, tmp_path / "moved")
    assert fit(folder, moved, 2, "--ckpt_path=last") == 0


def test_the_prompts_of_a_run_keep_their_date(run, tiny_folder, tmp_path):
    """A chat template that asks for today's date is given the day on which the run began."""
    folder = shutil.copytree(run, tmp_path / "run", symlinks=True)
    config = folder / "config.yaml"
    options = yaml.safe_load(config.read_text())
    policy = options["model"]["init_args"]["policy"]["init_args"]
    assert policy["chat_template_date"] == date.today().isoformat()
    policy["chat_template_date"] = "2020-02-29"
    config.write_text(yaml.safe_dump(options))
    assert fit(folder, tiny_folder, 2, "--ckpt_path=last") == 0
    assert recorded_date(folder) == "2020-02-29"
    other = [f"--ckpt_path={folder}/checkpoints/update_00002.ckpt", "--data.temperature=0.5"]
    assert fit(tmp_path / "other", tiny_folder, 3, *other) == 0
    assert recorded_date(tmp_path / "other") == "2020-02-29"
    assert fit(folder, tiny_folder, 3, "--ckpt_path=last", "--model.policy.chat_template_date=2021-01-01") == 0
    assert recorded_date(folder) == "2021-01-01"


def test_the_record_tells_what_ran(run, tiny_folder, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run", symlinks=True)
    more = ("--model.optimizer.lr=0.001", "--data.temperature=0.5", "--ckpt_path=last")
    assert fit(folder, tiny_folder, 2, *more) == 0
    assert (
        "model.optimizer.init_args.lr" not in (said := capsys.readouterr().err)
        and "model.optimizer.lr is 0.001" in said
    )
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    lrs = [float(row[rows[0].index("lr")]) for row in rows[1:] if row[rows[0].index("reward")]]
    assert lrs == pytest.approx([0.15, 0.001])
    assert (
        yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["optimizer"]["init_args"]["lr"]
        == 0.001
    )
    (line,) = (folder / "resumed.jsonl").read_text().splitlines()
    changed = json.loads(line)["changed"]
    assert json.loads(line)["after_update"] == 1
    assert changed["model.init_args.optimizer.init_args.lr"] == [0.15, 0.001]
    assert changed["data.init_args.temperature"] == [1.0, 0.5] and changed["trainer.max_steps"] == [1, 2]
    assert fit(folder, tiny_folder, 2, *more) == 0
    assert len((folder / "resumed.jsonl").read_text().splitlines()) == 1
