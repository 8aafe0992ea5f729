"""Rewards: what a completion earns, term by term (`terms.py`), and how the terms add up (`score.py`)."""

from open_rs.rewards.score import Term, build_terms, score
from open_rs.rewards.trl import as_trl, from_trl

__all__ = ["Term", "as_trl", "build_terms", "from_trl", "score"]
