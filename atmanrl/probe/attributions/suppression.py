"""AtMan's own measure: suppress one token, and see what that does to the answer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.models.batching import cheapest_batches
from atmanrl.probe.attributions.base import Attribution, Attributions, tokens_of
from atmanrl.probe.mask import Shape
from atmanrl.probe.objective import Objective


class Suppression(Attribution):
    """AtMan (Deiseroth et al. 2023, section 3): the rise of the answer's loss when one token is suppressed everywhere.

    A token's saliency is the loss with `factor * c` down its column (every position from the token on attends to it
    less) and nothing done to the others, minus the loss of the unmodified model. It takes one forward pass a token,
    several tokens at a time under the objective's token budget, and no gradient. AtMan multiplies scores by 1 - f; here,
    as in the paper's mask, a constant is added to them, so that a score's sign does not matter.

    `loss_initial` is the unmodified model's loss, `loss_final` the loss with all tokens suppressed at once: `gradients`
    are 0, `evaluations` T + 2. (One gradient more, of the shortest target, only makes sure that the model heeds the bias.)

    Args:
        factor: how strongly, in units of c: the bias is `scale * factor * c`.

    Raises:
        UserError: `factor` is not above 0.
    """

    shapes: ClassVar[tuple[Shape, ...]] = ("full", "column")  # a column is suppressed whoever attends, by definition

    def __init__(self, factor: float = 1.0) -> None:
        if not 0 < factor < float("inf"):
            raise UserError(f"factor is {factor} (in YAML, probe.attribution.factor); give a number above 0.")
        self.factor = factor

    def attribute(self, objective: Objective, init_value: float) -> Attributions:
        """Suppress token after token; see `Attribution.attribute`."""
        entries, value = objective.entries, self.factor * init_value
        self.check(entries.shape)
        suppressed = objective.filled(value)
        # without a gradient, a model that ignores the bias would pass for one to which no token matters
        shortest = entries.rows.argmin()[None]
        objective.evaluate(suppressed[entries.ragged.positions(shortest)], shortest)
        before = objective.loss(objective.filled(0.0))
        after = objective.loss(suppressed)
        lengths = entries.columns.tolist()
        losses = self._losses(objective, value, lengths, before)
        rises = torch.split(losses - before.repeat_interleave(entries.columns), lengths)
        return Attributions(
            tokens=list(rises),
            reward=torch.stack([rise.mean() for rise in rises]),
            loss_initial=before,
            loss_final=after,
            gradients=torch.zeros_like(objective.indices),
            evaluations=entries.columns + 2,
        )

    @staticmethod
    def _losses(objective: Objective, value: float, lengths: list[int], like: Tensor) -> Tensor:
        """Return the loss with one token suppressed, for every token of the first target, then of the second, ..."""
        entries = objective.entries
        jobs = [(index, token) for index, length in enumerate(lengths) for token in range(length)]
        losses = like.new_zeros(len(jobs))
        columns: dict[int, Tensor] = {}
        # a mask for each token: all of them would not fit into memory, so only one forward pass's exist at a time
        rows = [objective.targets[index].rows for index, _ in jobs]
        for batch in cheapest_batches(rows, objective.batch_tokens, objective.pass_tokens):
            indices = [jobs[i][0] for i in batch]
            # batches go from target to target, so only the columns of those present are worth keeping
            columns = {k: columns[k] if k in columns else tokens_of(entries, k) for k in dict.fromkeys(indices)}
            marks = torch.cat([columns[k] == jobs[i][1] for i, k in zip(batch, indices, strict=True)])
            losses[batch] = objective.loss(marks.to(like.dtype) * value, torch.tensor(indices, device=like.device))
        return losses
