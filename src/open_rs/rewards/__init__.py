"""Rewards: what a completion earns, term by term. Read `terms.py` for what each means and `score.py` for how they add
up.
"""

from open_rs.rewards.score import Term, build_terms, score
from open_rs.rewards.trl import as_trl, from_trl

__all__ = ["Term", "as_trl", "build_terms", "from_trl", "score"]
