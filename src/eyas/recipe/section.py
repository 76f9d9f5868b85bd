"""Base classes of a recipe's sections: frozen, strict and closed."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from eyas.recipe.library_signatures import LibraryClass


class Section(BaseModel):
    """Typed fields, each with a description: frozen, strict (no casts), closed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class LibrarySection(Section):
    """A section whose values are arguments of a library class.

    It also accepts every argument of the installed class that no documented field covers. Each is checked against the
    type that the class declares, and kept in `library_arguments`.
    """

    model_config = ConfigDict(extra="allow")

    reserved: ClassVar[dict[str, str]] = {}
    """Arguments that a recipe may not set, each with the reason or the setting to use."""

    @classmethod
    def library(cls, task: object) -> LibraryClass:
        """Return the library class that receives the values for a task."""
        raise NotImplementedError

    @classmethod
    def reserved_for(cls, task: object) -> Mapping[str, str]:
        """Return the arguments that this task reserves, each with the reason."""
        return cls.reserved

    @classmethod
    def accepted_arguments(cls, task: object) -> list[str]:
        """Return the library arguments that a recipe may set besides the documented fields."""
        closed = cls.reserved_for(task).keys() | cls.model_fields.keys()
        return [name for name in cls.library(task).arguments() if name not in closed]

    @property
    def library_arguments(self) -> dict[str, Any]:
        """Return the library arguments that the recipe sets."""
        return dict(self.model_extra or {})
