"""A folder that holds a LoRA adapter alone, in peft's format: merged into its base model, or trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from atmanrl.errors import first_line
from atmanrl.models.adapters import PREFIX, LoRA
from atmanrl.models.errors import PolicyError

OTHER_KINDS = ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern", "modules_to_save")
"""Options of peft that `LoRA` does not have: such an adapter can be merged, and not be trained on."""


@dataclass(frozen=True)
class Adapter:
    """A folder that holds an adapter alone, in peft's format.

    Attributes:
        path: of the folder, or its name on the hub.
        base: the model that it was trained on.
        config: peft's options.

    Example:
        `Adapter("runs/adapter", "Qwen/Qwen2.5-0.5B", {"peft_type": "LORA", "r": 16, "lora_alpha": 32})`
    """

    path: str
    base: str
    config: dict[str, Any]

    @classmethod
    def at(cls, path: str, revision: str | None) -> Adapter | None:
        """Return the adapter in a folder or on the hub; None where there is none.

        Raises:
            PolicyError: there is one that cannot be used.
        """
        from transformers.utils.peft_utils import find_adapter_config_file

        try:
            file = find_adapter_config_file(path, revision=revision)
        except OSError:
            return None  # there is no such model at all, as loading its tokenizer says
        if file is None:
            return None
        try:
            config = json.loads(Path(file).read_text(encoding="utf-8"))
            base = config["base_model_name_or_path"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PolicyError(f"{path} holds an adapter whose adapter_config.json cannot be read ({error}).") from error
        if not isinstance(base, str) or not base:
            raise PolicyError(
                f"{path}: adapter_config.json names no base_model_name_or_path; write the base model there."
            )
        if config.get("peft_type") != "LORA":
            raise PolicyError(f"{path} holds an adapter of kind {config.get('peft_type')}; only LoRA can be used here.")
        return cls(path, base, config)

    def merge_into(self, model: Any) -> Any:
        """Add the adapter to its base model's weights and return the model.

        Raises:
            PolicyError: the adapter cannot be read, or does not fit the model.
        """
        from peft import PeftModel, get_peft_model_state_dict

        with self._refusals():
            adapted = PeftModel.from_pretrained(model, self.path)
        self._check_names(get_peft_model_state_dict(adapted, save_embedding_layers=False), PREFIX)
        return adapted.merge_and_unload(safe_merge=True).requires_grad_(True)

    def continue_in(self, model: Any, lora: LoRA) -> Any:
        """Load the folder's weights into the adapters of a model, which have these options, and return the model.

        Raises:
            PolicyError: the options are not those of the adapter.
        """
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        config = self.config
        other = [name for name in OTHER_KINDS if config.get(name)]
        if config.get("r") != lora.r or config.get("lora_alpha") != lora.alpha or other:
            options = ", ".join([f"r={config.get('r')}", f"alpha={config.get('lora_alpha')}", *other])
            raise PolicyError(
                f"policy.lora has r={lora.r} and alpha={lora.alpha}, the adapter in {self.path} {options}: give its "
                "options to go on training it, or leave policy.lora out to merge it and train all weights."
            )
        own = get_peft_model_state_dict(model, save_embedding_layers=False)
        self._check_names(own, "")
        with self._refusals():
            set_peft_model_state_dict(model, {n.removeprefix(PREFIX): w for n, w in self._weights().items()})
        return model

    def _weights(self) -> dict[str, torch.Tensor]:
        from peft import load_peft_weights

        with self._refusals():
            weights: dict[str, torch.Tensor] = load_peft_weights(self.path, device="cpu")
        return weights

    def _check_names(self, own: dict[str, torch.Tensor], prefix: str) -> None:
        """Compare names and shapes of the file's weights with those of a model's adapters."""
        shapes = {name.removeprefix(PREFIX): list(weight.shape) for name, weight in self._weights().items()}
        wanted = {name.removeprefix(prefix): list(weight.shape) for name, weight in own.items()}
        for name in sorted(shapes.keys() | wanted.keys()):
            if shapes.get(name) != wanted.get(name):
                there, here = (
                    "no such weight" if s is None else f"shape {s}" for s in (shapes.get(name), wanted.get(name))
                )
                raise PolicyError(
                    f"the adapter in {self.path} does not fit: {name} has {there} in the folder and {here} in the model; "
                    "its base model and target_modules must be those that it was trained with."
                )

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise PolicyError(f"the adapter in {self.path} cannot be loaded: {first_line(error)}") from error
