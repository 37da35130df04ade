"""The policy: a Hugging Face causal language model with its tokenizer, loaded when the trainer is ready for it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import MethodType
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from atmanrl.adapters import LoRA, PolicyError, merged, save_adapter, with_adapters
from atmanrl.errors import first_line
from atmanrl.files import final_path

__all__ = ["LoRA", "Policy", "PolicyError", "check_same", "checkpoint_layers"]

Weights = Literal["loaded", "meta", "empty"]


class Policy(nn.Module):
    """A causal language model and its tokenizer.

    Nothing is loaded before `build()`, which the LightningModules call in `configure_model`; so a policy can be named
    in YAML and a wrong option is reported before gigabytes are read.

    Args:
        path: a folder in Hugging Face format, or a name on the Hugging Face hub.
        pretrained: False draws new weights for the folder's configuration, from the current random state.
        dtype: of the weights. At the paper's learning rate of 8e-7 weights in pure bf16 do not move: train in float32.
        attn_implementation: `eager`, `sdpa`, `flash_attention_2`, ...; None lets transformers choose.
        revision: branch, tag or commit of a model on the hub.
        trust_remote_code: whether code that comes with the model may run.
        lora: adapters that are trained in place of the weights; None trains the weights.
        activation_checkpointing: whether the update computes a layer's activations again in the backward pass instead
            of keeping them: a third more time, far less memory. Sampling and the probe are not touched.

    Attributes:
        model: the language model, after `build()`.
        tokenizer: its tokenizer, after `build()`.
        eos_ids: the tokens that end a completion, after `build()`.
        pad_id: the token used for padding, after `build()`; where it stands nothing attends to it.
    """

    model: Any
    tokenizer: Any

    def __init__(
        self,
        path: str,
        pretrained: bool = True,
        dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
        attn_implementation: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        lora: LoRA | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.path = path
        self.pretrained = pretrained
        self.dtype_name = dtype
        self.attn_implementation = attn_implementation
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.lora = lora
        self.activation_checkpointing = activation_checkpointing
        self.model = None
        self.tokenizer = None
        self.eos_ids: tuple[int, ...] = ()
        self.pad_id = 0

    def build(self, weights: Weights = "loaded") -> Policy:
        """Load tokenizer and model once; calling it again changes nothing.

        Args:
            weights: `loaded` from the folder, or drawn. `meta` makes a model without memory, to be sharded and filled
                (see `atmanrl.distributed`); `empty` one whose parameters hold anything, for a checkpoint's weights.

        Raises:
            PolicyError: no such model, no tokenizer, an attention implementation that this machine cannot run, or
                adapters that it cannot be given.
        """
        if self.model is None:
            if self.lora is not None and find_spec("peft") is None:
                raise PolicyError("policy.lora needs peft: pip install 'atmanrl[lora]'.")
            self.tokenizer = self._load_tokenizer()
            model = self._load_model() if weights == "loaded" else self._unfilled_model(weights)
            self.model = model if self.lora is None else with_adapters(model, self.lora, self.path)
            if self.activation_checkpointing:
                # not the last: it sees some positions alone, by hooks that are gone when the backward pass comes
                checkpoint_layers(self.layers()[:-1])
            self._find_ends()
        return self

    def unbuilt(self) -> Policy:
        """A policy of the same options that has loaded nothing."""
        return Policy(
            self.path, self.pretrained, self.dtype_name, self.attn_implementation, self.revision,
            self.trust_remote_code, self.lora, self.activation_checkpointing,
        )  # fmt: skip

    def with_weights(self, state: Mapping[str, Tensor]) -> Policy:
        """A policy of the same options on the CPU that holds these weights, taken over and not copied.

        Raises:
            PolicyError: they are another model's; the message names the first key or shape that differs.
        """
        policy = self.unbuilt().build("empty")
        check_same(state, policy.model.state_dict(), self.path)
        policy.model.load_state_dict(state, assign=True)
        policy.model.tie_weights()
        return policy

    def layers(self) -> nn.ModuleList:
        """The model's transformer layers.

        Raises:
            PolicyError: the model keeps them where none are known.
        """
        found = [
            module
            for module in self.model.modules()
            if isinstance(module, nn.ModuleList)
            and len(module) == self.model.config.get_text_config().num_hidden_layers
        ]
        if not found:
            raise PolicyError(f"{self.path}: the layers of a {type(self.model).__name__} are not found.")
        return found[0]

    @classmethod
    def around(cls, model: Any, tokenizer: Any) -> Policy:
        """A policy of a model and a tokenizer that are loaded already; neither is changed.

        Raises:
            PolicyError: neither of them names an end-of-sequence token.
        """
        policy = cls(str(getattr(model.config, "_name_or_path", "") or type(model).__name__))
        policy.model, policy.tokenizer = model, tokenizer
        policy._find_ends()
        return policy

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @property
    def context_length(self) -> int:
        """The longest sequence, in tokens, that the model's configuration allows."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 1 << 30))

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a user's turn: by the chat template where the tokenizer has one, else as bare text."""
        if self.tokenizer.chat_template is None:
            return list(self.tokenizer(text).input_ids)
        message = [{"role": "user", "content": text}]
        return list(self.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False))

    def encode_turn(self, text: str, reply: str) -> tuple[list[int], list[int]]:
        """Token ids of a user's turn and of the assistant's reply with its end of sequence, for the warm start.

        Raises:
            PolicyError: the chat template's text with a reply does not begin with its text without.
        """
        prompt = self.encode_prompt(text)
        if self.tokenizer.chat_template is None:
            return prompt, [*self.tokenizer(" " + reply, add_special_tokens=False).input_ids, self.eos_ids[0]]
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]
        whole = list(self.tokenizer.apply_chat_template(turns, return_dict=False))
        if whole[: len(prompt)] != prompt:
            raise PolicyError(f"{self.path}: the chat template changes the user's turn once a reply follows it.")
        return prompt, whole[len(prompt) :]

    def save(self, folder: Path, dtype: str | None = None) -> None:
        """Write model (safetensors) and tokenizer in Hugging Face format, in another dtype if one is given.

        Adapters are merged into the weights, or written alone in peft's format, as the option `lora.export` says.

        Raises:
            PolicyError: the disk is full, or cannot be written to; what was written is left.
        """
        try:
            if self.lora is not None and self.lora.export == "adapter":
                save_adapter(self.model, folder, dtype)
            else:
                model = self.model if dtype is None and self.lora is None else copy.deepcopy(self.model)
                model = model if self.lora is None else merged(model)
                model = model if dtype is None else model.to(getattr(torch, dtype))
                model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        except (OSError, SafetensorError) as error:
            raise PolicyError(
                f"the policy could not be written to {final_path(folder)}: {first_line(error)}"
            ) from error

    def _find_ends(self) -> None:
        generation = getattr(self.model, "generation_config", None)
        eos = getattr(generation, "eos_token_id", None)
        eos = self.tokenizer.eos_token_id if eos is None else eos
        if eos is None:
            raise PolicyError(f"{self.path}: neither the model nor its tokenizer names an end-of-sequence token.")
        self.eos_ids = tuple(eos) if isinstance(eos, list) else (eos,)
        pad = self.tokenizer.pad_token_id
        self.pad_id = self.eos_ids[0] if pad is None else pad

    def _unfilled_model(self, weights: Weights) -> Any:
        """The model by its configuration alone; buffers such as rotary tables are right unless it is on `meta`."""
        from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
        from transformers.initialization import no_init_weights

        try:
            config = AutoConfig.from_pretrained(self.path, **self._hub())
            with no_init_weights(), torch.device("meta" if weights == "meta" else "cpu"):
                model = AutoModelForCausalLM.from_config(
                    config, dtype=getattr(torch, self.dtype_name), attn_implementation=self.attn_implementation,
                    trust_remote_code=self.trust_remote_code,
                )  # fmt: skip
        except (OSError, ValueError, ImportError) as error:
            raise PolicyError(f"no model could be made from {self.path!r}: {first_line(error)}") from error
        model.tie_weights()
        if self.pretrained and model.can_generate():
            with suppress(OSError):  # a folder need not have one
                model.generation_config = GenerationConfig.from_pretrained(self.path, revision=self.revision)
        return model.eval() if self.pretrained else model

    def _hub(self) -> dict[str, Any]:
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    def _load_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        folder = Path(self.path)
        if folder.is_dir() and not any(
            (folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")
        ):
            raise PolicyError(
                f"{self.path} holds no tokenizer (tokenizer.json); copy the model's tokenizer files into that folder."
            )
        try:
            return AutoTokenizer.from_pretrained(self.path, **self._hub())
        except (OSError, ValueError) as error:
            raise PolicyError(f"no tokenizer could be loaded from {self.path!r}: {first_line(error)}") from error

    def _load_model(self) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        dtype = getattr(torch, self.dtype_name)
        try:
            options = {"dtype": dtype, "attn_implementation": self.attn_implementation}
            if self.pretrained:
                return AutoModelForCausalLM.from_pretrained(self.path, **options, **self._hub())
            config = AutoConfig.from_pretrained(self.path, **self._hub())
            return AutoModelForCausalLM.from_config(config, **options)
        except (OSError, ValueError, ImportError) as error:
            raise PolicyError(f"no model could be loaded from {self.path!r}: {first_line(error)}") from error


def check_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str) -> None:
    """Compare the names and shapes of a checkpoint's weights with a model's.

    Raises:
        PolicyError: they differ; the message names the first key, and shapes where those differ.
    """
    hint = f"the checkpoint is not of the model {path!r} with these options; give the policy that it was trained with."
    for name, weight in expected.items():
        if name not in found:
            raise PolicyError(f"{name} is missing: {hint}")
        if found[name].shape != weight.shape:
            raise PolicyError(f"{name} has shape {list(found[name].shape)} instead of {list(weight.shape)}: {hint}")
    for name in found:
        if name not in expected:
            raise PolicyError(f"{name} is unknown: {hint}")


def checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    """Let each layer compute its activations again in the backward pass, where its weights learn.

    Transformers' own switch does so in training mode only, and GRPO learns in eval mode. With frozen weights (the
    probe), with a cache or without gradients nothing changes.
    """

    def forward(layer: nn.Module, *args: Any, **inputs: Any) -> Any:
        plain = type(layer).forward
        learns = torch.is_grad_enabled() and any(weight.requires_grad for weight in layer.parameters())
        if not learns or inputs.get("past_key_values") is not None:
            return plain(layer, *args, **inputs)
        # the other kind, reentrant, loses gradients that reach a layer by its keyword arguments
        return checkpoint(plain, layer, *args, use_reentrant=False, **inputs)

    for layer in layers:
        layer.forward = MethodType(forward, layer)
