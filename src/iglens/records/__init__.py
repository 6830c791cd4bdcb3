"""What results are made of: frozen records of NumPy arrays, no torch."""

from .attribution import Attribution
from .flag import Flag
from .provenance import ModelInfo, Provenance, ReadoutInfo
from .segment import Segment, block_segment
from .target import ENTROPY, KINDS, KL_TO_FINAL, UNITS, Target, Unit, check_unit

__all__ = [
    "ENTROPY",
    "KINDS",
    "KL_TO_FINAL",
    "UNITS",
    "Attribution",
    "Flag",
    "ModelInfo",
    "Provenance",
    "ReadoutInfo",
    "Segment",
    "Target",
    "Unit",
    "block_segment",
    "check_unit",
]
