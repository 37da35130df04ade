"""Loss, gradient and every metric against TRL's own code on the same tensors, for every option that both have."""

from types import SimpleNamespace

import pytest
import torch
from trl_trainer import EOS, PROMPT, run

from atmanrl.grpo import ClippedLoss, Experience, GRPOModule
from atmanrl.grpo.rollout_metrics import rollout_metrics
from atmanrl.grpo.scoring import Scored
from atmanrl.grpo.step_metrics import StepMetrics
from atmanrl.models.policy import Policy
from atmanrl.rewards import Scores
from atmanrl.rollouts import Completion, RolloutBatch

LENGTHS, TRUNCATED, GROUP, LIMIT = [7, 1, 4, 9, 3, 9, 5, 2], (3, 5), 4, 20
REWARDS = {"outcomes": [[0, 0.3], [-1, 0.1], [0, 0.9], [-1, 0.2], [-1, 0.4], [-1, 0.5], [0, 0.6], [0, 0.0]],
           "one_flat": [[0, 0.3], [-1, 0.1], [0, 0.9], [-1, 0.2], *[[-1, 0.4]] * 4],
           "flat": [[-1, 0.4]] * 8}  # fmt: skip
OPTIONS = [
    {}, {"loss_type": "dapo"}, {"loss_type": "dr_grpo"}, {"importance_sampling_level": "sequence"},
    {"epsilon": 0.1, "epsilon_high": 0.28}, {"beta": 0.3}, {"beta": 0.3, "use_bias_correction_kl": False},
    {"beta": 0.3, "importance_sampling_level": "sequence", "loss_type": "dapo"}, {"scale_rewards": "group"},
    {"scale_rewards": "batch"}, {"mask_truncated_completions": True},
    {"mask_truncated_completions": True, "loss_type": "dapo", "beta": 0.1},
    {"mask_truncated_completions": True, "loss_type": "dr_grpo", "epsilon_high": 0.3},
    {"mask_truncated_completions": True, "importance_sampling_level": "sequence", "scale_rewards": "group"},
]  # fmt: skip


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl.trainer.grpo_trainer", reason="trl is not installed")


@pytest.fixture
def given() -> SimpleNamespace:
    """Ratios in and out of the clip range; on padding there is rubbish, and nothing that it says may matter."""
    generator = torch.Generator().manual_seed(0)
    size = (len(LENGTHS), max(LENGTHS))

    def noise(scale, *shape):
        return scale * torch.randn(*(shape or size), generator=generator, dtype=torch.float64)

    old = -3 * torch.rand(size, generator=generator, dtype=torch.float64)
    logprobs = old + noise(0.4, len(LENGTHS), 1) + noise(0.3)
    tensors = {"old": old, "reference": logprobs + noise(0.5), "entropy": noise(1.0).abs()}
    ids = [[7 + row] * (length - 1) + [9 if row in TRUNCATED else EOS] for row, length in enumerate(LENGTHS)]
    return SimpleNamespace(
        completions=ids, mask=torch.arange(size[1])[None] < torch.tensor(LENGTHS)[:, None],
        logprobs=logprobs.to(torch.float32).requires_grad_(), **{k: v.to(torch.float32) for k, v in tensors.items()},
    )  # fmt: skip


def batch() -> RolloutBatch:
    rollouts = [
        SimpleNamespace(prompt_ids=PROMPT, completion=Completion([1] * length, [], row not in TRUNCATED), correct=None,
                        parts=SimpleNamespace(cot_length=0))
        for row, length in enumerate(LENGTHS)
    ]  # fmt: skip
    return RolloutBatch(rollouts, GROUP)


class GivenScorer:
    """Says what was given, in two parts."""

    def __init__(self, given):
        self.given = given

    def dealt(self, batch, rows):
        for part in (list(rows[:3]), list(rows[3:])):
            real = self.given.mask[part][:, : max(LENGTHS[i] for i in part)]
            given = [t[part][:, : real.shape[1]] for t in (self.given.logprobs, self.given.entropy)]
            kept = [torch.where(real, t, torch.zeros(())) for t in given]  # padding is 0
            yield Scored(part, real, *kept)


def ours(given, rewards, **options) -> tuple[torch.Tensor, dict[str, float], torch.Tensor]:
    """One minibatch through `GRPOModule`'s own step: loss, figures and gradient."""
    of_the_module = {name: options.pop(name) for name in ("scale_rewards",) if name in options}
    loss = ClippedLoss(**options)
    module = GRPOModule(Policy("nowhere"), loss=loss, minibatch_queries=2, num_iterations=1, **of_the_module)
    module.scorer, module.max_new_tokens = GivenScorer(given), LIMIT
    weight = torch.zeros((), requires_grad=True)
    module._trainer = SimpleNamespace(strategy=SimpleNamespace(model=None))
    module._torch_optimizer = lambda: torch.optim.SGD([weight], lr=0.0)
    module._lightning_optimizer = module._torch_optimizer
    module.manual_backward = lambda loss: loss.backward(retain_graph=True)
    scores = Scores({"first": rewards[:, 0], "second": rewards[:, 1]}, rewards @ torch.tensor([1.0, 0.5]), {})
    padded = {name: [getattr(given, name)[i, :n] for i, n in enumerate(LENGTHS)] for name in ("old", "reference")}
    experience = Experience(
        batch(), slice(0, 8), scores, module.advantages(scores.total, GROUP), padded["old"],
        padded["reference"] if loss.uses_reference else None, [0, 1], 0,
    )  # fmt: skip
    metrics = StepMetrics()
    module._optimizer_step(experience, list(range(8)), metrics, last=True)
    found = rollout_metrics(experience, module.scale_rewards) | metrics.means()
    return found["loss"], found, given.logprobs.grad


@pytest.mark.parametrize("rewards", REWARDS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(map(str, o.values())) or "default")
def test_loss_gradient_and_metrics_are_trls(trl, given, rewards, options):
    given.rewards = torch.tensor(REWARDS[rewards], dtype=torch.float32)
    epsilons = {"epsilon_low": options.get("epsilon", 0.2)}
    epsilons["epsilon_high"] = options.get("epsilon_high", epsilons["epsilon_low"])
    loss, expected = run(trl, given, **{k: v for k, v in options.items() if k != "epsilon"} | epsilons)
    (gradient,) = torch.autograd.grad(loss, given.logprobs)
    found_loss, found, found_gradient = ours(given, given.rewards, **options)
    assert found_loss == pytest.approx(float(loss.detach()), rel=1e-6, abs=1e-6)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-6, atol=1e-7)
    shared = set(expected) - {"num_tokens"}
    assert ("kl" in shared) == bool(options.get("beta")) and len(shared) > 18 and not shared - set(found)
    for name in shared:
        assert found[name] == pytest.approx(expected[name], rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize("options", OPTIONS[1:], ids=lambda o: ",".join(map(str, o.values())))
def test_every_option_changes_the_loss(given, options):
    """So that no comparison above holds because an option does nothing on either side."""
    rewards = torch.tensor(REWARDS["outcomes"])
    assert ours(given, rewards, **options)[0] != pytest.approx(ours(given, rewards)[0], rel=1e-3)
