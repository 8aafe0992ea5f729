"""Print the cosine reward of the release beside ours, as a Markdown table: `python benchmarks/cosine_curves.py`."""

from __future__ import annotations

from open_rs.rewards.terms import cosine
from open_rs.types import Group, Problem, Rollout, Verdict

CHARACTERS_PER_TOKEN = 3  # only to lay the two scales side by side
RELEASE = {
    "length_unit": "characters",
    "clamp": False,
    "max_length": 1000,
    "min_value_wrong": 0.0,
    "max_value_wrong": -0.5,
}
TOKENS = (0, 83, 167, 250, 333, 500, 667, 896, 1792, 2688, 3584, 4096)


def main() -> None:
    """One line for each length."""
    print("| tokens | characters | release, right | release, wrong | ours, right | ours, wrong |")
    print("|---:|---:|---:|---:|---:|---:|")
    for tokens in TOKENS:
        group = _group(tokens)
        rewards = [*cosine(group, **RELEASE), *cosine(group)]
        print(
            f"| {tokens} | {tokens * CHARACTERS_PER_TOKEN} | "
            + " | ".join(f"{reward:.2f}" for reward in rewards)
            + " |"
        )


def _group(tokens: int) -> Group:
    rollout = Rollout("p", 0, (), (0,) * tokens, None, "x" * (tokens * CHARACTERS_PER_TOKEN), "stop", 0)
    verdicts = (Verdict(True, None, "equal"), Verdict(False, None, "different"))
    return Group(Problem("p", "", "", "curve"), (rollout, rollout), verdicts)


if __name__ == "__main__":
    main()
