"""Estimators of evaluation figures in plain Python, so that `atmanrl report` has them without loading torch."""

from __future__ import annotations


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimator of Chen et al. 2021 ("Evaluating Large Language Models Trained on Code", Eq. 1).

        pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1}^{n} (1 - k / i)

    It is the share of the k-subsets of the n samples that hold at least one right one. The product avoids the huge
    binomials; 1 - (1 - c/n)^k would be biased.

    Args:
        n: samples of one problem.
        c: how many of them are right, 0 <= c <= n.
        k: samples allowed, 1 <= k <= n.

    Returns:
        A probability, 0 to 1.

    Raises:
        ValueError: k or c out of its range.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem and k >= 1; there are {n} samples")
    if not 0 <= c <= n:
        raise ValueError(f"{c} right answers among {n} samples")
    if n - c < k:
        return 1.0
    wrong = 1.0
    for i in range(n - c + 1, n + 1):
        wrong *= 1.0 - k / i
    return 1.0 - wrong
