"""Transforms: a pure draw of parameters on the host, and a batched application to pixels on any device.

Geometry is never applied by a transform: its matrices are multiplied into one homography per view and applied in one
resampling (`data/views.py`).
"""

from abc import ABC
from typing import ClassVar

from ssodkit.plugins import PluginConfig


class TransformConfig(PluginConfig, ABC):
    """One operation, or a combinator of several, in a recipe's list of a view."""

    slot: ClassVar[str] = "transform"
