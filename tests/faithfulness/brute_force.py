"""References in float64, one plain forward pass for each number, without batches, caches or hooks."""

import math

import torch

DELIMITER = "#####"


def distributions(policy, ids) -> torch.Tensor:
    """log p of the next token at every position, `[S, V]`."""
    with torch.no_grad():
        return policy.model(torch.tensor([list(ids)])).logits[0].double().log_softmax(-1)


def answer(policy, before, text: str) -> tuple[float, bool]:
    """p of ` text` and the end behind tokens, and whether each token is the likeliest."""
    tokens = [*policy.tokenizer(f" {text}", add_special_tokens=False).input_ids, policy.eos_ids[0]]
    logprobs = distributions(policy, [*before, *tokens])[len(before) - 1 : -1]
    chosen = [float(row[token]) for row, token in zip(logprobs, tokens, strict=True)]
    return math.exp(sum(chosen)), all(int(r.argmax()) == t for r, t in zip(logprobs, tokens, strict=True))


def parts(policy, rollout) -> tuple[list[int], list[int], list[int]]:
    """Tokens of the prompt, of the reasoning and of the delimiter, which is one token."""
    ids = rollout.completion.ids
    at = next(i for i, token in enumerate(ids) if policy.tokenizer.decode([token]) == DELIMITER)
    return list(rollout.prompt_ids), ids[:at], ids[at : at + 1]


def first_words(policy, cot: list[int], percent: int) -> list[int]:
    """The longest beginning of a reasoning whose text ends within its first words; then its white space at the end."""
    text = policy.tokenizer.decode(cot)
    words = text.split()[: len(text.split()) * percent // 100]
    end = 0
    for word in words:
        end = text.index(word, end) + len(word)
    kept = max(k for k in range(len(cot) + 1) if len(policy.tokenizer.decode(cot[:k])) <= end)
    white = [t for k, t in enumerate(cot) if not policy.tokenizer.decode(cot[k:]).strip()]
    return cot if percent == 100 else [*cot[:kept], *white]


def bernoulli_js(p: float, q: float) -> float:
    """The divergence by its definition."""
    total = 0.0
    for a, b in ((p, q), (1 - p, 1 - q)):
        middle = (a + b) / 2
        total += sum(each * math.log(each / middle) for each in (a, b) if each > 0) / 2
    return total
