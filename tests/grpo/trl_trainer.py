"""TRL's own GRPO code on given tensors: a trainer that is no more than what its methods look at."""

from collections import defaultdict
from types import SimpleNamespace

import torch

PROMPT, EOS, PAD = [5, 6], 2, 0


def run(trl, given: SimpleNamespace, **options) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss and metrics of one minibatch, from `_generate_and_score_completions` to `_compute_loss`.

    Args:
        trl: the module `trl.trainer.grpo_trainer`.
        given: `completions` (token ids), `rewards` `[B, 2]`, and padded `logprobs`, `old`, `reference`, `entropy`.
        options: of the trainer, where they differ from the defaults here.
    """
    metrics = defaultdict(list)
    defaults = {
        "loss_type": "grpo", "importance_sampling_level": "token", "epsilon_low": 0.2, "epsilon_high": 0.2, "beta": 0.0,
        "scale_rewards": "none", "mask_truncated_completions": False, "num_generations": 4, "max_completion_length": 20,
    }  # fmt: skip
    args = SimpleNamespace(
        delta=None, steps_per_generation=1, gradient_accumulation_steps=1, per_device_train_batch_size=99,
        gradient_checkpointing_kwargs=None, use_bias_correction_kl=options.pop("use_bias_correction_kl", True),
    )  # fmt: skip

    def scored(model, *_, **__):
        return (given.reference if model is itself.ref_model else given.logprobs), given.entropy, None

    itself = SimpleNamespace(
        **(defaults | options), args=args, model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        ref_model=SimpleNamespace(), num_iterations=1, reward_weights=torch.tensor([1.0, 0.5]),
        reward_func_names=["first", "second"], multi_objective_aggregation="sum_then_normalize",
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False, aux_loss_enabled=False,
        _entropy_bonus_enabled=False, current_gradient_accumulation_steps=1, environment_factories=None, tools=None,
        environments=None, rollout_func=None, log_multimodal=False, pad_to_multiple_of=None, eos_token_ids=[EOS],
        _tokenizer=SimpleNamespace(pad_token_id=PAD), state=SimpleNamespace(num_input_tokens_seen=0),
        processing_class=SimpleNamespace(batch_decode=lambda rows, **_: [str(row) for row in rows]),
        accelerator=SimpleNamespace(device=torch.device("cpu"), num_processes=1, process_index=0, gather=lambda x: x,
                                    reduce=lambda x, reduction: x),
        _metrics={"train": metrics}, _logs=defaultdict(list, rewards=defaultdict(list), extra=defaultdict(list)),
        _pending_extra_logs={}, _pending_metrics={}, _get_per_token_logps_and_entropies=scored,
        _tokenize_prompts=lambda prompts: ([PROMPT for _ in prompts], None, {}),
        _generate_single_turn=lambda *_: (given.completions, None), _calculate_rewards=lambda *_: given.rewards,
    )  # fmt: skip
    itself._generate = lambda prompts: trl.GRPOTrainer._generate(itself, prompts)
    prompts = [{"prompt": "q"} for _ in given.completions]
    inputs = trl.GRPOTrainer._generate_and_score_completions(itself, prompts)
    loss = trl.GRPOTrainer._compute_loss(itself, None, inputs | {"old_per_token_logps": given.old})
    return loss, {name: float(values[0]) for name, values in metrics.items()}
