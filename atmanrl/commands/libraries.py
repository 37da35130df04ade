"""What other libraries print while a command runs."""

from __future__ import annotations

import logging
import warnings

from transformers.utils import logging as transformers_logging


def quiet() -> None:
    """Silence advertisements, progress bars and advice of libraries, so that the terminal shows the run."""
    transformers_logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*args parameter is intended to run from within Python.*")
    # a resumed run goes on with its log, its checkpoints and its order of problems; Lightning cannot know
    warnings.filterwarnings("ignore", ".*Checkpoint directory.*exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
    # what is logged at the end of an epoch is known to all processes already
    warnings.filterwarnings("ignore", ".*It is recommended to use `self.log.*sync_dist=True.*")
    # checkpoints are written between updates, never within one
    warnings.filterwarnings("ignore", "(?s).*ModelCheckpoint with manual optimization.*")
    # the policy learns in eval mode on purpose: with dropout, the ratio to the sampling policy would be noise
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")
