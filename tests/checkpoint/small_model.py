"""A small model that draws on every global random state, and the trainer that writes its checkpoints."""

import random
import warnings

import numpy as np
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from atmanrl.callbacks import RunCheckpoint, RunLogger


class Small(LightningModule):
    """A linear layer with dropout, which draws on the global random state, and manual optimization."""

    def __init__(self, width=4, at=None, does=None):
        super().__init__()
        self.automatic_optimization = False
        self.layer, self.at, self.does = torch.nn.Linear(width, 3), at, does
        self.seen = []

    def training_step(self, batch, index):
        if self.at == self.global_step:
            self.does()
        noise = random.random() + np.random.rand()
        loss = noise * torch.nn.functional.dropout(self.layer(batch)).square().sum()
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("loss", loss)

    def validation_step(self, batch, index):
        self.log("val/loss", self.layer(batch).square().sum())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


# rows are alike: Lightning begins a loader anew within an epoch, and the order of problems is the data module's matter
DATA = torch.randn(4, generator=torch.Generator().manual_seed(0)).repeat(6, 1)


def train(folder, module, steps, ckpt_path=None, plugins=None, checkpoint=None, data=DATA):
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(3)
    logger = RunLogger(str(folder))
    checkpoint = checkpoint or RunCheckpoint(every_n_updates=2, keep=-1)
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_steps=steps, logger=[logger], callbacks=[checkpoint],
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
        val_check_interval=2, check_val_every_n_epoch=None, plugins=plugins,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = DataLoader(data, batch_size=1, generator=torch.Generator())  # as in the data modules
        trainer.fit(module, loader, DataLoader(data[:1]), ckpt_path=ckpt_path)
    return trainer
