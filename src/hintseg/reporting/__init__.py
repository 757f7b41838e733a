"""A run folder as one HTML page, and early sight of a stage's masks."""

from hintseg.reporting.page import write_report
from hintseg.reporting.pictures import write_pictures

__all__ = ["write_pictures", "write_report"]
