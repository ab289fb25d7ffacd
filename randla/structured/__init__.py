"""Structured matrices: fast transforms."""

from .transforms import fwht

__all__ = ["fwht"]
