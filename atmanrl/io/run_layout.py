"""What a run's folder holds, and whether a new run may have it."""

from __future__ import annotations

from pathlib import Path

from atmanrl.errors import UserError
from atmanrl.io.folders import check_replaceable, is_marked

COMMAND = "fit"
"""The command whose mark and lock a run's folder bears."""
CONFIG = "config.yaml"
POLICY = "policy"
"""Where a run's folder holds the trained policy."""
CHECKPOINTS = "checkpoints"
OWN = ("metrics.csv", POLICY, f"{CHECKPOINTS}/*", "rollouts/*", "eval/validation_*")
"""What training leaves in a run's folder, as patterns; `config.yaml` alone is a start that came to nothing."""
EVALUATIONS = {
    "validate": ("eval/validate.json", "eval/validate.jsonl"),
    "test": ("eval/test.json", "eval/test.jsonl"),
    "predict": ("predictions.jsonl",),
}
"""What the other commands write, into a run's folder or one of their own, whose mark they then bear."""


def check_free(folder: Path, checkpoint: str | None) -> None:
    """Check that training may write to a folder.

    Args:
        folder: of the run.
        checkpoint: from which it goes on; None for a new run.

    Raises:
        UserError: the folder holds a run that this one does not go on with, or what no run has written.
    """
    check_replaceable(folder / POLICY, COMMAND)  # and not when the training is done
    config = folder / CONFIG
    left = [path for pattern in OWN for path in folder.glob(pattern)]
    own = checkpoint == "last" or Path(checkpoint or "").resolve().parent == (folder / CHECKPOINTS).resolve()
    if left and checkpoint and not own:
        raise UserError(
            f"{folder} already holds a run, and {checkpoint} is no checkpoint of it; choose another "
            "--trainer.default_root_dir, or go on with that run by --ckpt_path=last."
        )
    if not checkpoint and (left or (config.exists() and not is_marked(folder, COMMAND))):
        raise UserError(
            f"{folder} already holds a run ({(left or [config])[0].relative_to(folder)}); choose another "
            "--trainer.default_root_dir, or go on with that run by --ckpt_path=last."
        )
