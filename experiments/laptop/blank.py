"""Make the blank laptop policy: a Llama configuration and a byte-fallback BPE tokenizer, without weights.

    python -m experiments.laptop.blank --out experiments/laptop/blank

`atmanrl fit --config configs/laptop_sft.yaml` then draws the weights and trains them. Running this again gives the
same files: the tokenizer is trained on the training problems of `WordProblems` with seed 0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from atmanrl.tasks import DELIMITER, WordProblems

SPACE = "▁"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}Question: {{ message['content'] }}\n"
    "Reasoning:{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def texts(problems: int) -> Iterator[str]:
    """What the tokenizer is trained on: prompts and worked solutions."""
    for problem in WordProblems(train_size=problems, instruction="").problems("train"):
        yield f"Question: {problem.question}\nReasoning: {problem.solution}\n{DELIMITER} {problem.gold}"


def tokenizer(vocabulary: int, problems: int) -> PreTrainedTokenizerFast:
    """A BPE tokenizer in which every digit is a token of its own and no text is unknown (bytes as a fallback)."""
    tok = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tok.normalizer = normalizers.Replace(" ", SPACE)
    # a word or a digit takes the space before it along; everything else stands alone, the delimiter in one piece
    pieces = Regex(rf"{SPACE}?\d|{SPACE}?\p{{L}}+|{SPACE}?#+|{SPACE}?[^\s\d\p{{L}}{SPACE}#]|{SPACE}|\s")
    tok.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="isolated")
    tok.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - len(bytes_), special_tokens=special, show_progress=False)
    tok.train_from_iterator(texts(problems), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=_with_bytes(tok, bytes_), pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False, model_max_length=1024,
    )  # fmt: skip


def _with_bytes(tok: Tokenizer, bytes_: list[str]) -> Tokenizer:
    """The trained tokenizer with the 256 byte tokens in its vocabulary, which BPE training cannot add itself."""
    state = json.loads(tok.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    for byte in bytes_:
        vocabulary[byte] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(state))


def main() -> None:
    """Write the tokenizer and the configuration."""
    parser = argparse.ArgumentParser(description="Make the blank laptop policy (tokenizer and configuration).")
    parser.add_argument("--out", type=Path, default=Path("experiments/laptop/blank"))
    parser.add_argument("--vocabulary", type=int, default=768)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4, help="attention heads of 32 dimensions")
    parser.add_argument("--key-value-heads", type=int, help="as many as heads unless given")
    parser.add_argument("--problems", type=int, default=20_000, help="problems that the tokenizer is trained on")
    args = parser.parse_args()
    tok = tokenizer(args.vocabulary, args.problems)
    tok.save_pretrained(args.out)
    LlamaConfig(
        vocab_size=len(tok), hidden_size=32 * args.heads, intermediate_size=16 * round(5.4 * args.heads),
        num_hidden_layers=args.layers, num_attention_heads=args.heads,
        num_key_value_heads=args.key_value_heads or args.heads, max_position_embeddings=1024, tie_word_embeddings=True,
        initializer_range=0.05, pad_token_id=tok.pad_token_id, bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id, architectures=["LlamaForCausalLM"],
    ).save_pretrained(args.out)  # fmt: skip
    print(f"{args.out}: {len(tok)} tokens")


if __name__ == "__main__":
    main()
