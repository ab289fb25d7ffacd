"""What the learners share: their warning."""

from __future__ import annotations


class LearnWarning(UserWarning):
    """Trouble in learning: what was found does not explain the data, is not determined by it, or is not as good as asked."""
