"""The fixtures that start daemons."""

from tests.system.daemons import furnished
from tests.system.daemons import house

__all__ = ["furnished", "house"]
