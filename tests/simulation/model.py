"""What should be there: a plain picture of the archive, which every act changes as it should.

When an act has no answer, because the process ended on the way, it may or may not have happened.
Then there are two pictures, until the archive is looked at and only one of them fits; so too for
what was refused by a failing disk and may come to light after the next start. `Beliefs` holds all
pictures that are possible.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

Change = Callable[["Picture"], None]


@dataclass(frozen=True, slots=True)
class Content:
    """One object as it is sent.

    Parameters
    ----------
    label
        What people call it.
    meaning
        The same for all encodings of one object.
    """

    uid: str
    sop_class_uid: str
    study: str
    series: str
    syntax: str
    data: bytes
    label: str
    meaning: str

    @property
    def digest(self) -> str:
        """Name its bytes."""
        return digest_of(self.data)


def digest_of(data: bytes) -> str:
    """Name bytes."""
    return sha256(data).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored under one UID.

    Parameters
    ----------
    rejected_for
        Why it is hidden; empty for a shown one.
    others
        Other contents that came under the UID.
    """

    content: Content
    rejected_for: str = ""
    others: tuple[Content, ...] = ()


@dataclass(slots=True)
class Picture:
    """All that should be there.

    Attributes
    ----------
    kept
        By SOP Instance UID.
    audited
        How many instances the audit book must tell of, by actor, deed and study.
    announced
        How often each fact must have been announced, by name and UID.
    """

    kept: dict[str, Kept] = field(default_factory=dict)
    audited: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    announced: Counter[tuple[str, str]] = field(default_factory=Counter)

    def copy(self) -> Picture:
        """Return another one that says the same."""
        return Picture(dict(self.kept), Counter(self.audited), Counter(self.announced))

    def expects(self, content: Content) -> str:
        """Return what the archive should answer to a content that is sent."""
        there = self.kept.get(content.uid)
        if there is None:
            return "stored"
        return "already_here" if there.content.meaning == content.meaning else "conflict"

    def shown(self, study: str) -> dict[str, Content]:
        """Return what a reader sees of a study, by UID."""
        return {
            uid: one.content
            for uid, one in self.kept.items()
            if one.content.study == study and not one.rejected_for
        }

    def studies(self) -> list[str]:
        """Return the studies of which something is stored, the oldest first."""
        return list(dict.fromkeys(one.content.study for one in self.kept.values()))


def store(content: Content, actor: str) -> Change:
    """Have a content come in."""

    def change(picture: Picture) -> None:
        expected = picture.expects(content)
        if expected == "already_here":
            return
        if expected == "stored":
            if content.study not in picture.studies():
                picture.announced["study_arrived", content.study] += 1
            picture.kept[content.uid] = Kept(content)
            picture.audited[actor, "received", content.study] += 1
            picture.announced["instances_stored", content.uid] += 1
            return
        there = picture.kept[content.uid]
        if all(other.meaning != content.meaning for other in there.others):
            picture.kept[content.uid] = replace(there, others=(*there.others, content))
            picture.audited[actor, "received beside", content.study] += 1
            picture.announced["content_conflicted", content.uid] += 1

    return change


def decide(verb: str, uids: Iterable[str], actor: str, code: str = "") -> Change:
    """Have instances rejected, restored or deleted; those that are so already are passed over."""
    chosen = tuple(uids)

    def change(picture: Picture) -> None:
        for uid in concerned(picture, verb, chosen):
            there = picture.kept[uid]
            if verb == "deleted":
                del picture.kept[uid]
            else:
                picture.kept[uid] = replace(there, rejected_for=code if verb == "rejected" else "")
            picture.audited[actor, verb, there.content.study] += 1
            picture.announced[f"instances_{verb}", uid] += 1

    return change


def concerned(picture: Picture, verb: str, uids: Iterable[str]) -> list[str]:
    """Return those of some instances that a verb is about."""
    there = [uid for uid in uids if uid in picture.kept]
    if verb == "deleted":
        return there
    return [uid for uid in there if bool(picture.kept[uid].rejected_for) == (verb == "restored")]


class Beliefs:
    """All pictures that are possible."""

    def __init__(self) -> None:
        self.pictures = [Picture()]
        self._late: list[tuple[str, Change]] = []

    @property
    def picture(self) -> Picture:
        """Return the likeliest."""
        return self.pictures[0]

    @property
    def is_certain(self) -> bool:
        """Whether there is only one, and nothing that may still come to light."""
        return len(self.pictures) == 1 and not self._late

    def happened(self, change: Change) -> None:
        """Have a change made for certain."""
        for picture in self.pictures:
            change(picture)

    def may_have_happened(self, changes: Sequence[Change]) -> None:
        """Have each of some changes made or not."""
        for change in changes:
            changed = [picture.copy() for picture in self.pictures]
            for picture in changed:
                change(picture)
            self.pictures += changed

    def may_happen_at_a_start(self, change: Change, where: str) -> None:
        """Note what was refused, and may come to light when the archive is opened again.

        Parameters
        ----------
        where
            In which log it may stand: ``"landing"`` or ``"ledger"``.
        """
        self._late.append((where, change))

    def settled(self, where: str) -> None:
        """Forget what might have come to light: something was written behind it."""
        self._late = [one for one in self._late if one[0] != where]

    def may_have_come_to_light(self, where: str = "") -> None:
        """Have come to light, or not, what might; everywhere, or in one log."""
        late = [change for place, change in self._late if where in ("", place)]
        self._late = [one for one in self._late if where not in ("", one[0])]
        self.may_have_happened(late)

    def keep(self, fits: Callable[[Picture], bool]) -> bool:
        """Give up the pictures that do not fit; false, and none is given up, if none does."""
        fitting = [picture for picture in self.pictures if fits(picture)]
        if fitting:
            self.pictures = fitting
        return bool(fitting)
