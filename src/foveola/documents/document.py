"""What all documents share: the number of their format, reading, and the escaping of names.

A document without a number was written before there was one, and is read as format 1; one with a higher number was
written by a newer Foveola, and is refused by name.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from foveola.errors import FoveolaError, ModelError
from foveola.models.metadata import first_problem
from foveola.text import escape_all_surrogates

FORMAT = 1


class Part(BaseModel):
    """Part of a document. Names of files that are not UTF-8 are written escaped."""

    @model_validator(mode="before")
    @classmethod
    def _escape(cls, values: Any) -> Any:
        return (
            {key: escape_all_surrogates(value) for key, value in values.items()} if isinstance(values, dict) else values
        )


class Document(Part):
    """A JSON document with the number of its format."""

    model_config = ConfigDict(serialize_by_alias=True)

    format: Literal[1] = 1

    def __str__(self) -> str:
        return repr(self)

    def to_json(self) -> str:
        """Indented JSON, UTF-8 letters as they are; NaN, which JSON does not know, as null."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, where: str, *, error: type[FoveolaError] = ModelError) -> Self:
        """Read a document that `to_json` has written.

        Parameters
        ----------
        text : the file's content
        where : the file's name, for messages
        error : what is raised

        Raises
        ------
        FoveolaError
            If the text is not such a document, or has a newer format.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as invalid:
            first = invalid.errors(include_url=False)[0]
            found = first["input"]
            if first["loc"] == ("format",) and isinstance(found, int) and found > FORMAT:
                raise error(
                    f"{where} has format {found}, written by a newer Foveola; this version reads formats up to "
                    f"{FORMAT}. Update Foveola to use it."
                ) from None
            raise error(f"{where} is damaged: {first_problem(invalid)}. Train the run again.") from None
