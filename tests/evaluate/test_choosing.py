"""How many samples, which checkpoint, which model and which protocol: each choice follows a rule that can be read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from evaluate.results import evaluation, planted
from open_rs import stats
from open_rs.evaluate.protocols import PROTOCOLS, Protocol
from open_rs.evaluate.result import Evaluation
from open_rs.evaluate.subject import Subject, choose_benchmarks, choose_protocol, find_subject, open_run
from open_rs.evaluate.sweep import HELD_OUT, select
from open_rs.evaluate.until import MOST_SAMPLES, until
from open_rs.types import UserError

HARD_TO_TELL = {"even": np.full(40, 0.5), "easy": np.full(40, 0.99)}


def asked_of(runs: list[Protocol]) -> Evaluation:
    """The evaluation that `runs[-1]` asks for, of two sets that differ in how much their samples vary."""
    asked = runs[-1]
    results = [planted(name, chances, asked.num_samples(name), seed=5) for name, chances in HARD_TO_TELL.items()]
    return evaluation("m", *results)


@pytest.mark.parametrize("target", [0.04, 0.02, 0.01])
def test_samples_grow_until_the_sampling_error_is_small_enough_and_only_where_it_is_not(target: float) -> None:
    runs: list[Protocol] = []

    def run(protocol: Protocol) -> Evaluation:
        runs.append(protocol)
        return asked_of(runs)

    found = until(target, PROTOCOLS["open-rs"], list(HARD_TO_TELL), run)
    errors = {name: stats.sampling_error(r.scores, r.num_samples) for name, r in found.benchmarks.items()}
    assert max(errors.values()) <= target
    assert found.benchmarks["even"].k > found.benchmarks["easy"].k
    growth = [protocol.num_samples("even") for protocol in runs]
    assert growth[0] == 4
    assert all(before < after <= 2 * before for before, after in pairwise(growth))
    assert growth[-1] == found.benchmarks["even"].k <= MOST_SAMPLES


@pytest.mark.parametrize(
    ("target", "temperature"), [(0.0, 0.6), (-1.0, 0.6), (0.02, 0.0)], ids=["zero", "negative", "greedy"]
)
def test_a_target_that_can_not_be_reached_is_refused(target: float, temperature: float) -> None:
    with pytest.raises(UserError, match="--until-se"):
        until(target, Protocol("test", temperature=temperature), ["even"], lambda protocol: asked_of([protocol]))


def sweep_of(*chances: float, samples: int = 8) -> dict[Path, Evaluation]:
    """Checkpoints whose true accuracies are `chances`, on the same 50 problems."""
    return {
        Path(f"step-{10 * step:06d}"): evaluation("m", planted(HELD_OUT, np.full(50, chance), samples, seed=step))
        for step, chance in enumerate(chances)
    }


def test_the_best_checkpoint_is_chosen_and_scored_on_samples_that_did_not_choose() -> None:
    """Twenty equal checkpoints: the best is luck, and the honest score says so."""
    swept = sweep_of(*[0.4] * 20)
    chosen = select(list(swept), swept.__getitem__)
    best = chosen.evaluations[chosen.best].benchmarks[HELD_OUT].avg
    assert best == max(found.avg for found in chosen.evaluations.values()) > 0.43
    assert chosen.honest_best == pytest.approx(0.4, abs=0.02)
    assert "on samples that did not choose" in str(chosen)


def test_a_checkpoint_that_is_truly_better_is_chosen_and_stays_better() -> None:
    swept = sweep_of(0.2, 0.3, 0.8, 0.3)
    chosen = select(list(swept), swept.__getitem__)
    assert chosen.best == "step-000020"
    assert chosen.honest_best == pytest.approx(0.8, abs=0.05)


def test_of_equal_checkpoints_the_earlier_is_chosen() -> None:
    same = evaluation("m", planted(HELD_OUT, np.full(9, 0.5)))
    assert select([Path("step-000010"), Path("step-000020")], lambda place: same).best == "step-000010"


def test_one_sample_a_problem_can_not_say_by_how_much_the_best_is_flattered() -> None:
    swept = sweep_of(0.4, 0.4, samples=1)
    chosen = select(list(swept), swept.__getitem__)
    assert chosen.honest_best is None
    assert "flattered by chance" in str(chosen)


def test_a_run_is_asked_as_its_recipe_says_and_on_the_task_that_it_was_trained_on(finished_run: Path) -> None:
    subject = find_subject(str(finished_run))
    protocol = choose_protocol(subject, None, ())
    assert (subject.model.name_or_path, subject.run) == (str(finished_run / "model"), finished_run)
    assert (protocol.name, protocol.max_tokens) == ("recipe demo", 16)
    assert choose_benchmarks(subject, (), None) == ("arithmetic",)
    assert choose_protocol(subject, "sober", ()) is PROTOCOLS["sober"]


def test_another_model_is_asked_the_papers_five_in_the_papers_way() -> None:
    subject = find_subject("knoveleng/Open-RS3")
    assert choose_benchmarks(subject, (), None) == ("aime24", "math_500", "amc23", "minerva", "olympiadbench")
    assert choose_protocol(subject, None, ("aime24",)) is PROTOCOLS["open-rs"]
    assert choose_protocol(subject, None, ("arithmetic",)) is PROTOCOLS["plain"]
    assert choose_benchmarks(subject, (), "quick") == ("aime24", "amc23")


def test_a_quick_try_takes_no_other_evaluations_place() -> None:
    subject = find_subject("knoveleng/Open-RS3")
    assert isinstance(subject, Subject)
    whole, tried = (subject.default_directory(PROTOCOLS["open-rs"], changes) for changes in ({}, {"limit": 8}))
    assert (whole.name, tried.name) == ("knoveleng-Open-RS3-open-rs", "knoveleng-Open-RS3-open-rs-limit-8")


def test_a_run_that_has_not_ended_and_a_place_that_is_no_run_are_refused(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text((finished_run / "recipe.yaml").read_text())
    with pytest.raises(UserError, match="no trained model yet"):
        find_subject(str(tmp_path))
    with pytest.raises(UserError, match="--checkpoints needs a run"):
        open_run(str(tmp_path / "nowhere"))
