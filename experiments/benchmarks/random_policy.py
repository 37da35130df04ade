"""A policy of the laptop policy's shape with random weights and another tokenizer's vocabulary: what does a large one cost?

python -m experiments.benchmarks.random_policy --tokenizer models/SmolLM2-135M-Instruct --out runs/random_49k
python -m experiments.benchmarks.grpo_vs_trl --policy runs/random_49k --without_saliency
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

SHAPE = Path(__file__).parents[1] / "laptop/policy"


def main() -> None:
    """Draw the weights and write the folder."""
    parser = argparse.ArgumentParser(description="A small policy with random weights and another tokenizer.")
    parser.add_argument("--tokenizer", required=True, help="folder of a Hugging Face tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    tokenizer.chat_template = AutoTokenizer.from_pretrained(SHAPE).chat_template  # bare questions
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.from_pretrained(
        SHAPE, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **special
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
