"""Files: results written atomically, and read back only if they are whole."""

from .answer_form import answer_to_json
from .files import FORMATS, WRITERS, check_writable, load, save
from .flow_form import flow_to_json
from .interaction_form import interaction_to_json
from .json_form import attribution_to_json
from .json_reader import attribution_from_json
from .promotion_form import promotion_to_json

__all__ = [
    "FORMATS",
    "WRITERS",
    "answer_to_json",
    "attribution_from_json",
    "attribution_to_json",
    "check_writable",
    "flow_to_json",
    "interaction_to_json",
    "load",
    "promotion_to_json",
    "save",
]
