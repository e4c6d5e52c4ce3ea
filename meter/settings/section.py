"""The base class of all sections of the configuration, and types of their fields."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]


def matching(pattern: str, described: str) -> AfterValidator:
    """Return the validator of a text that the regular expression ``pattern`` matches as a whole; errors show it ``described``."""
    compiled = re.compile(pattern)

    def validate(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(f"should be {described}")
        return text

    return AfterValidator(validate)


class Section(BaseModel):
    """A section of the configuration. Unknown keys and values of another type (``"300"`` for ``300``) are errors."""

    # An infinite number in a section of a plugin stays one when the configuration is shown.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants")
