"""A frozen piece of a recipe that refuses every key it does not know."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from eyas.recipe.library_signatures import LibraryClass


class Section(BaseModel):
    """Typed fields with a description each: frozen, strict (no casts), closed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class LibrarySection(Section):
    """A section that is handed to a library class under that class's own names.

    Every argument of the installed class that no documented field covers is accepted too, checked against the type
    that the class declares, and kept in `library_arguments`.
    """

    model_config = ConfigDict(extra="allow")

    reserved: ClassVar[dict[str, str]] = {}
    """Arguments of the library class that a recipe may not set, and what to do instead."""

    @classmethod
    def library(cls, task: str) -> LibraryClass:
        """Return the class that this section's values are handed to when this task runs."""
        raise NotImplementedError

    @property
    def library_arguments(self) -> dict[str, Any]:
        """Return the arguments of the library class that no documented field covers."""
        return dict(self.model_extra or {})
