"""`FSDP2Strategy`: Lightning's `ModelParallelStrategy` as data parallelism over all processes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from lightning import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch.optim import Optimizer

from atmanrl.distributed import slices
from atmanrl.distributed.copies import gathered
from atmanrl.distributed.sharding import full_weights, is_sharded
from atmanrl.errors import UserError
from atmanrl.io.files import remove
from atmanrl.lightning_internals import make_all_data_parallel
from atmanrl.models.policy import Policy


class FSDP2Strategy(ModelParallelStrategy):
    """Weights, gradients and optimizer states sharded over all processes of all nodes (PyTorch's `fully_shard`).

    `trainer.strategy: fsdp2` takes the defaults. It runs on GPUs (NCCL) and, for tests, on CPUs (gloo); `precision:
    bf16-mixed` gathers and computes in bf16 on float32 master weights. A full checkpoint can be resumed on any number of
    processes and by any strategy; a sharded one by FSDP2 on any number of processes (`atmanrl export` converts it).

    Args:
        sharded_checkpoints: whether each process writes its own slices, which is fast; otherwise rank 0 gathers and
            writes one file.
        timeout_seconds: after which a process that waits for the others gives up.
        process_group_backend: `nccl`, `gloo`, ...; None takes the device's.
        gather: what is gathered at a time for sampling, the probe and scoring: the `model`, of which each device then holds
            a full copy, or a `layer`, which takes little memory and gathers every layer again for every pass.

    Raises:
        UserError: an option is out of its range.
    """

    def __init__(
        self,
        sharded_checkpoints: bool = False,
        timeout_seconds: float = 1800.0,
        process_group_backend: str | None = None,
        gather: Literal["model", "layer"] = "model",
    ) -> None:
        if timeout_seconds <= 0:
            raise UserError(f"the strategy's timeout_seconds is {timeout_seconds}; give a number above 0.")
        if gather not in ("model", "layer"):
            raise UserError(f"the strategy's gather is {gather!r}; choose model or layer.")
        super().__init__(
            tensor_parallel_size=1, save_distributed_checkpoint=sharded_checkpoints,
            process_group_backend=process_group_backend, timeout=timedelta(seconds=timeout_seconds),
        )  # fmt: skip
        self.sharded_checkpoints, self.gather = sharded_checkpoints, gather
        self._evaluation = ExitStack()

    def setup_environment(self) -> None:
        """Start the process group, one mesh dimension over all processes."""
        make_all_data_parallel(self)
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Check that the module's `configure_model` has sharded the policy.

        Raises:
            UserError: no policy was sharded there, or the accelerator cannot.
        """
        assert self.model is not None
        if self.world_size > 1 and not any(is_sharded(module) for module in self.model.modules()):
            raise UserError(
                f"FSDP2Strategy cannot run {type(self.lightning_module).__name__}, whose policy is not sharded; take "
                "--trainer.strategy=ddp or a single device."
            )
        super().setup(trainer)

    def on_validation_start(self) -> None:
        """Gather the weights: processes answer different numbers of problems."""
        assert self.model is not None
        self._evaluation.close()
        for policy in [module for module in self.model.modules() if isinstance(module, Policy)]:
            self._evaluation.enter_context(gathered(policy))

    on_test_start = on_predict_start = on_validation_start

    def on_validation_end(self) -> None:
        """Shard them again."""
        self._evaluation.close()

    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, exception: BaseException) -> None:
        """Shard them again, should an evaluation have been cut short; no process waits for the others."""
        self._evaluation.__exit__(type(exception), exception, exception.__traceback__)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the model's slices, or on rank 0 its full weights."""
        assert self.model is not None
        self._evaluation.close()  # a checkpoint at the end of an evaluation is one of the slices
        return self.model.state_dict() if self.sharded_checkpoints else full_weights(self.model)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's own state dict, of slices, or on rank 0 of full tensors."""
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        state = plain.state_dict()
        return state if self.sharded_checkpoints else slices.unsharded_optimizer_state(state)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write one file, or a folder of slices. All processes must call it."""
        path = Path(self.broadcast(filepath))
        if self.is_global_zero:
            remove(path)
        self.barrier()
        if not self.sharded_checkpoints:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        slices.save(checkpoint, path)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Fill model and optimizers from a full or a sharded checkpoint; return what else it holds.

        Nothing of a checkpoint can run code, whatever `weights_only` says.

        Raises:
            CheckpointError: there is none, it is damaged, or it is another model's.
        """
        assert self.model is not None
        return slices.load(Path(self.broadcast(checkpoint_path)), self.model, self.optimizers)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Do nothing: `load_checkpoint` has loaded it."""

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Do nothing: `load_checkpoint` has loaded it."""


def _register() -> None:
    StrategyRegistry.register(
        "fsdp2", FSDP2Strategy, description="weights, gradients and optimizer states sharded over all processes"
    )


_register()
