"""Statistics of repeated right-or-wrong measurements: intervals, paired tests, votes, selection.

Legend: `n` problems, `k` samples a problem. A score is a problem's share of right samples, in [0, 1].
"""

from open_rs.stats.intervals import (
    Interval,
    jeffreys,
    over_problems,
    problem_error,
    sampling_error,
    standard_error,
    wilson,
)
from open_rs.stats.paired import (
    PairedDifference,
    detectable_difference,
    difference_of,
    holm,
    macro_difference,
    paired_difference,
    paired_error,
    sign_flip_p,
    unpaired_interval,
)
from open_rs.stats.selection import chance_of_best, expected_best, held_out_best
from open_rs.stats.votes import majority_curve, pass_at_k

__all__ = [
    "Interval",
    "PairedDifference",
    "chance_of_best",
    "detectable_difference",
    "difference_of",
    "expected_best",
    "held_out_best",
    "holm",
    "jeffreys",
    "macro_difference",
    "majority_curve",
    "over_problems",
    "paired_difference",
    "paired_error",
    "pass_at_k",
    "problem_error",
    "sampling_error",
    "sign_flip_p",
    "standard_error",
    "unpaired_interval",
    "wilson",
]
