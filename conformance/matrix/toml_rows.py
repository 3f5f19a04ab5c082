"""TOML tables as typed rows, with errors that name the file, the row and the field."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from conformance.errors import SuiteError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RowT = TypeVar("RowT")


def read_rows(text: str, where: str, row: type[RowT]) -> dict[str, RowT]:
    """The rows of a TOML text whose top-level tables are rows, by name, in the text's order.

    ``row`` is a dataclass with a ``name``, which is the table's own. ``where`` is the file's name
    and only shows in errors.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{where} is not TOML: {error}") from error
    adapter = TypeAdapter(row)
    return {name: _row(adapter, where, name, table) for name, table in tables.items()}


def _row(adapter: TypeAdapter[RowT], where: str, name: str, table: Any) -> RowT:
    if not isinstance(table, dict):
        raise SuiteError(f"{where}: {name!r} is a {type(table).__name__}: expected a table")
    try:
        return adapter.validate_python({"name": name, **table})
    except ValidationError as error:
        fields = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'row'}: {detail['msg']}"
            for detail in error.errors()
        )
        raise SuiteError(f"{where}: row {name!r}: {fields}") from error
