"""Which of Lightning's precisions a run can have, and what they mean beside `policy.dtype`.

`policy.dtype` is what the weights are kept in. `trainer.precision` is what they are computed in: `32-true` computes in the
weights' own dtype, `bf16-mixed` and `16-mixed` in half precision on float32 weights. Rewards, advantages, log-probabilities
and masks are float32 under each. Lightning's other precisions would make those half or double too, or replace layers.
"""

from __future__ import annotations

from atmanrl.errors import UserError
from atmanrl.lightning_internals import precision_name

DTYPES = {"bf16-true": "bfloat16", "16-true": "float16", "64-true": "float64"}
"""The dtype of the weights that takes the place of a precision."""


def check_precision(precision: str | int | None, dtype: str, trains_weights: bool = True) -> str:
    """Return the precision by its full name.

    Args:
        precision: `trainer.precision`, a number or an old name included.
        dtype: `policy.dtype`.
        trains_weights: whether the weights learn, and not adapters beside them, which are float32.

    Raises:
        UserError: the precision, or the two together, cannot be; the message names what to give instead.
    """
    name = precision_name(precision)
    if name in DTYPES:
        raise UserError(
            f"trainer.precision {precision} would turn rewards and masks into {DTYPES[name]} too; give --trainer.precision="
            f"32-true and --model.policy.dtype={DTYPES[name]}, which is the dtype of the weights."
        )
    if name not in ("32-true", "bf16-mixed", "16-mixed"):
        raise UserError(f"trainer.precision {precision} is not supported; choose bf16-mixed, 16-mixed or 32-true.")
    if name != "32-true" and dtype == "float64":
        raise UserError(
            f"trainer.precision {name} leaves float64 weights as they are; give model.policy.dtype float32, or "
            "trainer.precision 32-true."
        )
    if name == "16-mixed" and dtype == "float16" and trains_weights:
        raise UserError(
            "trainer.precision 16-mixed scales gradients, which float16 weights cannot have; give model.policy.dtype "
            "float32."
        )
    return name
