"""Four rollouts of written texts, and the probe with few steps that measures them."""

from atmanrl.probe import MaskProbe, PaperSolver
from atmanrl.rollouts import Completion, Rollout, split
from atmanrl.tasks import Problem

STEPS = 12
TEXTS = [
    ("Tom has 3 apples and buys 4.", " 3 + 4 = 7. ##### 7", "7"),
    ("Tom has 3 apples and buys 4.", " So he has 8 apples now ##### 8", "7"),
    ("2 + 2?", " two and two, that is 4.\n##### 4", "4"),
    ("Ann has 5 pens. She loses 2 of them and then finds 9.", " 5 - 2 = 3 ##### 12", "12"),
]


def rollouts(policy, texts=TEXTS) -> list[Rollout]:
    made = []
    for row, (prompt, said, gold) in enumerate(texts):
        ids = [*policy.tokenizer(said, add_special_tokens=False).input_ids, policy.eos_ids[0]]
        made.append(
            Rollout(
                Problem(f"p/{row}", prompt, gold), row, 0, prompt, policy.encode_prompt(prompt),
                Completion(ids, [0.0] * len(ids), True), split(policy.tokenizer, ids),
            )
        )  # fmt: skip
    return made


def probe(policy=None, **options) -> MaskProbe:
    return MaskProbe(policy, solver=PaperSolver(steps=STEPS, lr=1e-2), **options)
