"""What results are made of: frozen records of NumPy arrays, no torch."""

from .answer import Answer
from .attribution import Attribution
from .examination import Examination
from .flag import Flag
from .flow import Flow
from .promotion import Promotion
from .provenance import ModelInfo, Provenance, ReadoutInfo
from .segment import Segment, block_segment
from .subject import Subject
from .target import ENTROPY, KINDS, KL_TO_FINAL, UNITS, Target, Unit, check_unit
from .words import Word

__all__ = [
    "ENTROPY",
    "KINDS",
    "KL_TO_FINAL",
    "UNITS",
    "Answer",
    "Attribution",
    "Examination",
    "Flag",
    "Flow",
    "ModelInfo",
    "Promotion",
    "Provenance",
    "ReadoutInfo",
    "Segment",
    "Subject",
    "Target",
    "Unit",
    "Word",
    "block_segment",
    "check_unit",
]
