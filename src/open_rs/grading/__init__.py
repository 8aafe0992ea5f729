"""Grading: is a completion's final answer the gold? One grader for rewards, evaluation and curation."""

from open_rs.grading.audit import ambiguity, audit, self_grades
from open_rs.grading.extract import Extraction, extract
from open_rs.grading.grader import Grader, Pending
from open_rs.grading.normalise import normalise

__all__ = ["Extraction", "Grader", "Pending", "ambiguity", "audit", "extract", "normalise", "self_grades"]
