"""`hintseg bench`: how fast this machine refines, against a plain version of the same mathematics."""

from __future__ import annotations

from hintseg.bench import libraries
from hintseg.bench.measuring import Row, machine_facts, measure, rates
from hintseg.bench.operations import OPERATIONS, Case, Operation

__all__ = ["OPERATIONS", "Case", "Operation", "Row", "libraries", "machine_facts", "measure", "rates"]
