"""The public testing kit: workflows without a database (``evaluate``), and checks of a real one (``invariants``)."""

from rhythm.testing.evaluate import EvaluationError, Later, Outcome, evaluate

__all__ = ["EvaluationError", "Later", "Outcome", "evaluate"]
