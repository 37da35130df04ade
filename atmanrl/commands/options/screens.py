"""What the help of each command shows on one screen."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """An option on the screen.

    Attributes:
        example: as it may be typed.
        about: what it is.
        default: what it is without; None takes that of the signature.

    Example:
        `Entry("--data.group_size=8", "rollouts of each problem", None)`
    """

    example: str
    about: str
    default: str | None = None


POLICY = Entry(
    "--model.policy.path=Qwen/Qwen2.5-0.5B-Instruct", "a folder in Hugging Face format, or a name on the hub", "needed"
)
TASK = Entry("--data.task=GSM8K", "GSM8K, MMLU, MixtureTask, MultiHop, ReasoningGym, WordProblems, yours", "needed")
FOLDER = Entry("--trainer.default_root_dir=runs/mine", "the run's folder", "runs/unnamed")
TOKENS = Entry("--data.max_new_tokens=512", "longest completion; longer ones are cut off, and count as wrong")
SAMPLES = Entry("--data.eval_samples=4", "completions of each problem: pass@1 to pass@4")
WEIGHTS = Entry("--ckpt_path=runs/mine/checkpoints/last.ckpt", "takes a checkpoint's weights", "the policy's own")
MODEL = Entry("--model=Qwen/Qwen2.5-0.5B-Instruct", "a folder in Hugging Face format, or a name on the hub", "needed")
DELIMITER = Entry("--delimiter=####", "between reasoning and answer", "recognised")
SCREENS = {
    "fit": (
        "Train a policy: by GRPO, or with --model=SFTModule by worked solutions.",
        POLICY, TASK,
        Entry("--model.rewards.saliency=SaliencyReward", "a reward; name the others, too", "outcome alone"),
        Entry("--model.rewards.saliency.weight=0.5", "a reward's weight in the total", "1.0"),
        Entry("--model.rewards.saliency.probe.solver=AdaptiveSolver", "a sixth of the gradients of `paper`", "paper"),
        Entry("--model.rewards.saliency.probe.solver.tolerance=0.007", "of AdaptiveSolver: coarser is faster", "0.001"),
        Entry("--model.optimizer=AdamW", "any optimizer of torch.optim, with its options, such as ...", "AdamW"),
        Entry("--model.optimizer.lr=1e-6", "learning rate", "8e-7"),
        Entry("--trainer.max_steps=100", "updates; or epochs: --trainer.max_epochs=5", "1000 epochs"),
        Entry("--data.queries_per_device=8", "problems of an update"),
        Entry("--data.group_size=8", "completions of each problem"),
        TOKENS,
        Entry("--trainer.val_check_interval=20", "updates between evaluations", "an epoch"),
        FOLDER,
        Entry("--ckpt_path=last", "goes on with the run in that folder", "a new run"),
    ),
    "validate": (
        "Score problems that are held out of the training split.",
        POLICY, TASK, Entry("--data.val_problems=100", "how many"), SAMPLES, TOKENS, WEIGHTS, FOLDER,
    ),
    "test": (
        "Evaluate on test problems, as in the paper.",
        POLICY, TASK, Entry("--data.test_problems=500", "how many"), SAMPLES, TOKENS,
        Entry("--data.temperature=1.0", "of sampling"), WEIGHTS, FOLDER,
    ),
    "predict": (
        "Write rollouts of test problems with all their rewards.",
        POLICY, TASK, Entry("--data.test_problems=500", "how many"), SAMPLES, TOKENS,
        Entry("--model.rewards.saliency=SaliencyReward", "a reward; name the others, too", "outcome alone"), WEIGHTS, FOLDER,
    ),
    "explain": (
        "Let a model answer a question, and show how much each token of its reasoning matters to the answer.",
        MODEL,
        Entry('--prompt="How many are 3 and 4?"', "the user's turn", "needed"),
        Entry("--gold=7", "the right answer", "the model's own"),
        Entry('--cot=" 3 + 4 = 7."', "a reasoning to be explained", "the model's own"),
        DELIMITER,
        Entry("--solver=paper", "200 gradients; `adaptive` takes a sixth", "adaptive"),
        Entry("--check=1", "solves it by `paper`, too, and tells how well the two agree", "none"),
        Entry("--html=saliency.html", "writes a page to look at; likewise --json, --figure", "no page"),
    ),
    "probe": (
        "Measure the saliency of stored traces. The same command goes on after an interruption.",
        MODEL,
        Entry("--traces=traces.jsonl", "file or folder: JSONL, Parquet; prompt, gold, reasoning or completion", "needed"),
        Entry("--out=runs/probed", "folder for traces.jsonl, summary.json and index.html", "needed"),
        Entry("--limit=20", "only the first so many", "all"),
        Entry("--fields.prompt=question", "where a row keeps its prompt; so for its other fields", "recognised"),
        DELIMITER,
        Entry("--probe.solver=adaptive", "a sixth of the gradients of `paper`", "paper"),
        Entry("--check=8", "solves so many by `paper`, too, and tells how well the two agree", "none"),
        Entry("--batch_size=32", "traces that are probed, and written, together", "64"),
        Entry("--skip_bad_rows=true", "leaves out rows that cannot be probed", "false"),
        Entry("--device=cpu", "cpu, cuda, cuda:1, mps", "auto"),
    ),
}  # fmt: skip
"""What each command does, and its options that people change."""
