"""Hiding instances, showing them again, and removing them for good.

The three verbs run in the keeper (`verbs` is what it is given), whoever asks for them: the decision
goes to the ledger first, then index, facts and audit entry change together (`Keeper.change`). What
is said of it is made from the entry of the ledger alone (`teller`), so a decision that was
interrupted is announced and recorded when it is carried out. A rejected instance stays stored and
can be shown again; a deleted one cannot be brought back, not by `rebuild` either.

References
----------
IHE RAD TF-3 4.66 (rejection notes); PS3.16 CID 7011 (the reasons); PS3.15 A.5.3.8 (audit).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from pacsteward.archive.dialect import Postgres, Sql, Sqlite, every, within
from pacsteward.archive.events import (
    InstancesDeleted,
    InstancesRejected,
    InstancesRestored,
)
from pacsteward.archive.indexer import Audit
from pacsteward.archive.ledger import LedgerEntry
from pacsteward.archive.model import Selection
from pacsteward.base.errors import Invalid
from pacsteward.base.events import Fact, FactLog
from pacsteward.security.actor import Actor
from pacsteward.security.audit_entry import AuditEntry, AuditEvent, AuditObject

CODE_MAX: Final = 80


class Changes(Protocol):
    """What the keeper does for a verb; see `Keeper.change`."""

    def change(
        self,
        kind: str,
        *,
        actor: str,
        choose: Callable[[Connection], Sequence[str]],
        details: Mapping[str, str],
    ) -> LedgerEntry | None:
        """Decide on what `choose` names, durably."""
        ...


Verb = Callable[[Changes, Mapping[str, Any]], int]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of the three verbs.

    Parameters
    ----------
    ledger
        Its name in the ledger.
    wanted
        Which instances it concerns.
    """

    ledger: str
    wanted: str
    event: AuditEvent
    verb: str


_REJECT: Final = _Kind(
    "rejected", "instance.rejected_for = ''", AuditEvent.INSTANCES_ACCESSED, "rejected"
)
_RESTORE: Final = _Kind(
    "restored", "instance.rejected_for <> ''", AuditEvent.INSTANCES_ACCESSED, "restored"
)
_DELETE: Final = _Kind("deleted", "1 = 1", AuditEvent.STUDY_DELETED, "deleted for good")
_KINDS: Final = {kind.ledger: kind for kind in (_REJECT, _RESTORE, _DELETE)}


def verbs() -> dict[str, Verb]:
    """Return the verbs that the keeper carries out, by name.

    Each takes the arguments that `arguments` makes and returns how many instances it concerned.
    """

    def carry_out(kind: _Kind) -> Verb:
        def verb(keeper: Changes, given: Mapping[str, Any]) -> int:
            return _change(keeper, kind, given)

        return verb

    return {
        "reject": carry_out(_REJECT),
        "restore": carry_out(_RESTORE),
        "delete": carry_out(_DELETE),
    }


def teller(facts: FactLog, audit: Audit) -> Callable[[Connection, LedgerEntry], None]:
    """Return what says of a decision, before the index is changed, whom and what it concerns."""

    def tell(connection: Connection, entry: LedgerEntry) -> None:
        kind = _KINDS.get(entry.kind)
        if kind is None:
            # Of a later version; `apply_entry` refuses it.
            return
        code, actor = entry.details.get("code", ""), _actor(entry)
        groups = _groups(connection, Selection(sop_instance_uids=entry.sop_instance_uids), kind)
        facts.append(connection, *(_fact(kind, group, actor.name, code) for group in groups))
        audit(connection, _entries(kind, groups, actor, code))

    return tell


def arguments(selection: Selection, actor: Actor, *, code: str = "") -> dict[str, Any]:
    """Return the arguments of a verb as JSON values, checked.

    Raises
    ------
    Invalid
        The selection names no study, series or instance, or the code is no code.
    """
    if not (
        selection.study_instance_uids
        or selection.series_instance_uids
        or selection.sop_instance_uids
    ):
        raise Invalid(
            "Nothing was changed.",
            why="The selection names no study, series or instance, so it would mean very much.",
            remedy="Name at least one UID.",
        )
    if len(code) > CODE_MAX or not code.isprintable():
        raise Invalid(
            "Nothing was changed.",
            why="The reason is not a code.",
            remedy="Give it as code^scheme of PS3.16 CID 7011, e.g. 113001^DCM.",
        )
    return {
        "selection": asdict(selection),
        "actor": {"kind": actor.kind, "name": actor.name, "address": actor.address},
        "code": code,
    }


def reject_arguments(selection: Selection, actor: Actor, code: str) -> dict[str, Any]:
    """Return the arguments of ``reject``; it must say why."""
    if not code.strip():
        raise Invalid(
            "Nothing was rejected.",
            why="A rejection needs a reason.",
            remedy="Give a code of PS3.16 CID 7011, e.g. 113001^DCM.",
        )
    return arguments(selection, actor, code=code.strip())


@dataclass(frozen=True, slots=True)
class _Group:
    """Instances of one series."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]


def _change(keeper: Changes, kind: _Kind, given: Mapping[str, Any]) -> int:
    selection = Selection(**{name: tuple(uids) for name, uids in given["selection"].items()})
    actor = given["actor"]

    def choose(connection: Connection) -> Sequence[str]:
        groups = _groups(connection, selection, kind)
        return [uid for group in groups for uid in group.sop_instance_uids]

    details = {"code": given["code"], "actor_kind": actor["kind"], "address": actor["address"]}
    entry = keeper.change(
        kind.ledger,
        actor=actor["name"],
        choose=choose,
        details={name: value for name, value in details.items() if value},
    )
    return len(entry.sop_instance_uids) if entry is not None else 0


def _actor(entry: LedgerEntry) -> Actor:
    """Return who decided; ledgers of the first version give the name only."""
    kind: Any = entry.details.get("actor_kind", "person")
    return Actor(kind, entry.actor, frozenset(), entry.details.get("address", ""))


def _groups(connection: Connection, selection: Selection, kind: _Kind) -> list[_Group]:
    """Return what a selection names, by series."""
    dialect = Sqlite() if connection.dialect.name == "sqlite" else Postgres()
    condition = every([Sql(kind.wanted), *within(dialect, selection)])
    rows = connection.exec_driver_sql(
        dialect.statement(
            "SELECT study.study_instance_uid, series.series_instance_uid, "  # noqa: S608
            "instance.sop_instance_uid FROM instance "
            "JOIN series ON series.series_key = instance.series_key "
            "JOIN study ON study.study_key = series.study_key "
            f"WHERE {condition.text} ORDER BY study.study_key, series.series_key, "
            "instance.instance_order, instance.instance_key"
        ),
        condition.parameters,
    )
    by_series: dict[tuple[str, str], list[str]] = {}
    for study_uid, series_uid, sop_uid in rows:
        by_series.setdefault((study_uid, series_uid), []).append(sop_uid)
    return [_Group(study, series, tuple(uids)) for (study, series), uids in by_series.items()]


def _fact(kind: _Kind, group: _Group, actor: str, code: str) -> Fact:
    if kind is _REJECT:
        return InstancesRejected(**asdict(group), code=code, actor=actor)
    if kind is _RESTORE:
        return InstancesRestored(**asdict(group), actor=actor)
    return InstancesDeleted(**asdict(group), actor=actor)


def _entries(kind: _Kind, groups: Sequence[_Group], actor: Actor, code: str) -> list[AuditEntry]:
    """Return one audit entry for each study concerned."""
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.study_instance_uid] = counts.get(group.study_instance_uid, 0) + len(
            group.sop_instance_uids
        )
    reason = f" for {code}" if code else ""
    return [
        AuditEntry(
            event=kind.event,
            action="D" if kind is _DELETE else "U",
            actor=actor,
            what=f"{actor.name}: {count} instance(s) were {kind.verb}{reason}.",
            objects=(AuditObject("study", study_uid, number_of_instances=count),),
        )
        for study_uid, count in counts.items()
    ]
