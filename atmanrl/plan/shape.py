"""The shape of a model, taken from the model itself on the meta device: all its layers, and no weights."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from atmanrl.errors import UserError, first_line
from atmanrl.models.adapter_folder import Adapter
from atmanrl.models.adapters import LoRA, is_adapter, with_adapters
from atmanrl.models.building import unfilled_model
from atmanrl.models.errors import PolicyError
from atmanrl.models.layers import usual_layers
from atmanrl.models.loading import Source, context_length, load_config


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that memory and time depend on.

    Attributes:
        name: class of the model.
        layers: L.
        hidden: h, width of the residual stream.
        heads: of the queries, in each layer.
        kv_heads: of keys and values.
        head_dim: width of a head.
        intermediate: f, width of the feed-forward part.
        vocabulary: V.
        embedding_parameters: of the embedding of tokens.
        layer_parameters: of all layers together.
        head_parameters: of the language-model head; 0 where it shares the embedding's weights.
        other_parameters: all else (the last norm).
        trainable_parameters: those that learn: all, or the adapters.
        adapter_parameters: of the adapters, which are in none of the parts above; 0 without.
        context: the longest sequence, in tokens.

    Example:
        `ModelShape("LlamaForCausalLM", layers=4, hidden=128, heads=4, kv_heads=4, head_dim=32, intermediate=352,
        vocabulary=768, embedding_parameters=98304, layer_parameters=803840, head_parameters=0, other_parameters=128,
        trainable_parameters=902272)`
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    embedding_parameters: int
    layer_parameters: int
    head_parameters: int
    other_parameters: int
    trainable_parameters: int
    adapter_parameters: int = 0
    context: int = 1 << 30

    @property
    def parameters(self) -> int:
        """All of them, each once; without adapters, those that were loaded."""
        return self.embedding_parameters + self.layer_parameters + self.head_parameters + self.other_parameters

    @property
    def query_width(self) -> int:
        """Width of all queries of a layer."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all keys of a layer, and of all values."""
        return self.kv_heads * self.head_dim

    @property
    def feed_forward_parameters(self) -> int:
        """Of one layer's feed-forward part, with a gate: three matrices."""
        return 3 * self.hidden * self.intermediate

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {**asdict(self), "parameters": self.parameters}


def read_config(source: Source, model_config: Path | None = None) -> Any:
    """Read a model's configuration from a file, a folder or the hub; no weights are loaded.

    Args:
        source: of the model.
        model_config: a `config.json` in place of the source's.

    Raises:
        UserError: there is none, or it cannot be had offline.
    """
    if model_config is not None:
        if not model_config.exists():
            raise UserError(f"--model_config: there is no file {model_config}.")
        source = Source(str(model_config))
    try:
        if model_config is None and (adapter := Adapter.at(source.path, source.revision)) is not None:
            source = replace(source, path=adapter.base, revision=None)
        return load_config(source)
    except PolicyError as error:
        raise UserError(
            f"{str(error).removesuffix('.')}; without the network or a licence, give the model's config.json by "
            "--model_config FILE."
        ) from error


def shape_of(config: Any, lora: LoRA | None = None, trust_remote_code: bool = False) -> ModelShape:
    """Measure the causal language model of a configuration, built on the meta device.

    Args:
        config: of transformers.
        lora: adapters that are put into it, or None.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        UserError: no causal language model has such a configuration, it is not built of layers of the usual kind, or has
            no place for the adapters.
    """
    path = str(getattr(config, "_name_or_path", "") or type(config).__name__)
    try:
        model = unfilled_model(
            Source(path, trust_remote_code=trust_remote_code), copy.deepcopy(config), "meta", generates=False
        )
    except (PolicyError, AttributeError) as error:
        raise UserError(f"no causal language model can be made of this configuration: {first_line(error)}") from error
    own = {id(p): p.numel() for p in model.parameters()}
    text = config.get_text_config()
    layers = usual_layers(model)
    if layers is None or not hasattr(text, "intermediate_size"):
        raise UserError(f"{type(model).__name__} is not built of layers of attention and a feed-forward part.")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    in_embedding, in_layers = _count(embedding), _count(layers)
    in_head = sum(p.numel() for p in head.parameters() if all(p is not q for q in embedding.parameters()))
    if lora is not None:
        with torch.device("meta"):
            with_adapters(model, lora, path)
    adapters = sum(p.numel() for name, p in model.named_parameters() if is_adapter(name))
    heads = text.num_attention_heads
    return ModelShape(
        name=type(model).__name__, layers=len(layers), hidden=text.hidden_size, heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        intermediate=text.intermediate_size, vocabulary=text.vocab_size, embedding_parameters=in_embedding,
        layer_parameters=in_layers, head_parameters=in_head,
        other_parameters=sum(own.values()) - in_embedding - in_layers - in_head,
        trainable_parameters=adapters or sum(own.values()), adapter_parameters=adapters, context=context_length(config),
    )  # fmt: skip


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())
