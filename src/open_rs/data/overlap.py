"""Decontamination: which training problems repeat a benchmark's, with the evidence side by side.

What is measured is how much of the *benchmark item* stands in the training problem: the share of its distinct 8-token
runs that the problem holds, boilerplate ("where m and n are relatively prime") left out by document frequency. Numbers
and answers then tell a copy from another use of the same template. Cost is linear in the training problems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from open_rs.data import text
from open_rs.types import Problem

Kind = Literal["exact", "copy", "re-asked", "paraphrase"]
SameAnswer = Callable[[str, str], bool]

LONG_NGRAM = 8
SHORT_NGRAM = 4
CHUNK_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class OverlapLimits:
    """When a pair counts as overlap; shares are in [0, 1]. Chosen on DeepScaleR, MATH and AIME, see `docs/curation.md`.

    A run of tokens is boilerplate when more than `max(common_rows, common_share * rows)` different problems hold it.
    An item with fewer than `full_weight_ngrams` runs can't reach full coverage on the few that are not boilerplate.
    """

    copy: float = 0.5
    reasked: float = 0.6
    paraphrase: float = 0.4
    numbers: float = 0.8
    reasked_numbers: int = 3
    common_rows: int = 10
    common_share: float = 0.0005
    full_weight_ngrams: int = 8


@dataclass(frozen=True, slots=True)
class Overlap:
    """One training problem that repeats one benchmark item. `coverage` is the share of the item's token runs found.

    exact: the same tokens. copy: most of the text, the same numbers and answer. re-asked: most of the text and all of
    at least three numbers, but another quantity is asked for. paraphrase: reworded, with the same numbers and answer.
    """

    row: int
    problem: Problem
    item: Problem
    kind: Kind
    coverage: float
    same_answer: bool


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Candidate pairs, sorted by row: `row` [K] of the pool, `item` [K] of the benchmarks, `coverage` [K]."""

    row: np.ndarray
    item: np.ndarray
    coverage: np.ndarray


class NgramIndex:
    """The distinct `n`-token runs of all benchmark items, and which items hold each."""

    def __init__(self, item_tokens: Sequence[Sequence[str]], n: int) -> None:
        self.n = n
        grams = [np.unique(text.ngram_hashes(words, n)) for words in item_tokens]
        hashes = np.concatenate(grams) if grams else np.empty(0, np.uint64)
        owners = np.repeat(np.arange(len(grams)), [len(found) for found in grams])
        order = np.argsort(hashes, kind="stable")
        self.items = owners[order]  # item of each posting, grouped by run
        self.vocabulary, self.start = np.unique(hashes[order], return_index=True)
        self.count = np.diff(np.append(self.start, len(hashes)))  # items that hold each run
        self.num_items = len(grams)

    def match(self, words: Sequence[str]) -> np.ndarray:
        """Numbers of the distinct runs of `words` that some item holds: i32 [K]."""
        found = np.unique(text.ngram_hashes(words, self.n))
        if not len(found) or not len(self.vocabulary):
            return np.empty(0, np.int32)
        place = np.minimum(np.searchsorted(self.vocabulary, found), len(self.vocabulary) - 1)
        return place[self.vocabulary[place] == found].astype(np.int32)

    def sizes(self, kept: np.ndarray) -> np.ndarray:
        """How many of each item's runs are kept, given a flag for each run: i64 [items]."""
        flags = np.repeat(kept, self.count)
        return np.bincount(self.items[flags], minlength=self.num_items)

    def pairs(self, rows: np.ndarray, runs: np.ndarray, weight: np.ndarray, least: float) -> Iterator[_Pairs]:
        """Pairs whose matched runs reach `least` of the item's `weight`; `rows` ascend, beside the `runs` they hold."""
        for chunk in _chunks(rows):
            counts = self.count[runs[chunk]]
            ends = np.cumsum(counts)
            inside = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
            items = self.items[np.repeat(self.start[runs[chunk]], counts) + inside]
            keys, matched = np.unique(np.repeat(rows[chunk], counts) * self.num_items + items, return_counts=True)
            item = keys % self.num_items
            coverage = matched / weight[item]
            enough = coverage >= least
            yield _Pairs(keys[enough] // self.num_items, item[enough], coverage[enough])


@dataclass(frozen=True, slots=True)
class _Matches:
    """What one pass over the pool leaves behind: which runs each row holds, and which rows repeat an item outright."""

    index: NgramIndex
    rows: np.ndarray  # [K] ascending
    runs: np.ndarray  # [K]


def find_overlaps(
    problems: Iterable[Problem],
    items: Sequence[Problem],
    same_answer: SameAnswer,
    limits: OverlapLimits | None = None,
) -> list[Overlap]:
    """Every training problem that repeats a benchmark item, in row order; of several items, the best covered one each.

    `problems` is read twice, so it must give the same rows each time (a list, or a reader of a file). `same_answer`
    gets the problem's answer and the item's, and is asked about the few hundred pairs that look alike only.
    """
    limits = limits or OverlapLimits()
    item_tokens = [text.tokens(item.question) for item in items]
    long, short, exact, fingerprints = _scan(problems, item_tokens)
    limit = max(limits.common_rows, limits.common_share * len(np.unique(fingerprints)))
    copies = _rows_that_look_copied(long, limits)
    long_pairs = _covered(long, fingerprints, copies, limit, min(limits.copy, limits.reasked), limits)
    short_pairs = _covered(short, fingerprints, copies, limit, limits.paraphrase, limits)
    candidates = _gather(exact, long_pairs, short_pairs)
    best: dict[int, Overlap] = {}
    for row, problem in enumerate(problems):
        for item, (is_exact, long_share, short_share) in candidates.get(row, {}).items():
            shares = (1.0 if is_exact else long_share, short_share)
            found = _decide(row, problem, items[item], item_tokens[item], is_exact, shares, same_answer, limits)
            if found is not None and (row not in best or found.coverage > best[row].coverage):
                best[row] = found
    return [best[row] for row in sorted(best)]


def _scan(
    problems: Iterable[Problem], item_tokens: list[list[str]]
) -> tuple[_Matches, _Matches, list[tuple[int, int]], np.ndarray]:
    """One pass: matched runs of both lengths, exact repeats (row, item), and a fingerprint of each row's text."""
    indices = (NgramIndex(item_tokens, LONG_NGRAM), NgramIndex(item_tokens, SHORT_NGRAM))
    by_text: dict[tuple[str, ...], list[int]] = {}
    for item, words in enumerate(item_tokens):
        by_text.setdefault(tuple(words), []).append(item)
    held: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    exact: list[tuple[int, int]] = []
    fingerprints: list[int] = []
    for row, problem in enumerate(problems):
        words = text.tokens(problem.question)
        fingerprints.append(hash(tuple(words)))
        exact.extend((row, item) for item in by_text.get(tuple(words), ()) if words)
        for index, found in zip(indices, held, strict=True):
            found.append(index.match(words))
    long, short = (_Matches(index, *_flatten(found)) for index, found in zip(indices, held, strict=True))
    return long, short, exact, np.array(fingerprints, np.int64)


def _flatten(found: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.repeat(np.arange(len(found)), [len(runs) for runs in found])
    return rows, np.concatenate(found) if found else np.empty(0, np.int32)


def _rows_that_look_copied(matches: _Matches, limits: OverlapLimits) -> np.ndarray:
    """Rows that hold half of some item before boilerplate is known: many copies of an item don't make it common."""
    index = matches.index
    every = np.maximum(index.sizes(np.ones(len(index.vocabulary), bool)), 1)
    found = [pairs.row for pairs in index.pairs(matches.rows, matches.runs, every, limits.copy)]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def _covered(
    matches: _Matches,
    fingerprints: np.ndarray,
    copies: np.ndarray,
    limit: float,
    least: float,
    limits: OverlapLimits,
) -> list[_Pairs]:
    """Pairs that share at least `least` of the item's runs, boilerplate left out."""
    index = matches.index
    counted = np.zeros(len(fingerprints), bool)
    counted[np.unique(fingerprints, return_index=True)[1]] = True  # a repeated text counts once
    counted[copies] = False
    frequency = np.bincount(matches.runs[counted[matches.rows]], minlength=len(index.vocabulary))
    kept = frequency <= limit
    every = index.sizes(np.ones(len(kept), bool))
    weight = np.maximum(index.sizes(kept), np.maximum(np.minimum(every, limits.full_weight_ngrams), 1))
    chosen = kept[matches.runs]
    return list(index.pairs(matches.rows[chosen], matches.runs[chosen], weight, least))


def _gather(
    exact: list[tuple[int, int]], long: list[_Pairs], short: list[_Pairs]
) -> dict[int, dict[int, tuple[bool, float, float]]]:
    """row -> item -> (the same tokens, coverage by long runs, coverage by short runs)."""
    found: dict[int, dict[int, tuple[bool, float, float]]] = {}
    for row, item in exact:
        found.setdefault(row, {})[item] = (True, 1.0, 1.0)
    for place, group in ((1, long), (2, short)):
        for pairs in group:
            for row, item, coverage in zip(pairs.row, pairs.item, pairs.coverage, strict=True):
                known = list(found.setdefault(int(row), {}).get(int(item), (False, 0.0, 0.0)))
                known[place] = float(coverage)
                found[int(row)][int(item)] = (bool(known[0]), known[1], known[2])
    return found


def _decide(
    row: int,
    problem: Problem,
    item: Problem,
    item_words: list[str],
    is_exact: bool,
    shares: tuple[float, float],
    same_answer: SameAnswer,
    limits: OverlapLimits,
) -> Overlap | None:
    long_share, short_share = shares
    wanted = Counter(text.numbers(item_words))
    missing = (wanted - Counter(text.numbers(text.tokens(problem.question)))).total()
    has_numbers = missing <= (1 - limits.numbers) * wanted.total() + 1e-9
    if not is_exact and not has_numbers:
        return None
    same = same_answer(problem.answer, item.answer)
    rules: tuple[tuple[Kind, bool, float], ...] = (
        ("exact", is_exact, 1.0),
        ("copy", same and long_share >= limits.copy, long_share),
        (
            "re-asked",
            long_share >= limits.reasked and missing == 0 and wanted.total() >= limits.reasked_numbers,
            long_share,
        ),
        ("paraphrase", same and short_share >= limits.paraphrase, short_share),
    )
    for kind, applies, coverage in rules:
        if applies:
            return Overlap(row, problem, item, kind, min(coverage, 1.0), same)
    return None


def _chunks(rows: np.ndarray) -> Iterator[slice]:
    """Slices of an ascending array that hold at most `CHUNK_ROWS` different rows each, never one row in two slices."""
    if not len(rows):
        return
    edges = np.searchsorted(rows, np.arange(rows[0], rows[-1] + CHUNK_ROWS + 1, CHUNK_ROWS))
    for start, end in pairwise(edges.tolist()):
        if end > start:
            yield slice(start, end)
