"""Landmarks of kernel matrices."""

from .recursive import Landmarks, LandmarksWarning, kernel_landmarks
from .streaming import StreamingLandmarks

__all__ = ["Landmarks", "LandmarksWarning", "StreamingLandmarks", "kernel_landmarks"]
