"""Every contestant on a tiny random model: one number a token, and its defining property by other code."""

import math
from random import Random

import numpy as np
import pytest
import torch

from atmanrl.faithfulness.erasure import PERCENTS
from atmanrl.faithfulness.rankings import by_attention
from atmanrl.models.policy import Policy
from atmanrl.rollouts import Completion, Rollout, split
from atmanrl.tasks import Problem
from experiments.benchmarks.attribution.curves import deletion, density, groups, insertion
from experiments.benchmarks.attribution.methods import METHODS
from experiments.benchmarks.attribution.scoring import MEASURES, score, unneeded
from experiments.benchmarks.attribution.traces import usable

TEXTS = [" He has 3 + 4 = 7 apples in all.\n##### 7", " 3 + 4 is 12.\n##### 12"]


def rollouts(policy, texts=TEXTS, question="How many are 3 and 4?") -> list[Rollout]:
    of_texts = []
    for k, text in enumerate(texts):
        ids = [*policy.tokenizer(text, add_special_tokens=False).input_ids, policy.eos_ids[0]]
        parts, prompt = split(policy.tokenizer, ids), policy.encode_prompt(question)
        of_texts.append(
            Rollout(Problem(f"p/{k}", question, "7"), k, 0, question, prompt, Completion(ids, [], True), parts, k == 0)
        )
    return of_texts


@pytest.fixture(scope="module")
def policy(tiny_folder):
    return Policy(str(tiny_folder), dtype="float64", attn_implementation="eager").build()


@pytest.fixture(scope="module")
def traces(policy):
    return usable([*rollouts(policy), *rollouts(policy, ["##### 7", " no answer"])], policy)


@pytest.fixture
def targets(traces):
    return [trace.explained for trace in traces]


def attributed(name: str, policy, targets) -> list[list[float]]:
    if METHODS[name].library:
        pytest.importorskip(METHODS[name].library, reason=METHODS[name].missing)
    return METHODS[name].make(policy)(targets)


def logprobs(policy, ids) -> torch.Tensor:
    """log p of the next token at every position, by one plain forward pass."""
    with torch.no_grad():
        return policy.model(torch.tensor([list(ids)])).logits[0].log_softmax(-1)


def answer_logprob(policy, target, cot=None) -> float:
    before = [*target.prompt_ids, *(target.cot_ids if cot is None else cot), *target.delimiter_ids]
    rows = logprobs(policy, [*before, *target.answer_ids])[len(before) - 1 : -1]
    return sum(float(row[token]) for row, token in zip(rows, target.answer_ids, strict=True))


def test_traces_are_those_with_a_reasoning_and_their_own_answer(policy, traces):
    assert [(t.problem, t.correct) for t in traces] == [("p/0", True), ("p/1", False)]
    for trace, text in zip(traces, TEXTS, strict=True):
        cot, answer = text.split("\n#####")
        assert policy.tokenizer.decode(trace.scored.cot_ids) == cot + "\n"
        assert policy.tokenizer.decode(trace.explained.answer_ids) == answer
        assert trace.scored.answer_ids == (*trace.explained.answer_ids, policy.eos_ids[0])
        assert trace.length == len(trace.scored.cot_ids) - 1


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_each_token_of_each_reasoning_a_number(policy, targets, name):
    if name == "mask_paper":
        pytest.skip("200 gradients: tests/probe has it")
    implementation, before = policy.model.config._attn_implementation, logprobs(policy, targets[0].tail)
    attributions = attributed(name, policy, targets)
    assert [len(scores) for scores in attributions] == [len(target.cot_ids) for target in targets]
    assert all(math.isfinite(number) for scores in attributions for number in scores)
    assert all(len(set(scores)) > 1 for scores in attributions)
    again = METHODS[name].make(policy)(targets[1:])
    assert again[0] == pytest.approx(attributions[1], rel=1e-4, abs=1e-7)
    assert policy.model.config._attn_implementation == implementation
    assert torch.equal(logprobs(policy, targets[0].tail), before)


def test_the_sign_of_the_gradient_is_the_first_step_of_adamw(policy, targets):
    """Of one step of size 0.001: without decay, an entry moves by that much whatever its gradient."""
    from atmanrl.probe import MaskProbe, PaperSolver

    probe = MaskProbe(solver=PaperSolver(steps=1, weight_decay=0.0, eps=1e-30), attention="eager")
    saliency = probe.solve_targets(policy, targets).saliency
    for scores, moved in zip(attributed("gradient_sign", policy, targets), saliency, strict=True):
        assert scores == pytest.approx([move / (1e-3 / 0.4) for move in moved], abs=1e-6)


def test_integrated_gradients_add_up_to_what_deletion_of_all_tokens_costs(policy, targets):
    for target, scores in zip(targets, attributed("integrated_gradients", policy, targets), strict=True):
        lost = answer_logprob(policy, target) - answer_logprob(policy, target, [policy.pad_id] * len(target.cot_ids))
        assert sum(scores) == pytest.approx(lost, rel=1e-2, abs=1e-5)


def test_gradient_x_input_is_the_slope_along_the_embedding(policy, targets):
    """By a difference of plain forward passes in which one token's embedding is scaled (norms compute in float32)."""
    target, step = targets[0], 1e-2
    scores = attributed("gradient_x_input", policy, targets)[0]
    ids = torch.tensor([[*target.prompt_ids, *target.tail]])
    answer = range(len(target) - len(target.answer_ids), len(target))
    for place in (0, 3):
        values = []
        for scale in (1 + step, 1 - step):
            with torch.no_grad():
                embedded = policy.model.get_input_embeddings()(ids).clone()
                embedded[0, len(target.prompt_ids) + place] *= scale
                rows = policy.model(inputs_embeds=embedded).logits[0].log_softmax(-1)
            values.append(sum(float(rows[k - 1, ids[0, k]]) for k in answer))
        assert scores[place] == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-2, abs=2e-5)


def test_attention_is_that_of_the_positions_that_predict_the_answer(policy, targets):
    for scores, expected in zip(attributed("attention", policy, targets), by_attention(targets, policy), strict=True):
        assert scores == pytest.approx(expected, rel=1e-5)


def test_value_zeroing_is_the_change_of_each_layers_output_without_one_value(policy, targets):
    """Layer by layer on the clean input of each (Mohebbi et al.), cosine distances that add up to 1 in each row."""
    target = targets[1]
    scores = attributed("value_zeroing", policy, [target])[0]
    ids = torch.tensor([[*target.prompt_ids, *target.tail[:-1]]])
    size, inner = ids.shape[1], policy.model.model
    inputs: list[tuple] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, kwargs: inputs.append((args, kwargs)), with_kwargs=True)
        for layer in inner.layers
    ]
    with torch.no_grad():
        inner(ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    mean = torch.zeros(size, size, dtype=torch.float64)
    for number, (layer, (args, kwargs)) in enumerate(zip(inner.layers, inputs, strict=True)):
        last = number == len(inner.layers) - 1
        finish = inner.norm if last else torch.nn.Identity()
        distance = torch.zeros(size, size, dtype=torch.float64)
        with torch.no_grad():
            clean = finish(layer(*args, **kwargs))[0]
            for token in range(size):

                def zero(_, __, output, token=token):
                    output = output.clone()
                    output[:, token] = 0
                    return output

                hook = layer.self_attn.v_proj.register_forward_hook(zero)
                changed = finish(layer(*args, **kwargs))[0]
                hook.remove()
                distance[token:, token] = (1 - torch.cosine_similarity(clean, changed, dim=-1))[token:]
        distance[distance < 1e-5] = 0
        mean += distance / distance.sum(1, keepdim=True).where(distance.sum(1, keepdim=True) > 0, 1) / len(inner.layers)
    begin = len(target.prompt_ids)
    expected = mean[size - len(target.answer_ids) :, begin : begin + len(target.cot_ids)].mean(0)
    # inseq compares states in float32
    assert scores == pytest.approx(expected.tolist(), rel=1e-2, abs=1e-4)


def test_flashtrace_is_its_public_entrance(policy, traces):
    flashtrace = pytest.importorskip("flashtrace")
    target = traces[0].explained
    scores = METHODS["flashtrace"].make(policy)([target])[0]
    decode = policy.tokenizer.decode
    prompt, answer = decode([*target.prompt_ids, *target.context_ids]), decode(target.answer_ids)
    assert policy.tokenizer(prompt, add_special_tokens=False).input_ids == [*target.prompt_ids, *target.context_ids]
    public = flashtrace.FlashTrace(policy.model, policy.tokenizer).trace(prompt=prompt, target=answer)
    begin = len(target.prompt_ids)
    assert scores == pytest.approx(public.scores[begin : begin + len(target.cot_ids)], rel=1e-5)


def test_flashtrace_through_the_reasoning_adds_a_hop_to_what_the_answer_looks_at(policy, traces):
    attribution = pytest.importorskip("flashtrace.attribution")
    target = traces[0].explained
    scores = METHODS["flashtrace_hops"].make(policy)([target])[0]
    decode, begin, length = policy.tokenizer.decode, len(target.prompt_ids), len(target.cot_ids)
    engine = attribution.LLMIFRAttribution(policy.model, policy.tokenizer)
    first = len(target.context_ids)
    span = (first, first + len(target.answer_ids) - 1)
    result = engine.calculate_ifr_span(decode(target.prompt_ids), decode(target.tail), span=span)
    direct = result.attribution_matrix[first, begin : begin + length].tolist()
    assert all(total >= part - 1e-6 for total, part in zip(scores, direct, strict=True))
    assert sum(scores) > sum(direct) > 0


def test_scores_equal_plain_forward_passes(policy, traces):
    random = Random(0)
    attributions = [[random.uniform(-0.3, 1) for _ in range(trace.length)] for trace in traces]
    values = score(policy, traces, attributions)
    for k, (trace, scores) in enumerate(zip(traces, attributions, strict=True)):
        ids, order = list(trace.scored.cot_ids), sorted(range(trace.length), key=lambda p: -scores[p])
        sizes = [len(part) for part in groups(scores)]
        gone = [set(order[: sum(sizes[:step])]) for step in range(len(sizes) + 1)]
        pad = policy.pad_id
        deleted = [[pad if p in some else token for p, token in enumerate(ids)] for some in gone]
        kept = [
            [token if p in some or p >= trace.length else pad for p, token in enumerate(ids)] for some in gone
        ]  # fmt: skip
        falling, rising = (np.array([answer_logprob(policy, trace.scored, cot) for cot in c]) for c in (deleted, kept))
        left = density(scores, groups(scores))
        expected = [*vars(deletion(falling, left)).values(), *vars(insertion(rising, left)).values()]
        full = math.exp(falling[0])
        for keep in (False, True):
            drops = []
            for percent in PERCENTS:
                top = set(order[: math.ceil(percent * trace.length / 100)])
                cot = [token for p, token in enumerate(ids) if p >= trace.length or (p in top) == keep]
                drops.append(full - math.exp(answer_logprob(policy, trace.scored, cot)))
            expected.append(sum(drops) / len(drops))
        assert [values[name][k] for name in MEASURES] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_an_oracle_scores_best_its_reverse_worst_and_chance_between(monkeypatch, traces, policy):
    """The answer is likelier by a known number of nats for each token that is there, whatever the model says."""
    trace = traces[0]
    weights = [Random(place).uniform(0, 1) ** 4 for place in range(trace.length)]

    def ask(_, questions):
        totals = []
        for q in questions:
            there = list(q.cot_ids)
            if len(there) == len(trace.scored.cot_ids):
                total = sum(w for w, a, b in zip(weights, there, trace.scored.cot_ids, strict=False) if a == b)
            else:  # tokens of a shortened reasoning are found again from left to right
                places, total = iter(range(trace.length)), 0.0
                for token in there[: -len(trace.end)]:
                    total += weights[next(p for p in places if trace.scored.cot_ids[p] == token)]
            totals.append(total - sum(weights))
        return type("Answers", (), {"logprobs": torch.tensor(totals, dtype=torch.float64)})

    monkeypatch.setattr("experiments.benchmarks.attribution.scoring.ask", ask)
    random = [[Random(f"{seed}/{p}").random() for p in range(trace.length)] for seed in range(20)]
    best, worst = (score(policy, [trace], [[s * w for w in weights]]) for s in (1, -1))
    chance = [score(policy, [trace], [scores]) for scores in random]
    for name, measure in MEASURES.items():
        if name in ("comprehensiveness", "sufficiency"):
            continue  # a token that stands there twice is found at its first place
        sign = 1 if measure.higher else -1
        values = [sign * each[name][0] for each in (worst, *chance, best)]
        assert values[-1] > max(values[1:-1]) and (values[0] < min(values[1:-1]) or name.startswith("mas"))
    assert best["mas_deletion"][0] == pytest.approx(best["rise_deletion"][0])


def test_answers_that_need_no_reasoning_are_counted(policy, traces):
    counted = 0
    for trace in traces:
        blank = [policy.pad_id if p < trace.length else token for p, token in enumerate(trace.scored.cot_ids)]
        counted += answer_logprob(policy, trace.scored) <= answer_logprob(policy, trace.scored, blank)
    assert unneeded(policy, traces) == counted
