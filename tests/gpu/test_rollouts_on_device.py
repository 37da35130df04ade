"""Sampling and scoring on the device, in every precision."""

from functools import partial

import pytest
import torch
from laptop import PRECISIONS, cosine, policy_in, rollouts

from atmanrl.errors import UserError
from atmanrl.grpo import scoring
from atmanrl.grpo.scoring import Scorer
from atmanrl.models.token_scores import scores_at, token_scores
from atmanrl.rollouts import Completion, HFSampler, Rollout, RolloutBatch, SamplingOptions, sample

pytestmark = pytest.mark.gpu
PROMPTS = [
    "Anna buys 8 cups for $2 each.",
    "How many?",
    "A book has 52 pages, and Maria wants to read all of it. When?",
]
GROUP, TOKENS = 2, 12


def sampled(policy) -> list[list[Completion]]:
    """Completions of prompts of unequal length, which stand padded on the left."""
    uniform = torch.rand(len(PROMPTS), GROUP, TOKENS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return sample(policy, [policy.encode_prompt(text) for text in PROMPTS], uniform)


@pytest.mark.parametrize("compile", [False, "auto", "cudagraphs", "default", "reduce-overhead"])
def test_a_static_cache_gives_the_tokens_of_a_dynamic_one(device, compile):
    if compile and device.type == "cpu":
        pytest.skip("CUDA graphs need a CUDA device, and inductor a minute on a CPU")
    uniform = torch.rand(len(PROMPTS), 8, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    with policy_in("float32", device) as policy:
        for sampler in (HFSampler("dynamic", False), HFSampler("static", compile)):
            prompts = [policy.encode_prompt(text) for text in PROMPTS]
            groups = sampler.sample(policy, prompts, uniform, SamplingOptions(60))
            found.append([completion for group in groups for completion in group])
    assert [completion.ids for completion in found[0]] == [completion.ids for completion in found[1]]
    logprobs = [torch.cat([torch.tensor(completion.logprobs) for completion in each]) for each in found]
    assert (logprobs[0] - logprobs[1]).abs().max() < 1e-3


def test_a_step_that_cannot_be_captured_is_taken_as_it_is_unless_a_graph_was_asked_for(device, caplog):
    if device.type == "cpu":
        pytest.skip("CUDA graphs need a CUDA device")
    uniform = torch.rand(len(PROMPTS), 8, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with policy_in("float32", device) as policy:
        prompts, options = [policy.encode_prompt(text) for text in PROMPTS], SamplingOptions(30)
        usual = HFSampler("dynamic", False).sample(policy, prompts, uniform, options)
        # to ask for a value makes the host wait, which a graph cannot hold
        policy.layers()[0].register_forward_hook(lambda *args: float(args[2].sum()) and None)
        own = HFSampler().sample(policy, prompts, uniform, options)
        with pytest.raises(UserError, match="cannot be captured as a CUDA graph"):
            HFSampler("static", "cudagraphs").sample(policy, prompts, uniform, options)
    assert [[c.ids for c in group] for group in usual] == [[c.ids for c in group] for group in own]
    assert "taken one kernel at a time" in caplog.text


def as_batch(policy, completions) -> RolloutBatch:
    made = [
        Rollout(None, row, s, text, policy.encode_prompt(text), completion, None)
        for row, (text, group) in enumerate(zip(PROMPTS, completions, strict=True))
        for s, completion in enumerate(group)
    ]
    return RolloutBatch(made, GROUP)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_left_padded_sampling_gives_the_logprobs_of_float64(device, precision, attention):
    with policy_in(precision, device) as policy:
        policy.model.set_attn_implementation(attention)
        completions = sampled(policy)
    with policy_in("float64", torch.device("cpu")) as exact:
        right = Scorer(exact, 1.0, 10_000).logprobs(as_batch(exact, completions))
        if precision == "float32":
            theirs = [[c.ids for c in group] for group in sampled(exact)]
            assert [[c.ids for c in group] for group in completions] == theirs
    ours = torch.cat([torch.tensor(c.logprobs) for group in completions for c in group]).double()
    assert ours.isfinite().all()
    assert (ours - torch.cat(right)).abs().max() < (1e-3 if precision == "float32" else 0.5)


def learnt(policy, scorer: Scorer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities, entropies, and the gradient of a weighted sum of the log-probabilities."""
    policy.zero_grad()
    batch = rollouts(policy, 2, 2)
    found = {}
    for part in scorer.parts(batch, range(len(batch))):
        places = torch.arange(part.logprobs.shape[1], device=policy.device)
        (part.logprobs * torch.cos(places)).sum().backward()
        for row, real, values, entropy in zip(
            part.rows, part.completion_mask, part.logprobs, part.entropy, strict=True
        ):
            found[row] = torch.stack([values[real], entropy[real]]).detach().cpu()
    both = torch.cat([found[row] for row in sorted(found)], dim=1)
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters()]).cpu()
    return both[0], both[1], gradient


def test_shared_prompts_and_chunked_logits_under_autocast_are_whole_sequences_in_float64(device, monkeypatch):
    with policy_in("float64", torch.device("cpu")) as policy:
        exact = learnt(policy, Scorer(policy, 1.0, 10_000, share_prompts=False))
    with policy_in("autocast", device) as policy:
        monkeypatch.setattr(scoring, "scores_at", partial(scores_at, most=9 * 768))  # nine positions at a time
        shared = learnt(policy, Scorer(policy, 1.0, 100))
    for ours, theirs in zip(shared[:2], exact[:2], strict=True):
        assert (ours - theirs).abs().mean() < 0.02
    assert cosine(shared[2], exact[2]) > 0.999


def test_entropies_are_sums_in_float32_under_autocast(device):
    logits = 5 * torch.randn(3, 20_000, generator=torch.Generator().manual_seed(0))
    right = torch.distributions.Categorical(logits=logits.double()).entropy()
    with torch.autocast(device.type, torch.bfloat16):
        _, entropy = token_scores(logits.to(device), torch.zeros(3, dtype=torch.long, device=device))
    assert (entropy.cpu() - right).abs().max() < 1e-3
