"""Updates of a tiny policy in float64, the same on one process and on two. As a script: one process's part of them."""

import logging
import os
import sys
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from disk import full_disk
from launch import GROUP_TIMEOUT
from lightning import Trainer, seed_everything
from torch.distributed.device_mesh import init_device_mesh

from atmanrl.callbacks import RunCheckpoint
from atmanrl.distributed import FSDP2Strategy, full_weights, gathered, processes, unsharded
from atmanrl.distributed.sharding import build_sharded
from atmanrl.errors import UserError
from atmanrl.grpo import ClippedLoss, GRPOModule, scoring
from atmanrl.models.policy import LoRA, Policy
from atmanrl.models.token_scores import LOGITS_AT_ONCE, scores_at
from atmanrl.probe import MaskProbe
from atmanrl.probe.solvers import AdaptiveSolver, PaperSolver
from atmanrl.rewards import Reward, SaliencyReward
from atmanrl.rollouts import Completion, RolloutDataModule, split
from atmanrl.sft import SFTDataModule, SFTModule
from atmanrl.tasks import WordProblems

QUERIES, GROUP = 4, 2
SHARDED = "checkpoints/update_00001.ckpt"


class Lottery(Reward):
    """Luck, but the same luck for the same tokens."""

    def __call__(self, batch, policy):
        return torch.tensor([sum(r.completion.ids) % 7 / 7 for r in batch.rollouts])


class Parsed(Reward):
    """Luck for what parses, nothing for the rest, so that its groups are flat."""

    def __call__(self, batch, policy):
        return Lottery()(batch, policy) * torch.tensor([r.parts.answer is not None for r in batch.rollouts])


class Flat(Reward):
    """The same for all."""

    def __call__(self, batch, policy):
        return torch.ones(len(batch))


CASES = {
    "grpo": {},
    "ddp": {"strategy": "ddp", "updates": 2, "micro_batch_tokens": 150,
            "loss": ClippedLoss(beta=0.3, mask_truncated_completions=True)},
    "dapo": {"loss": ClippedLoss(loss_type="dapo", beta=0.3), "scale_rewards": "batch", "updates": 1,
             "logits_at_once": 9 * 768},
    "dr_grpo": {"updates": 2, "rescore": True, "loss": ClippedLoss(
        loss_type="dr_grpo", importance_sampling_level="sequence", mask_truncated_completions=True, beta=0.3)},
    "lora": {"lora": True, "updates": 2, "loss": ClippedLoss(beta=0.3)},
    "tied": {"tied": True, "activation_checkpointing": True, "updates": 1, "rewards": {"parsed": Parsed()},
             "zero_spread_groups": "drop"},
    "calibrated": {"updates": 2, "rewards": {"saliency": SaliencyReward(probe=MaskProbe(solver=AdaptiveSolver(
        steps=6, lr=1e-2, first_interval=2, max_interval=3, agreement=0.99, check_share=0.2)))}},
    "idle": {"updates": 1, "rewards": {"flat": Flat()}, "zero_spread_groups": "drop"},
    "idle_ddp": {"strategy": "ddp", "updates": 1, "rewards": {"flat": Flat()}, "zero_spread_groups": "drop"},
}  # fmt: skip


class Ragged(RolloutDataModule):
    """The first half of an update's problems get long answers, of the second half none parses."""

    def __init__(self, **options) -> None:
        task = WordProblems(train_size=30, test_size=5, instruction="")
        defaults = {"group_size": GROUP, "max_new_tokens": 6, "val_problems": 5, "eval_samples": 2, "eval_queries": 2}
        super().__init__(task, queries_per_device=QUERIES // processes_to_be(), **(defaults | options))

    def answer(self, policy, problems, split_name, *args):
        batch = super().answer(policy, problems, split_name, *args)
        if split_name == "train":
            for i, rollout in enumerate(batch.rollouts):
                place = (i + processes().rank * len(batch)) // GROUP
                if place < QUERIES // 2:
                    text = f"so {i % GROUP} + 4 = {rollout.row}. " * (3 + 2 * place) + f"##### {rollout.row}"
                    ids = [*policy.tokenizer(text).input_ids, policy.eos_ids[0]]
                    rollout.completion = Completion(ids, [-6.6] * len(ids), True)
                    rollout.parts, rollout.correct = split(policy.tokenizer, ids), rollout.row % 2 == 0
        return batch


def processes_to_be() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def strategy_of(name: str, **options):
    if processes_to_be() == 1:
        return "auto"
    return "ddp" if name == "ddp" else FSDP2Strategy(timeout_seconds=GROUP_TIMEOUT, **options)


def trainer_of(folder: Path, strategy, updates: int, **options) -> Trainer:
    defaults = {"accelerator": "cpu", "devices": processes_to_be(), "logger": False, "enable_progress_bar": False}
    defaults |= {"enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return Trainer(strategy=strategy, max_steps=updates, default_root_dir=folder, **(defaults | options))


def module_of(policy: Policy, lr: float = 1e-3, **options) -> GRPOModule:
    rewards = {"lottery": Lottery(), "saliency": SaliencyReward(probe=MaskProbe(solver=PaperSolver(steps=3, lr=1e-2)))}
    defaults = {"rewards": rewards, "minibatch_queries": QUERIES // 2 // processes_to_be(), "micro_batch_tokens": 100}
    return GRPOModule(policy, optimizer=lambda p: torch.optim.AdamW(p, lr=lr), **(defaults | options))


def run(folder: Path, strategy="fsdp2", updates=3, lora=False, tied=False, activation_checkpointing=False,
        logits_at_once=LOGITS_AT_ONCE, **options):  # fmt: skip
    """Some updates and an evaluation; what they did, on rank 0."""
    seed_everything(1, verbose=False)
    scoring.scores_at = partial(scores_at, most=logits_at_once)
    lora = LoRA(r=2, alpha=8) if lora else None
    source = str(folder / ("tied" if tied else "tiny"))
    policy = Policy(source, dtype="float64", lora=lora, activation_checkpointing=activation_checkpointing)
    feed, module = Ragged(), module_of(policy, evaluate_all_rewards=True, **options)
    trainer = trainer_of(folder, strategy_of(strategy), updates, limit_val_batches=0)
    experiences = []
    step = module.training_step
    module.training_step = lambda *args: (
        experiences.append(step(*args)["experience"]) or {"experience": experiences[-1]}
    )
    trainer.fit(module, feed)
    logged = {k: float(v) for k, v in trainer.callback_metrics.items() if "time" not in k and "seconds" not in k}
    weights = full_weights(policy.model)
    trainer.limit_val_batches = 1.0
    (found,) = trainer.validate(module, feed, verbose=False)
    if lora and processes().count > 1:
        save_adapters(policy, folder)
    return {
        "tokens": [[r.completion.ids for r in experience.rollouts] for experience in experiences],
        "rewards": [[r.rewards for r in experience.rollouts] for experience in experiences],
        "logged": logged, "evaluated": {k: v for k, v in found.items() if "seconds" not in k},
        "learned": {name: reward.state_dict() for name, reward in module.rewards.items()},
        "weights": weights, "steps": trainer.global_step,
    }  # fmt: skip


def save_adapters(policy: Policy, folder: Path) -> None:
    """Merged, and alone."""
    for kind in ("merged", "adapter"):
        policy.lora = LoRA(r=2, alpha=8, export=kind)
        exported = unsharded(policy)
        if processes().rank == 0:
            exported.save(folder / kind)


def moves(folder: Path, precision: str, dtype: str) -> float:
    """The share of weights that differ after three updates at the paper's learning rate."""
    policy = Policy(str(folder / "tiny"), dtype=dtype)
    module = module_of(policy, lr=8e-7)
    trainer = trainer_of(folder, strategy_of("fsdp2"), 3, precision=precision, limit_val_batches=0)
    trainer.fit(module, Ragged())
    before = Policy(str(folder / "tiny"), dtype=dtype).build().model.state_dict()
    after = full_weights(policy.model)
    changed = sum(int((after[name] != w).sum()) for name, w in before.items() if name in after)
    return changed / sum(w.numel() for w in before.values())


def sharded_resume(folder: Path) -> dict:
    """A sharded checkpoint of one update, then two more updates of a new trainer; and another model's checkpoint."""
    policy = Policy(str(folder / "tiny"), dtype="float64")
    saved = {"callbacks": [RunCheckpoint(every_n_updates=1, keep=-1)], "enable_checkpointing": True}
    first = trainer_of(folder, strategy_of("fsdp2", sharded_checkpoints=True), 1, limit_val_batches=0, **saved)
    first.fit(module_of(policy), Ragged())
    again = Policy(str(folder / "tiny"), dtype="float64")
    options = {"limit_val_batches": 0}
    second = trainer_of(folder, strategy_of("fsdp2", sharded_checkpoints=True), 3, **options)
    second.fit(module_of(again), Ragged(), ckpt_path=folder / SHARDED)
    errors = []
    for path in (SHARDED, "full.ckpt"):
        other = trainer_of(folder, strategy_of("fsdp2"), 3, **options)
        try:
            other.fit(module_of(Policy(str(folder / "wide"), dtype="float64")), Ragged(), ckpt_path=folder / path)
        except UserError as error:
            errors.append(str(error))
    return {"weights": full_weights(again.model), "errors": errors}


def disk_gets_full(folder: Path, sharded: bool) -> list[str]:
    """What a process is told when one of them finds the disk full at the second checkpoint, and what is left then."""
    place = folder / f"full_disk_{sharded}"
    saved = {"callbacks": [RunCheckpoint(every_n_updates=1)], "enable_checkpointing": True, "limit_val_batches": 0}
    trainer = trainer_of(place, strategy_of("fsdp2", sharded_checkpoints=sharded), 3, **saved)
    module = module_of(Policy(str(folder / "tiny"), dtype="float64"))
    step = module.training_step
    with ExitStack() as stack:

        def filling(*args):
            step(*args)
            if trainer.global_step == 2 and processes().rank == int(sharded):
                stack.enter_context(full_disk())

        module.training_step = filling
        try:
            trainer.fit(module, Ragged())
        except UserError as error:
            found = str(error)
    dist.barrier()
    return [found, *sorted(p.name for p in (place / "checkpoints").iterdir())]


def refused(folder: Path) -> list[str]:
    """What cannot be is said by every process, before anything waits for anything."""
    errors = []
    too_few = {"data": Ragged(val_problems=1)}, {"data": Ragged(val_problems=28)}
    attempts = [(trainer_of(folder, strategy_of("fsdp2"), 1), module_of(Policy(str(folder / "tiny"))), d["data"])
                for d in too_few]  # fmt: skip
    attempts.append((trainer_of(folder, strategy_of("fsdp2"), 1), MaskProbe(Policy(str(folder / "tiny"))), Ragged()))
    half = trainer_of(folder, strategy_of("fsdp2"), 1, precision="bf16-true")
    attempts.append((half, module_of(Policy(str(folder / "tiny"))), Ragged()))
    warm = SFTDataModule(WordProblems(train_size=30, test_size=5, instruction=""), val_problems=5)
    attempts.append((trainer_of(folder, strategy_of("fsdp2"), 1), SFTModule(Policy(str(folder / "tiny"))), warm))
    for trainer, module, data in attempts:
        try:
            trainer.fit(module, data)
        except UserError as error:
            errors.append(str(error))
    return errors


def gathered_alone(folder: Path) -> dict:
    """A sharded policy gathered in inference mode, as in validation, and run by one of the processes alone."""
    mesh = init_device_mesh("cpu", (processes().count,))
    policy = build_sharded(Policy(str(folder / "tied"), dtype="float64"), mesh, torch.device("cpu"))
    sharded, ids, found = policy.model, torch.arange(3, 15)[None], {}
    with torch.inference_mode(), gathered(policy), gathered(policy), torch.inference_mode(False), torch.enable_grad():
        if processes().rank == 0:
            embedded = policy.model.get_input_embeddings()(ids).clone().requires_grad_()
            logits = policy.model(inputs_embeds=embedded, use_cache=False).logits
            (slope,) = torch.autograd.grad(logits.sum(), embedded)
            found = {"logits": logits.detach(), "slope": slope}
    found["learning"] = any(w.requires_grad for w in policy.model.parameters()) and policy.model is sharded
    found["slices"] = sum(w.to_local().numel() for w in sharded.parameters())
    return found


def quiet() -> None:
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main(folder: Path) -> None:
    quiet()
    torch.set_num_threads(1)
    found = {name: run(folder, **case) for name, case in CASES.items()}
    found["moved"] = {
        "fp32 masters": moves(folder, "bf16-mixed", "float32"),
        "bf16": moves(folder, "32-true", "bfloat16"),
    }
    found["sharded"] = sharded_resume(folder)
    found["full_disk"] = [disk_gets_full(folder, sharded) for sharded in (False, True)]
    found["gathered"] = gathered_alone(folder)
    found["refused"] = refused(folder)
    torch.save(found, folder / f"found{processes().rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
