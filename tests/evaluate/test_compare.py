"""Two evaluations are compared where they can be, and refused or cut to what they share where they can't."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.results import evaluation, planted
from open_rs.evaluate.compare import check_protocol, compare
from open_rs.evaluate.protocols import PROTOCOLS, Protocol
from open_rs.types import UserError

VARIED = np.linspace(0.02, 0.98, 60)
ASKED = {"name": "plain", "temperature": 0.6, "max_tokens": 1024, "seed": 0}


def test_other_problems_are_cut_to_the_shared_ones_and_the_cut_is_said() -> None:
    one, other = planted("exam", VARIED), planted("exam", VARIED, seed=1, first=20)
    found = compare(evaluation("new", one), evaluation("old", other))
    row = found.benchmarks["exam"]
    assert (row.difference.num_problems, row.num_dropped) == (40, 40)
    assert row.candidate == pytest.approx(one.scores[20:].mean())
    assert row.baseline == pytest.approx(other.scores[:40].mean())
    assert found.notes == ("exam: 40 problems on one side only; compared on the 40 shared",)


def test_a_benchmark_of_one_side_is_named_and_not_compared() -> None:
    exam, more = planted("exam", VARIED), planted("more", VARIED)
    found = compare(evaluation("new", exam, more), evaluation("old", exam))
    assert list(found.benchmarks) == ["exam"]
    assert "on one side only, not compared: more" in found.notes


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (planted("exam", VARIED, first=100), "share no problem"),
        (planted("else", VARIED), "nothing in common"),
    ],
    ids=["no shared problem", "no shared benchmark"],
)
def test_where_nothing_is_shared_the_comparison_is_refused(other: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        compare(evaluation("new", planted("exam", VARIED)), evaluation("old", other))  # pyright: ignore


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"temperature": 0.8}, True),
        ({"max_tokens": 512}, True),
        ({"system": "Be brief."}, True),
        ({"name": "mine"}, False),
        ({"seed": 1}, False),
    ],
    ids=["temperature", "limit", "system prompt", "only the name", "only the seed"],
)
def test_results_of_different_protocols_are_refused(change: dict[str, object], refused: bool) -> None:
    exam = planted("exam", VARIED)
    sides = evaluation("new", exam, protocol={**ASKED, **change}), evaluation("old", exam, protocol=ASKED)
    if refused:
        with pytest.raises(UserError, match=f"asked differently .*{next(iter(change))}"):
            compare(*sides)
    else:
        assert compare(*sides).benchmarks["exam"].difference.value == 0


def test_a_baseline_of_another_protocol_is_refused_before_anything_is_sampled() -> None:
    asked = {name: getattr(PROTOCOLS["plain"], name) for name in Protocol.__slots__ if not name.startswith("samples")}
    baseline = evaluation("old", planted("exam", VARIED), protocol={**asked, "max_tokens": 900})
    check_protocol("new", PROTOCOLS["plain"], baseline)  # the limit may still be lowered to a context
    with pytest.raises(UserError, match=r"asked differently .*temperature"):
        check_protocol("new", PROTOCOLS["sober"], baseline)


def test_pairing_narrows_the_interval_where_problems_differ_more_than_models() -> None:
    """Close models on problems from hard to easy: what the report draws."""
    row = compare(
        evaluation("new", planted("exam", VARIED, seed=1)), evaluation("old", planted("exam", VARIED, seed=2))
    ).benchmarks["exam"]
    assert row.gain_from_pairing > 1.3
    assert row.difference.value in row.difference.ci95
    assert row.difference.ci95.width < row.unpaired.width
