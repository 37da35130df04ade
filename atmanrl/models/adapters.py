"""LoRA by peft: adapters injected into a policy's model, merged into its weights, or saved alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from atmanrl.errors import first_line
from atmanrl.models.errors import PolicyError

PREFIX = "base_model.model."
"""What peft puts before the names of an adapter's weights."""


@dataclass
class LoRA:
    """Low-rank adapters, by peft: they learn, the model's own weights stay as they were loaded.

    Attributes:
        r: their rank.
        alpha: they count `alpha / r`.
        dropout: of their input. GRPO learns in eval mode, where it has no effect; the supervised warm start has it.
        target_modules: `all-linear` (every linear layer but the language-model head), a regular expression, or a list
            of the modules' names.
        export: what `Policy.save` writes: the `adapter` alone, which names its base model, or `merged` weights, an ordinary
            model.

    Raises:
        PolicyError: an option that cannot be.

    Example:
        `LoRA(r=8, alpha=16, target_modules=["q_proj", "v_proj"], export="merged")`
    """

    r: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    export: Literal["merged", "adapter"] = "adapter"

    def __post_init__(self) -> None:
        """Refuse options that cannot be before a model is loaded."""
        if self.r < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1 or not self.target_modules:
            raise PolicyError("policy.lora: give r >= 1, alpha > 0, 0 <= dropout < 1 and some target_modules.")
        if self.export not in ("merged", "adapter"):
            raise PolicyError(f"policy.lora.export {self.export!r} is unknown; choose merged or adapter.")


def is_adapter(name: str) -> bool:
    """Return whether a parameter of that name belongs to an adapter, by the names that peft gives."""
    return "lora_" in name


def with_adapters(model: Any, lora: LoRA, path: str) -> Any:
    """Put adapters in the place of some of a model's linear layers and return the model, still of its class.

    Injected and not wrapped: what knows the model's class, its head and its layers (the probe's hook, the sampler, the
    head at some positions alone) finds them where they were.
    """
    from peft import LoraConfig, inject_adapter_in_model

    modes = model.training
    target = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=target, task_type="CAUSAL_LM",
        base_model_name_or_path=str(Path(path).resolve()) if Path(path).exists() else path,
    )  # fmt: skip
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:  # no module has such a name, or it is of a kind that has no adapter
        raise PolicyError(f"policy.lora.target_modules do not fit {path!r}: {first_line(error)}") from error
    if getattr(model.config, "tie_word_embeddings", False) and hasattr(model.get_output_embeddings(), "base_layer"):
        raise PolicyError(
            f"policy.lora.target_modules: the head of {path!r} shares its weights with the embedding, which merged "
            "adapters would change, too; leave the head out."
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
        if is_adapter(name) and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()  # steps of a small learning rate are lost in half precision
    return model.train(modes)


def merged(model: Any) -> Any:
    """Add a model's adapters to its weights, remove them, and return the model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, part in list(model.named_modules()):
        if isinstance(part, BaseTunerLayer):
            part.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, part.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model


def save_adapter(model: Any, folder: Path, dtype: str | None) -> None:
    """Write a model's adapters under the names that `PeftModel.from_pretrained` looks for."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    own = get_peft_model_state_dict(model, save_embedding_layers=False)  # "auto" may ask the hub
    state = {f"{PREFIX}{name}": w.detach() for name, w in own.items()}
    kind = None if dtype is None else getattr(torch, dtype)
    save_file({name: w.to("cpu", kind).contiguous() for name, w in state.items()}, folder / "adapter_model.safetensors")
    model.peft_config["default"].save_pretrained(folder)
