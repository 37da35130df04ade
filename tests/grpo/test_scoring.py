"""`Scorer` with shared prompts, and log-probabilities by chunks: same values, same gradients, less memory."""

from functools import partial

import pytest
import torch
from test_grpo_architectures import CONFIGS, SHAPE
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, GraniteConfig

from atmanrl.distributed import Processes
from atmanrl.grpo import scoring
from atmanrl.grpo.scoring import Scorer
from atmanrl.models.batching import positions
from atmanrl.models.layers import takes_positions
from atmanrl.models.policy import Policy
from atmanrl.models.token_scores import scores_at, token_scores
from atmanrl.rollouts import Completion, Rollout, RolloutBatch
from atmanrl.tasks import Problem

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14, 15, 16, 17]]
BUDGETS = [10_000, 12, 1]


@pytest.fixture
def batch() -> RolloutBatch:
    """Three prompts, three rollouts each, of all lengths."""
    rollouts = []
    for row, prompt in enumerate(PROMPTS):
        for sample in range(3):
            ids = [20 + row + 3 * k for k in range(1 + (5 * row + 3 * sample) % 8)]
            completion = Completion(ids, [-1.0] * len(ids), True)
            rollouts.append(Rollout(Problem("p", "?", "1"), row, sample, "", prompt, completion, None))
    return RolloutBatch(rollouts, 3)


def learnt(policy, scorer: Scorer, batch: RolloutBatch, rows) -> tuple[dict, torch.Tensor]:
    """Log-probabilities and entropies by row, and the gradient of a weighted sum of the log-probabilities."""
    policy.zero_grad()
    found = {}
    for part in scorer.parts(batch, rows):
        weights = torch.cos(torch.arange(part.logprobs.shape[1])) * torch.tensor(part.rows)[:, None]
        (part.logprobs * weights).sum().backward()
        for row, real, values, entropy in zip(
            part.rows, part.completion_mask, part.logprobs, part.entropy, strict=True
        ):
            found[row] = torch.stack([values[real], entropy[real]]).detach()
            assert not values[~real].any() and not entropy[~real].any()
    return found, torch.cat([p.grad.flatten() for p in policy.parameters()])


@pytest.mark.parametrize("budget", BUDGETS)
def test_shared_prompts_change_neither_values_nor_gradients(tiny_policy, batch, budget):
    rows = [0, 1, 2, 4, 6, 8]
    whole, gradient = learnt(tiny_policy, Scorer(tiny_policy, 0.7, 10_000, share_prompts=False), batch, rows)
    read = []
    handle = tiny_policy.model.base_model.register_forward_hook(
        lambda _module, args, kwargs, _out: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    shared, again = learnt(tiny_policy, Scorer(tiny_policy, 0.7, budget), batch, rows)
    handle.remove()
    assert shared.keys() == whole.keys() == set(rows)
    assert all(torch.allclose(shared[row], whole[row], rtol=0, atol=1e-6) for row in rows)  # rotary tables are float32
    torch.testing.assert_close(again, gradient, rtol=1e-5, atol=1e-5)
    if budget == 10_000:  # 3 prompts padded to 5 tokens, 6 rollouts padded to 8
        assert read == [15, 6 * max(len(batch.rollouts[i].completion.ids) for i in rows)]
    assert budget < 100 or len(read) == 2


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_each_process_reads_its_partition(tiny_policy, batch, monkeypatch, sharded):
    rows, read = [6, 7, 8, 0, 1, 4], []
    monkeypatch.setattr("atmanrl.grpo.scoring.is_sharded", lambda model: sharded)
    expected, _ = learnt(tiny_policy, Scorer(tiny_policy, 0.7, 10_000), batch, rows)
    for rank in range(4):
        monkeypatch.setattr("atmanrl.grpo.scoring.processes", lambda rank=rank: Processes(rank, 4))
        read.append(list(Scorer(tiny_policy, 0.7, 12).own_parts(batch, rows)))
    real = [(part.rows, part) for parts in read for part in parts if part.completion_mask.any()]
    assert sorted(row for found, _ in real for row in found) == sorted(rows)
    for found, part in real:
        for k, row in enumerate(found):
            assert torch.allclose(part.logprobs[k][part.completion_mask[k]], expected[row][0], atol=1e-6)
    groups = [{row // 3 for part in parts for row in part.rows} for parts in read]
    if not sharded:  # three groups, each on one process, and nothing for the fourth
        assert sorted(map(sorted, groups)) == [[], [0], [1], [2]]
        return
    assert len({len(parts) for parts in read}) == 1
    idle = [part for parts in read for part in parts if not part.completion_mask.any()]
    assert idle and all(part.logprobs.requires_grad and not part.entropy.any() for part in idle)


def test_chunks_after_shared_prompts(tiny_policy, batch, monkeypatch):
    whole, gradient = learnt(tiny_policy, Scorer(tiny_policy, 0.7, 10_000), batch, range(9))
    monkeypatch.setattr("atmanrl.grpo.scoring.scores_at", partial(scores_at, most=3 * 768))
    parts, again = learnt(tiny_policy, Scorer(tiny_policy, 0.7, 10_000), batch, range(9))
    assert all(torch.allclose(parts[row], whole[row], rtol=0, atol=1e-12) for row in range(9))
    torch.testing.assert_close(again, gradient, rtol=1e-10, atol=1e-10)


def test_shared_prompts_and_chunks_in_mixed_precision(tiny_folder, batch, monkeypatch):
    """As Lightning's bf16-mixed has it; rounding apart, the gradient of float32."""
    policy = Policy(str(tiny_folder)).build()
    _, exact = learnt(policy, Scorer(policy, 1.0, 10_000, share_prompts=False), batch, range(9))
    monkeypatch.setattr("atmanrl.grpo.scoring.scores_at", partial(scores_at, most=3 * 768))
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        found, rounded = learnt(policy, Scorer(policy, 1.0, 10_000), batch, range(9))
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.999 and found[0].dtype == torch.float32


def test_one_by_one_without_padding(tiny_policy, batch):
    """Each rollout alone in a plain forward pass."""
    found = Scorer(tiny_policy, 0.7, 20).logprobs(batch)
    for values, rollout in zip(found, batch.rollouts, strict=True):
        ids = torch.tensor([rollout.prompt_ids + rollout.completion.ids])
        with torch.no_grad():
            scores = (tiny_policy.model(ids).logits[0] / 0.7).log_softmax(-1)
        start = len(rollout.prompt_ids)
        expected = scores[start - 1 : -1].gather(1, ids[0, start:, None])[:, 0]
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)
        assert not values.requires_grad


@pytest.mark.parametrize("name", CONFIGS)
def test_models_with_windows_read_whole_sequences(tiny_policy, batch, name):
    kind, options = CONFIGS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**SHAPE | options, vocab_size=97)).double().eval()
    scorer, plain = (Scorer(tiny_policy, 1.0, 40, share) for share in (True, False))
    for ours, expected in zip(scorer.logprobs(batch, model), plain.logprobs(batch, model), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert scorer.share_prompts == (name in ("Qwen2", "Qwen3"))


def test_models_that_place_tokens_by_themselves_do_not_share():
    model = AutoModelForCausalLM.from_config(BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=50))
    assert not takes_positions(model)


class Largest(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation gave."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


VOCABULARY = 997
HEADS = {"llama": None, "capped": (Gemma2Config, {"final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8}),
         "scaled": (GraniteConfig, {"logits_scaling": 5.0})}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_chunks_change_nothing_but_the_largest_tensor(tiny_policy, head):
    model, vocabulary = tiny_policy.model, 768
    if HEADS[head]:
        kind, options = HEADS[head]
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(kind(**SHAPE | options, vocab_size=VOCABULARY)).double().eval()
        vocabulary = VOCABULARY
    torch.manual_seed(1)
    ids = torch.randint(4, 700, (3, 12))
    mask = torch.ones_like(ids)
    where = torch.rand(3, 12) < 0.7
    tokens = torch.randint(0, vocabulary, (int(where.sum()),))
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask), "use_cache": False}
    weights, results, peaks = torch.randn(len(tokens), dtype=torch.float64), [], []
    for most in (10**9, 4 * vocabulary):
        model.zero_grad()
        with Largest() as largest:
            chosen, entropy = scores_at(model, where, tokens, 0.7, most=most, **inputs)
            (chosen * weights).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        results.append((chosen.detach(), entropy, gradient))
        peaks.append(largest.elements)
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    weight = model.get_output_embeddings().weight.numel()
    assert peaks[0] == max(len(tokens) * vocabulary, weight) and len(tokens) > 20
    assert peaks[1] == max(4 * vocabulary, weight, 3 * 12 * 48)
    scores = (model(**inputs).logits[where] / 0.7).log_softmax(-1)
    torch.testing.assert_close(results[1][0], scores.gather(1, tokens[:, None])[:, 0], rtol=0, atol=1e-9)
    torch.testing.assert_close(results[1][1], -(scores.exp() * scores).sum(-1), rtol=0, atol=1e-9)


def test_token_scores_in_half_precision_and_at_certainty():
    logits = torch.tensor([[0.0, 90.0, 0.0], [1.0, 2.0, 3.0]], requires_grad=True)
    chosen, entropy = token_scores(logits, torch.tensor([0, 1]), 0.5)
    assert chosen[0].item() == pytest.approx(-180) and entropy[0].item() == pytest.approx(0, abs=1e-6)
    chosen.sum().backward()
    assert logits.grad[0].tolist() == pytest.approx([2.0, -2.0, 0.0], abs=1e-6)
    assert token_scores(logits.bfloat16(), torch.tensor([0, 1]))[0].dtype == torch.float32
    weights = torch.randn(2, dtype=torch.float64)
    exact = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: token_scores(x, torch.tensor([4, 0]), 0.7)[0] * weights, exact)


def test_a_gpu_reads_prompts_by_themselves_only_where_that_saves_more_than_a_pass(tiny_policy, monkeypatch):
    """A pass of a small model waits for Python, whatever it reads; a CPU waits for the tokens."""
    batch = RolloutBatch(
        [
            Rollout(None, 0, k, "", [1] * 40, Completion([2] * 10, [0.0] * 10, True), None)
            for k in range(4)
        ],
        4,
    )  # fmt: skip
    scorer = Scorer(tiny_policy, 1.0, 1000)
    assert scorer._saves(batch, range(4), tiny_policy.model)
    monkeypatch.setattr(type(tiny_policy), "device", torch.device("cuda"))
    for by_itself, saves in ((100.0, True), (130.0, False)):  # three times 40 tokens are saved
        monkeypatch.setattr(scoring, "pass_tokens", lambda _, tokens=by_itself: tokens)
        assert scorer._saves(batch, range(4), tiny_policy.model) == saves
