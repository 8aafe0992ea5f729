"""Evaluation that can tell a gain from luck: run, result, comparison, published numbers."""
