"""What a machine needs before it can start: folders, ports, limits, keys.

Each floor and room declares its own `Section`; `load` joins them, reads `pacsteward.toml` and the
environment, and reports every fault at once with its place. What an administrator decides on a
Tuesday (peers, rules, people) is not here but in the database.

Where a value comes from, strongest first: the command line, the environment
(``PACSTEWARD_HTTP_PORT``, ``PACSTEWARD_DICOM__ADMIT_UNKNOWN``), ``pacsteward.toml``, the default.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from pacsteward.base.errors import Invalid

PREFIX = "PACSTEWARD_"

_PASSWORD = re.compile(r"(://[^/@:]*):.*@")


class Section(BaseModel):
    """Settings of one floor or room.

    A subclass gives `section`, its table in ``pacsteward.toml`` ("" for the top level), and fields
    with a default and a `Field(description=…)` whose last words are the unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    section: ClassVar[str] = ""


S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting, for `pacsteward settings explain` and the reference."""

    name: str
    """As in ``pacsteward.toml``: ``dicom.admit_unknown``."""
    variable: str
    value: Any
    default: Any
    source: str
    """"default", the file's path, the variable's name or "command line"."""
    prose: str


class Settings:
    """All sections, by their class: ``settings.of(DicomSettings).admit_unknown``."""

    def __init__(
        self, sections: Mapping[type[Section], Section], sources: Mapping[str, str]
    ) -> None:
        self._sections = dict(sections)
        self._sources = dict(sources)

    def of(self, section: type[S]) -> S:
        """Return one section; `section` must have been declared to `load`."""
        return cast(S, self._sections[section])

    def changed(self, section: Section) -> Settings:
        """Return the same settings with another one of the sections."""
        return Settings({**self._sections, type(section): section}, self._sources)

    def explain(self) -> list[Explained]:
        """List every setting with its value, where that came from, and its prose.

        The password in a URL is hidden: what is listed ends up in letters to other people.
        """
        rows = []
        for kind, section in self._sections.items():
            for field, info in kind.model_fields.items():
                name = f"{kind.section}.{field}" if kind.section else field
                rows.append(
                    Explained(
                        name=name,
                        variable=_variable(kind, field),
                        value=_without_password(getattr(section, field)),
                        default=info.get_default(call_default_factory=True),
                        source=self._sources.get(name, "default"),
                        prose=info.description or "",
                    )
                )
        return rows


def _without_password(value: Any) -> Any:
    return _PASSWORD.sub(r"\1:***@", value) if isinstance(value, str) else value


def load(
    kinds: Iterable[type[Section]],
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read and check all settings.

    Parameters
    ----------
    kinds
        The sections that floors and rooms declare.
    file
        ``pacsteward.toml``; a missing file is an empty one.
    environ
        Environment to read; the process's own by default.
    overrides
        Values of the command line by full name; None values are ignored.

    Raises
    ------
    Invalid
        With all faults together: an unknown name, a value that does not fit.
    """
    environ = os.environ if environ is None else environ
    tables = _read_file(file)
    chosen = {name: value for name, value in (overrides or {}).items() if value is not None}
    sections: dict[type[Section], Section] = {}
    sources: dict[str, str] = {}
    faults: list[str] = []
    kinds = list(kinds)
    for kind in kinds:
        values: dict[str, Any] = {}
        for field in kind.model_fields:
            name = f"{kind.section}.{field}" if kind.section else field
            table = tables.get(kind.section, {}) if kind.section else tables
            variable = _variable(kind, field)
            if name in chosen:
                values[field], sources[name] = chosen[name], "command line"
            elif variable in environ:
                values[field], sources[name] = _from_text(environ[variable]), variable
            elif isinstance(table, dict) and field in table:
                values[field], sources[name] = table[field], str(file)
        try:
            sections[kind] = kind(**values)
        except ValidationError as error:
            faults += [_fault(kind, detail, sources) for detail in error.errors()]
    faults += _unknown_names(kinds, tables, file)
    if faults:
        raise Invalid(
            f"The settings have {len(faults)} fault(s): " + " ".join(faults),
            remedy="Correct them; docs/reference/settings.md lists every setting.",
        )
    return Settings(sections, sources)


def _read_file(file: Path | None) -> dict[str, Any]:
    if file is None or not file.is_file():
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{file} could not be read.", why=f"{error}.", remedy="Correct it and start again."
        ) from error
    except OSError as error:
        raise Invalid(
            f"{file} could not be read.",
            why=f"The system says: {error.strerror or error}.",
            remedy="Give it to the account that runs the archive, and to no other: mode 0600.",
        ) from error


def _variable(kind: type[Section], field: str) -> str:
    path = f"{kind.section}__{field}" if kind.section else field
    return PREFIX + path.upper()


def _from_text(text: str) -> Any:
    """Split what is written as a list; pydantic turns other texts into numbers and switches."""
    if text.startswith("[") and text.endswith("]"):
        return [part.strip().strip("\"'") for part in text[1:-1].split(",") if part.strip()]
    return text


def _fault(kind: type[Section], detail: Any, sources: Mapping[str, str]) -> str:
    field = ".".join(str(part) for part in detail["loc"])
    name = f"{kind.section}.{field}" if kind.section else field
    place = sources.get(name, "default")
    return f"{name} ({place}): {detail['msg']}, found {detail['input']!r}."


def _unknown_names(
    kinds: Iterable[type[Section]], tables: Mapping[str, Any], file: Path | None
) -> list[str]:
    known: dict[str, set[str]] = {}
    for kind in kinds:
        known.setdefault(kind.section, set()).update(kind.model_fields)
    faults = []
    for name, value in tables.items():
        if isinstance(value, dict):
            if name not in known:
                faults.append(f"[{name}] ({file}): no such section.")
                continue
            faults += [
                f"{name}.{field} ({file}): no such setting."
                for field in value
                if field not in known[name]
            ]
        elif name not in known.get("", set()):
            faults.append(f"{name} ({file}): no such setting.")
    return faults
