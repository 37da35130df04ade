"""A probe of a policy whose layers are gathered one at a time, on two processes of which one has more to do. A script."""

import sys
import weakref
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from launch import GROUP_TIMEOUT
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from atmanrl.distributed import all_gather, by_layer, gathered, processes
from atmanrl.distributed.sharding import build_sharded
from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver, Target
from atmanrl.rollouts.sampling import sample

SOLVERS = {
    "paper": PaperSolver(steps=2, lr=1e-2),
    "adaptive": AdaptiveSolver(steps=8, lr=1e-2, first_interval=2, max_interval=4),
}


def targets(rank: int) -> list[Target]:
    """Four targets for the first process, one for the second, none for any other."""
    generator = torch.Generator().manual_seed(rank)
    ids = [torch.randint(5, 700, (size,), generator=generator).tolist() for size in ((9, 30, 12, 21), (7,), ())[rank]]
    return [Target((5, 6, 7), tuple(each), (8,), (9, 10)) for each in ids]


class Cap:
    """Raises a MemoryError where more weights are gathered at a time than a device is to have room for."""

    def __init__(self, most: int) -> None:
        self.most, self.now, self.peak = most, 0, 0
        self.gather, self.gather_together = DTensor.full_tensor, by_layer.gather_together

    def __enter__(self) -> "Cap":
        DTensor.full_tensor = lambda tensor, **options: self.counted(self.gather(tensor, **options))
        by_layer.gather_together = lambda slices: {
            name: self.counted(full) for name, full in self.gather_together(slices).items()
        }
        return self

    def __exit__(self, *_) -> None:
        DTensor.full_tensor, by_layer.gather_together = self.gather, self.gather_together

    def counted(self, full: torch.Tensor) -> torch.Tensor:
        size = full.untyped_storage().nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(full.untyped_storage(), self.freed, size)
        if self.now > self.most:
            raise MemoryError("no room for a full copy")
        return full

    def freed(self, size: int) -> None:
        self.now -= size


def solved(policy: Policy, targets: list[Target]) -> dict:
    results = {name: MaskProbe(solver=solver).solve_targets(policy, targets) for name, solver in SOLVERS.items()}
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        logits = policy.model(input_ids=ids, use_cache=False).logits
    return {
        **{name: (result.saliency, result.reward, result.gradients) for name, result in results.items()},
        "logits": logits, "sampled": sample(policy, [[5, 6, 7]], torch.full((1, 1, 3 + processes().rank), 0.5)),
    }  # fmt: skip


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=GROUP_TIMEOUT))
    mesh, found = init_device_mesh("cpu", (processes().count,)), {}
    policy = build_sharded(Policy(str(folder), dtype="float64"), mesh, torch.device("cpu"), by_layer=True)
    sharded, size = policy.model, sum(weight.numel() * 8 for weight in policy.model.parameters())
    with torch.inference_mode(), Cap(int(0.9 * size)) as cap:
        with gathered(policy), gathered(policy):
            found |= solved(policy, targets(processes().rank))
            found["met"] = all_gather(processes().rank)  # while others may still need layers
        found["after"] = cap.now
    whole = build_sharded(Policy(str(folder), dtype="float64"), mesh, torch.device("cpu"))
    with Cap(int(0.9 * size)):
        try:
            with gathered(whole):
                pass
        except MemoryError as error:
            found["refused"] = str(error)
    found |= {"peak": cap.peak, "size": size, "restored": policy.model is sharded}
    found["learning"] = all(weight.requires_grad and weight.grad is None for weight in sharded.parameters())
    torch.save(found, Path(sys.argv[2]) / f"layers{processes().rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
