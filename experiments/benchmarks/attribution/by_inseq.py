"""Attention and value zeroing, by inseq's own operators on token ids.

Both give a matrix of positions that attend by positions attended to, for every layer (and head). A token's attribution is
the mean over layers, heads and the positions that predict the answer's tokens. inseq's own entrance takes texts and
tokenizes them anew, which need not give the tokens that the policy wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import inseq
import torch
from inseq.attr.feat.internals_attribution import AttentionWeightsAttribution
from inseq.attr.feat.ops.value_zeroing import ValueZeroing
from inseq.data import BatchEmbedding, BatchEncoding, DecoderOnlyBatch
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.probe import Target
from atmanrl.probe.module import frozen
from experiments.benchmarks.attribution.methods import Attribute, one_by_one


def attention(policy: Policy) -> Attribute:
    """Attention weights."""
    model = inseq.load_model(policy.model, "attention", tokenizer=policy.tokenizer, device=str(policy.device))
    method = AttentionWeightsAttribution.AttentionWeights(model)

    def matrix(batch: DecoderOnlyBatch) -> Tensor:
        output = model.get_forward_output(batch, use_embeddings=False, output_attentions=True)
        weights = method.attribute((batch.input_ids,), (), **model.get_attentions_dict(output)).target_attributions
        return weights[0].mean((2, 3))  # of layers and heads

    return _attribute(policy, matrix)


def value_zeroing(policy: Policy) -> Attribute:
    """Value zeroing (Mohebbi et al. 2023, arXiv 2301.12971)."""
    model = inseq.load_model(policy.model, "value_zeroing", tokenizer=policy.tokenizer, device=str(policy.device))
    method = TupleValueZeroing(model)

    def matrix(batch: DecoderOnlyBatch) -> Tensor:
        output = model.get_forward_output(batch, use_embeddings=True, output_hidden_states=True)
        states = model.get_hidden_states_dict(output)
        extra = (batch.input_ids, batch.input_ids[:, -1:], None, batch.attention_mask, True, [])
        return method.attribute((batch.input_embeds,), extra, **states)[0][0].mean(-1)  # of layers

    return _attribute(policy, matrix)


class TupleValueZeroing(ValueZeroing):
    """inseq's operator for layers that return a tensor, as they do from transformers 5 on.

    inseq 0.7.1 expects a tuple whose first element is the tensor.
    """

    def get_states_extract_and_patch_hook(self, block_idx: int, hidden_state_idx: int = 0) -> Callable[..., Any]:
        """Return inseq's hook, which sees a tuple."""
        hook = super().get_states_extract_and_patch_hook(block_idx, hidden_state_idx)

        def of_tensor(module: Any, args: Any, output: Any) -> Any:
            return hook(module, args, (output,))[0] if isinstance(output, Tensor) else hook(module, args, output)

        return of_tensor


def _attribute(policy: Policy, matrix: Callable[[DecoderOnlyBatch], Tensor]) -> Attribute:
    """Return the attributions that a matrix `[attended to, attends]` gives."""

    def attribute(target: Target) -> list[float]:
        ids = torch.tensor([[*target.prompt_ids, *target.tail[:-1]]], device=policy.device)
        with frozen(policy.model), torch.no_grad():
            embedded = policy.model.get_input_embeddings()(ids)
            batch = DecoderOnlyBatch(BatchEncoding(ids, torch.ones_like(ids)), BatchEmbedding(embedded))
            begin = len(target.prompt_ids)
            rows = matrix(batch)[begin : begin + len(target.cot_ids), -len(target.answer_ids) :]
        return rows.double().mean(1).tolist()

    return one_by_one(attribute)
