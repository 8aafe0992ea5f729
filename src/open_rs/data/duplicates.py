"""Repeated problems inside one pool: exact, respelled and near duplicates, and groups whose answers disagree.

Near duplicates must hold the same numbers and the same answer: two uses of one template are two problems. Signatures
are MinHash from datasketch; the buckets are found by sorting band keys, which takes a fraction of the memory of an
index of Python sets and stays linear (`benchmarks/curate_duplicates.py`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from open_rs.data import text
from open_rs.types import Problem

SameAnswer = Callable[[str, str], bool]
Kind = Literal["repeat", "respelled", "near"]

SHINGLE = 3  # tokens
BANDS, BAND_ROWS = 16, 4  # a pair with similarity 0.8 meets in some band with probability 1 - (1 - 0.8**4)**16 = 0.9998
MAX_PAIRS_PER_ROW = 50  # a fuller bucket compares each row with this many before it


@dataclass(frozen=True, slots=True)
class Family:
    """Rows that state one problem, in file order; `kinds[i]` says how `rows[i]` repeats the first.

    `exact_groups_that_differ` counts the groups of exact repeats in it whose answer strings differ; `conflicting`
    compares values: `$2\\sqrt{5}$` and `2\\sqrt{5}` differ and don't conflict.
    """

    rows: tuple[int, ...]
    kinds: tuple[Kind, ...]
    answers: tuple[str, ...]
    exact_groups_that_differ: int
    conflicting: bool
    majority: int | None

    @property
    def keeper(self) -> int:
        """The row that stands for the family: the first with the answer that most rows give."""
        return self.rows[0] if self.majority is None else self.majority


@dataclass(frozen=True, slots=True)
class _Pool:
    """One pass over the pool, as arrays over its rows [R]."""

    exact: np.ndarray  # hash of the white-space-normalised text
    spelled: np.ndarray  # hash of the tokens
    numbers: np.ndarray  # hash of the numbers, order aside
    signatures: np.ndarray  # [R, BANDS * BAND_ROWS] u32; no rows where near duplicates are not asked for


class _Forest:
    """Disjoint sets over row numbers; the root is the smallest row."""

    def __init__(self, size: int) -> None:
        self.parent = np.arange(size)

    def root(self, row: int) -> int:
        parent = self.parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return int(row)

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self.parent[second] = first

    def families(self) -> Iterator[list[int]]:
        """Sets of two rows and more, each ascending, in order of their first rows."""
        members: dict[int, list[int]] = {}
        for row in np.flatnonzero(self.parent != np.arange(len(self.parent))).tolist():
            members.setdefault(self.root(row), []).append(row)
        for first in sorted(members):
            yield [first, *members[first]]


def find_families(
    problems: Iterable[Problem], same_answer: SameAnswer, near: bool = True, threshold: float = 0.8
) -> list[Family]:
    """Group the rows that state one problem. `problems` is read up to three times and must give the same rows.

    `threshold` is the Jaccard similarity of 3-token runs from which two problems with the same numbers and answer are
    one. Time and memory are linear in the rows (about 0.3 KB a row).
    """
    pool = _scan(problems, near)
    forest = _Forest(len(pool.exact))
    for keys in (pool.exact, pool.spelled):
        for row, first in _repeats(keys):
            forest.join(row, first)
    if near:
        for row, other in _near(problems, pool, same_answer, threshold):
            forest.join(row, other)
    groups = list(forest.families())
    wanted = {row for rows in groups for row in rows}
    answers = {row: problem.answer for row, problem in enumerate(problems) if row in wanted}
    return [_describe(rows, pool, answers, same_answer) for rows in groups]


def _scan(problems: Iterable[Problem], near: bool) -> _Pool:
    exact: list[int] = []
    spelled: list[int] = []
    numbers: list[int] = []
    shingled = _signer() if near else None
    signatures: list[np.ndarray] = []
    for problem in problems:
        words = text.tokens(problem.question)
        exact.append(_digest(text.collapse(problem.question)))
        spelled.append(_digest("\0".join(words)) if words else exact[-1])
        numbers.append(_digest("\0".join(sorted(text.numbers(words)))))
        if shingled is not None:
            signatures.append(shingled(_shingles(words)))
    arrays = (np.array(values, np.uint64) for values in (exact, spelled, numbers))
    signed = np.array(signatures, np.uint32).reshape(len(signatures), BANDS * BAND_ROWS)
    return _Pool(*arrays, signatures=signed)


def _digest(value: str) -> int:
    return int.from_bytes(hashlib.blake2b(value.encode(errors="replace"), digest_size=8).digest(), "little")


def _shingles(words: Sequence[str]) -> np.ndarray:
    """Hashes of the distinct 3-token runs; a shorter text is one run: u64 [K], K >= 1."""
    return (
        np.unique(text.ngram_hashes(list(words), min(SHINGLE, max(len(words), 1)))) if words else np.zeros(1, np.uint64)
    )


def _signer() -> Callable[[np.ndarray], np.ndarray]:
    """MinHash signatures under one fixed set of permutations: u64 [K] -> u32 [BANDS * BAND_ROWS]."""
    from datasketch import MinHash

    empty = MinHash(num_perm=BANDS * BAND_ROWS, seed=1, hashfunc=int, scheme="affine32")

    def sign(shingles: np.ndarray) -> np.ndarray:
        signed = empty.copy()
        signed.update_batch((shingles >> np.uint64(32)).tolist())
        return signed.hashvalues

    return sign


def _repeats(keys: np.ndarray) -> Iterator[tuple[int, int]]:
    """(row, first row with the same key) for every row that is not the first."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    for row in np.flatnonzero(first[group] != np.arange(len(keys))).tolist():
        yield row, int(first[group[row]])


def _near(
    problems: Iterable[Problem], pool: _Pool, same_answer: SameAnswer, threshold: float
) -> Iterator[tuple[int, int]]:
    """Pairs in one bucket whose similarity, measured exactly, reaches the threshold and whose answers agree."""
    pairs = _bucket_pairs(pool)
    wanted = set(np.unique(pairs).tolist())
    held = {
        row: (_shingles(text.tokens(problem.question)), problem.answer)
        for row, problem in enumerate(problems)
        if row in wanted
    }
    for one, other in pairs.tolist():
        (ours, answer), (theirs, their_answer) = held[one], held[other]
        shared = len(np.intersect1d(ours, theirs, assume_unique=True))
        if shared >= threshold * (len(ours) + len(theirs) - shared) and same_answer(answer, their_answer):
            yield one, other


def _bucket_pairs(pool: _Pool) -> np.ndarray:
    """Distinct pairs of rows that share a band and their numbers, one of each spelling: i64 [K, 2]."""
    _, firsts = np.unique(pool.spelled, return_index=True)
    found = [np.empty(0, np.int64)]
    size = len(pool.spelled)
    for band in range(BANDS):
        keys = pool.numbers[firsts].copy()
        for column in range(band * BAND_ROWS, (band + 1) * BAND_ROWS):
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + pool.signatures[firsts, column]
        order = np.argsort(keys, kind="stable")
        rows, keys = firsts[order], keys[order]
        for distance in range(1, MAX_PAIRS_PER_ROW + 1):
            equal = keys[distance:] == keys[:-distance]
            if not equal.any():
                break
            low = np.minimum(rows[distance:][equal], rows[:-distance][equal])
            high = np.maximum(rows[distance:][equal], rows[:-distance][equal])
            found.append(np.unique(low * size + high))
    pairs = np.unique(np.concatenate(found))
    return np.stack((pairs // max(size, 1), pairs % max(size, 1)), axis=1)


def _describe(rows: list[int], pool: _Pool, answers: dict[int, str], same_answer: SameAnswer) -> Family:
    first = rows[0]
    kinds: list[Kind] = ["repeat"]
    for row in rows[1:]:
        seen_before = bool((pool.exact[[other for other in rows if other < row]] == pool.exact[row]).any())
        kinds.append("repeat" if seen_before else "respelled" if pool.spelled[row] == pool.spelled[first] else "near")
    given = tuple(answers[row] for row in rows)
    counts = _count_values(given, same_answer)
    (value, most), *others = counts.most_common()
    outright = bool(others) and most > sum(count for _, count in others)
    majority = rows[given.index(value)] if outright else None
    spellings: dict[int, set[str]] = {}
    for row, answer in zip(rows, given, strict=True):
        spellings.setdefault(int(pool.exact[row]), set()).add(answer)
    differing = sum(len(found) > 1 for found in spellings.values())
    return Family(tuple(rows), tuple(kinds), given, differing, len(counts) > 1, majority)


def _count_values(answers: Sequence[str], same_answer: SameAnswer) -> Counter[str]:
    """How many rows give each value, under the first string that states it."""
    counts: Counter[str] = Counter()
    for answer in answers:
        known = next((value for value in counts if value == answer or same_answer(value, answer)), answer)
        counts[known] += 1
    return counts
