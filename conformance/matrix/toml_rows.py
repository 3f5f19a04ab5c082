"""Reads TOML tables as typed rows; errors name the file, the row and the field."""

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
    """The rows of a TOML text, by name and in order: each top-level table is a row.

    ``row`` is a dataclass whose ``name`` is the table's name. ``where`` names the file in errors.
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
