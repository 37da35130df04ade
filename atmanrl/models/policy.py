"""The policy: a Hugging Face causal language model with its tokenizer, loaded when the trainer is ready for it."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from atmanrl.errors import first_line
from atmanrl.io.files import final_path
from atmanrl.models.adapter_folder import Adapter
from atmanrl.models.adapters import LoRA, merged, save_adapter, with_adapters
from atmanrl.models.building import Weights, draw_model, load_model, unfilled_model
from atmanrl.models.chat_marks import TemplateUse
from atmanrl.models.compilation import compile_layers
from atmanrl.models.errors import PolicyError
from atmanrl.models.layers import checkpoint_layers, layers_of
from atmanrl.models.loading import Source, context_length, load_config, load_tokenizer
from atmanrl.models.tokenizing import Encoder, end_tokens, padding_token, template_date, template_variables
from atmanrl.models.weights import difference
from atmanrl.notes import say
from atmanrl.shipped import located

__all__ = ["LoRA", "Policy", "PolicyError", "checkpoint_layers"]


class Policy(nn.Module):
    """A causal language model and its tokenizer.

    Nothing is loaded before `build()`, which the LightningModules call in `configure_model`; so a policy can be named
    in YAML and a wrong option is reported before gigabytes are read.

    Args:
        path: a folder in Hugging Face format (here, or one of `atmanrl.shipped`), a GGUF file or a folder with one, or a
            name on the Hugging Face hub.
            A folder that holds an adapter alone (peft's format) is its base model with the adapter merged into it, or,
            with `lora` of the same options, with the adapter that is trained on.
        pretrained: False draws new weights for the folder's configuration, from the current random state.
        dtype: of the weights. At the paper's learning rate of 8e-7 weights in pure bf16 do not move: train in float32.
        attn_implementation: `eager`, `sdpa`, `flash_attention_2`, ...; None lets transformers choose.
        revision: branch, tag or commit of a model on the hub.
        trust_remote_code: whether code that comes with the model may run.
        lora: adapters that are trained in place of the weights; None trains the weights.
        strict: whether the folder must hold all of the model's weights and no others. False draws what is missing anew,
            leaves over what the model has no place for, and says so.
        chat_template_kwargs: variables of the chat template, such as `enable_thinking`.
        chat_template_date: the date (2026-01-31) that a chat template takes for today's; None takes today's, which `fit`
            notes in the run's `config.yaml`, so that the run's prompts stay the same on the days to come.
        activation_checkpointing: whether the update computes a layer's activations again in the backward pass instead
            of keeping them: a third more time, far less memory. Sampling and the probe are not touched.
        cudnn_attention: whether PyTorch's attention on CUDA may use cuDNN. PyTorch prefers it on Hopper from 2.11 on, but
            it makes a plan for every new shape, and here nearly every pass has one: tens of seconds an update.
        compile: `layers` compiles each layer's norms and feed-forward network (see `models.compilation`): less memory,
            and on an H100 hardly less time.
        chat_template: what becomes of a prompt. `wrap` puts it into the tokenizer's chat template, as a user's turn; `none`
            leaves it plain text; `written` reads special tokens from it by their names, as of a prompt that has been put
            into the template before. `auto` wraps it, where there is a template, unless all of the template's marks are
            there already; it says once what it makes of marks.

    Attributes:
        model: the language model, after `build()`.
        tokenizer: its tokenizer, after `prepare()`; encoder: what makes token ids of prompts with it.
        eos_ids: the tokens that end a completion, after `build()`.
        pad_id: the token used for padding, after `build()`; where it stands nothing attends to it.
        computed_in: the dtype of matrix products in a run of mixed precision; None where it is the weights' own.
    """

    model: Any
    tokenizer: Any
    encoder: Encoder

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
        cudnn_attention: bool = False,
        strict: bool = True,
        chat_template_kwargs: dict[str, Any] | None = None,
        chat_template_date: str | None = None,
        compile: Literal["none", "layers"] = "none",
        chat_template: TemplateUse = "auto",
    ) -> None:
        super().__init__()
        self.path, self.pretrained, self.dtype_name = path, pretrained, dtype
        self.attn_implementation, self.revision = attn_implementation, revision
        self.trust_remote_code, self.lora = trust_remote_code, lora
        self.activation_checkpointing, self.compile_option = activation_checkpointing, compile
        self.cudnn_attention, self.strict = cudnn_attention, strict
        self.chat_template_kwargs = template_variables(chat_template_kwargs or {})
        self.chat_template_date, self.chat_template = template_date(chat_template_date), chat_template
        self.adapter: Adapter | None = None
        self.config: Any = None
        self.model = None
        self.tokenizer = None
        self.eos_ids: tuple[int, ...] = ()
        self.pad_id = 0
        self.computed_in: torch.dtype | None = None

    def build(self, weights: Weights = "loaded") -> Policy:
        """Load tokenizer and model once; calling it again changes nothing.

        Args:
            weights: `loaded` from the folder, or drawn. `meta` makes a model without memory, to be sharded and filled
                (see `atmanrl.distributed`); `empty` one whose parameters hold anything, for a checkpoint's weights.

        Raises:
            PolicyError: no such model, no tokenizer, an attention implementation that this machine cannot run, or
                adapters that do not fit it.
        """
        if self.model is None:
            self.prepare()
            model = self._model(weights)
            if self.lora is not None:
                model = with_adapters(model, self.lora, self._base.path)
                if weights == "loaded" and self.adapter is not None:
                    model = self.adapter.continue_in(model, self.lora)
            self.model = model
            if self.activation_checkpointing:
                # not the last: it sees some positions alone, by hooks that are gone when the backward pass comes
                checkpoint_layers(self.layers()[:-1])
            if self.compile_option == "layers":
                compile_layers(self.layers())
            self._set_special_tokens()
        return self

    def prepare(self) -> Policy:
        """Load the tokenizer and the model's configuration, without the model; calling it again changes nothing.

        Raises:
            PolicyError: no such model, no tokenizer, or a chat template without one of `chat_template_kwargs`.
        """
        if self.tokenizer is None:
            adapter = Adapter.at(self._source.path, self.revision)
            needs = "policy.lora" if self.lora is not None else f"the adapter in {self.path}" if adapter else None
            if needs and find_spec("peft") is None:
                raise PolicyError(f"{needs} needs peft: pip install 'atmanrl[lora]'.")
            self.adapter = adapter
            tokenizer = load_tokenizer(self._source, self._base)
            self.config = load_config(self._base)
            self.encoder = Encoder(
                tokenizer,
                self.vocabulary_size,
                self.chat_template_kwargs,
                self.chat_template_date,
                self.path,
                self.chat_template,
            )
            self.tokenizer = tokenizer
        return self

    @property
    def _source(self) -> Source:
        options = self.dtype_name, self.attn_implementation, self.revision, self.trust_remote_code, self.strict
        return Source(located(self.path), *options)

    @property
    def _base(self) -> Source:
        """Where the model is loaded from: that of an adapter lies elsewhere, and the revision is the adapter's."""
        return self._source if self.adapter is None else replace(self._source, path=self.adapter.base, revision=None)

    def _model(self, weights: Weights) -> Any:
        """The model without new adapters."""
        if weights != "loaded":
            model = unfilled_model(self._base, self.config, weights, self.pretrained)
            return model.eval() if self.pretrained else model
        if not self.pretrained:
            return draw_model(self._base, self.config)
        model = load_model(self._base, self.config)
        if self.adapter is not None and self.lora is None:
            say(f"{self.path} holds an adapter of {self.adapter.base}, which is merged into its weights.")
            model = self.adapter.merge_into(model)
        return model

    def unbuilt(self) -> Policy:
        """Return a policy of the same options that has loaded nothing."""
        return Policy(
            self.path, self.pretrained, self.dtype_name, self.attn_implementation, self.revision, self.trust_remote_code,
            self.lora, self.activation_checkpointing, self.cudnn_attention, self.strict, self.chat_template_kwargs,
            self.chat_template_date.isoformat(), self.compile_option, self.chat_template,
        )  # fmt: skip

    def with_weights(self, state: Mapping[str, Tensor]) -> Policy:
        """Return a policy of the same options on the CPU that holds these weights, taken over and not copied.

        Raises:
            PolicyError: they are another model's; the message names the first key or shape that differs.
        """
        policy = self.unbuilt().build("empty")
        if differs := difference(state, policy.model.state_dict()):
            raise PolicyError(
                f"{differs}: the weights are not of the model {self.path!r} with these options; give the policy that they "
                "were trained with."
            )
        policy.model.load_state_dict(state, assign=True)
        policy.model.tie_weights()
        return policy

    def layers(self) -> nn.ModuleList:
        """Return the model's transformer layers.

        Raises:
            PolicyError: the model keeps them where none are known.
        """
        return layers_of(self.model, self.path)

    @classmethod
    def around(cls, model: Any, tokenizer: Any) -> Policy:
        """Return a policy of a model and a tokenizer that are loaded already; neither is changed.

        Raises:
            PolicyError: neither of them names an end-of-sequence token.
        """
        policy = cls(str(getattr(model.config, "_name_or_path", "") or type(model).__name__))
        policy.model, policy.tokenizer, policy.config = model, tokenizer, model.config
        policy.encoder = Encoder(tokenizer, policy.vocabulary_size, {}, policy.chat_template_date, policy.path)
        policy._set_special_tokens()
        return policy

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @property
    def context_length(self) -> int:
        """The longest sequence, in tokens, that the model's configuration allows; known after `prepare()`."""
        config = self.config if self.model is None else self.model.config
        return context_length(config)

    def excess(self, length: int) -> str:
        """Say that a sequence of so many tokens is too long for the model's context; return an empty text if it fits.

        Example:
            `1100 tokens exceed the model's context of 1024`
        """
        context = self.context_length
        return f"{length} tokens exceed the model's context of {context}" if length > context else ""

    @property
    def vocabulary_size(self) -> int:
        """How many token ids the model's embedding knows; after `prepare()`, how many its configuration names."""
        if self.model is None:
            return int(self.config.get_text_config().vocab_size)
        return int(self.model.get_input_embeddings().num_embeddings)

    def encode_prompt(self, text: str) -> list[int]:
        """Return the token ids of a user's turn, as the option `chat_template` says.

        Raises:
            PolicyError: the tokenizer gives a token that the model does not know.
        """
        return self.encoder.prompts([text])[0]

    def encode_turn(self, text: str, reply: str, visible: Collection[int] = ()) -> tuple[list[int], list[int]]:
        """Return the token ids of a user's turn and of the reply with its end of sequence (see `Encoder.turn`).

        Raises:
            PolicyError: the chat template's text with a reply does not begin with its text without.
        """
        return self.encoder.turn(text, reply, self.eos_ids[0], visible)

    def save(self, folder: Path, dtype: str | None = None) -> None:
        """Write model (safetensors) and tokenizer in Hugging Face format, in another dtype where `dtype` names one.

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

    def _set_special_tokens(self) -> None:
        self.eos_ids = end_tokens(self.model, self.tokenizer, self.vocabulary_size, self.path)
        self.pad_id = padding_token(self.tokenizer, self.vocabulary_size, self.eos_ids[0])
