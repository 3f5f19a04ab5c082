"""The two sides of a comparison: builds or editions, and what each of them can be asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from conformance.config import RunConfig
from conformance.matrix.requests import Ask, PagedAttention, Platform, Request, Selection
from conformance.requirements.edition_choice import edition_of_release
from conformance.runners.preparation import settle_all
from conformance.subjects.base import Options, Session, Subject
from conformance.subjects.reference import REFERENCE, ReferenceSubject, edition_table
from conformance.subjects.spellings import parse_subject
from vllm_editions import AUTO_EDITION, Edition, editions

UNKNOWN_BACKEND = "unknown_backend"
UNKNOWN_DTYPE = "unknown_kv_cache_dtype"
# What a side that does not know a word answers, in tables; and what other errors are there.
NOT_KNOWN = "not known"
LABELS = {
    "no_valid_backend": "no backend",
    "invalid_selected_backend": "refused",
    "unsupported_vit_backend": "refused",
    UNKNOWN_BACKEND: NOT_KNOWN,
    UNKNOWN_DTYPE: NOT_KNOWN,
}
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Request)}
_SERIES = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Side:
    """A build or an edition.

    ``spec`` is as the user spelled it. ``edition`` is that of its release: whose words it knows.
    ``judged_by`` is the edition whose requirements name what differs. ``build`` says whether a
    vLLM or another program answers, not the reference selector.
    """

    spec: str
    edition: str
    judged_by: str
    release: str
    build: bool = True

    def subject(self, options: Options) -> Subject:
        """The subject that answers for this side."""
        if not self.build:
            return ReferenceSubject(self.edition, self.spec)
        return parse_subject(self.spec, replace(options, edition=self.judged_by))

    @property
    def table(self) -> Edition:
        return edition_table(self.edition)


def sides(config: RunConfig, say: Callable[[str], None]) -> tuple[Side, Side]:
    """The two sides that ``config.subjects`` name: subjects, or editions such as ``0.32``.

    Raises:
        UsageError: an unknown edition, subject or spelling.
        InfrastructureError: a build cannot be prepared.
    """
    for spec in config.subjects:
        if _SERIES.fullmatch(spec):
            edition_table(spec)
    builds = tuple(s for s in config.subjects if not _is_edition(s) and s != REFERENCE)
    settled = settle_all(replace(config, subjects=builds), say)
    known = {spec: _of_build(spec, settled) for spec in builds}
    known |= {
        spec: Side(spec, spec, spec, spec, False) for spec in config.subjects if _is_edition(spec)
    }
    if REFERENCE in config.subjects:
        edition = config.edition
        if edition == AUTO_EDITION:
            edition = next((side.edition for side in known.values()), config.edition_of(REFERENCE))
        known[REFERENCE] = Side(REFERENCE, edition, edition, edition, False)
    left, right = (known[spec] for spec in config.subjects)
    return left, right


def _is_edition(spec: str) -> bool:
    return spec in editions()


def _of_build(spec: str, settled: RunConfig) -> Side:
    release = settled.releases[spec]
    judged_by = settled.edition_of(spec)
    own = judged_by if settled.edition == AUTO_EDITION else edition_of_release(release)
    return Side(spec, own, judged_by, release)


@dataclass(frozen=True)
class Words:
    """What a side can be asked: its request fields, its KV-cache dtypes, its backends.

    A field that it does not know is left out of a question, as a user of that release would.
    """

    fields: frozenset[str]
    dtypes: frozenset[str]
    backends: frozenset[str]

    @classmethod
    def of(cls, side: Side, session: Session) -> Words:
        """A build's own fields, where it says them; its release's edition says the rest."""
        table = side.table
        named = session.info.fields or table.asked.fields
        return cls(
            frozenset((*named, *table.asked.context)),
            frozenset(table.asked.kv_cache_dtypes),
            frozenset(table.backends),
        )

    def put(self, ask: Ask) -> Ask | Selection:
        """The question as the side can be asked it, or the answer that it does not know a word."""
        question = ask.question
        if not isinstance(question, Request):
            return ask
        if ask.backend is not None and ask.backend not in self.backends:
            return Selection(None, (), UNKNOWN_BACKEND)
        named = {question.kv_cache_dtype or "auto", question.run_kv_cache_dtype}
        if not named <= self.dtypes:
            return Selection(None, (), UNKNOWN_DTYPE)
        left_out = {
            name: default
            for name, default in _DEFAULTS.items()
            if name not in self.fields and getattr(question, name) != default
        }
        return Ask(replace(question, **left_out), ask.backend) if left_out else ask


def answers(session: Session, words: Words, asks: Sequence[Ask]) -> list[Selection]:
    """A side's answers; questions of one kind are asked together."""
    put = [words.put(ask) for ask in asks]
    found: dict[int, Selection] = {}
    by_kind: dict[type, list[int]] = {}
    for at, question in enumerate(put):
        if isinstance(question, Selection):
            found[at] = question
        else:
            by_kind.setdefault(type(question.question), []).append(at)
    for places in by_kind.values():
        asked = [ask for at in places if isinstance(ask := put[at], Ask)]
        found.update(zip(places, session.ask(asked), strict=True))
    return [found[at] for at in range(len(asks))]


def label(ask: Ask, selection: Selection) -> str:
    """An answer in a word or two, as tables have it."""
    name = selection.selected or LABELS.get(selection.error or "", selection.error or "")
    if isinstance(ask.question, PagedAttention):
        return f"ROCM_ATTN's {name} decode kernel"
    return name if isinstance(ask.question, Request) else f"{name} (vision)"


# ---- platforms -------------------------------------------------------------------------------

# AITER's variables are asked in every combination, each other one by itself.
TOGETHER = "VLLM_ROCM_USE_AITER"


@dataclass(frozen=True)
class Variables:
    """The variables that either edition's selector reads.

    ``defaults`` has the value of each when it is not set ("" for none), ``others`` the value that
    makes a difference.
    """

    defaults: dict[str, str]
    others: dict[str, str]

    @classmethod
    def of(cls, *tables: Edition) -> Variables:
        defaults, others = {}, {}
        for table in tables:
            for name, default in table.flags.items():
                defaults[name], others[name] = str(int(default)), str(int(not default))
            for condition in _conditions(table):
                name, equals, value = condition.removeprefix("!").partition("=")
                if equals:
                    defaults[name], others[name] = "", value
        return cls(defaults, others)

    def settings(self, platform: Platform) -> dict[str, str]:
        """What a platform says of each of them, and of its packages."""
        packages = {
            "aiter": "installed" if platform.aiter else "not installed",
            "flash_attn": "installed" if platform.flash_attn else "not installed",
        }
        return {**packages, **self.defaults, **platform.variables}

    def _combinations(self) -> Iterator[dict[str, str]]:
        """Every setting of AITER's variables, those nearest to the defaults first."""
        names = [name for name in self.defaults if name.startswith(TOGETHER)]
        subsets = sorted(range(2 ** len(names)), key=lambda bits: (bits.bit_count(), bits))
        for bits in subsets:
            yield {n: self.others[n] for at, n in enumerate(names) if bits >> at & 1}

    def platforms(
        self,
        target: str,
        aiter: bool | None = None,
        flash_attn: bool = False,
        env: dict[str, str] | None = None,
    ) -> Iterator[Platform]:
        """A target's platforms: ``aiter`` None is both; with ``env`` only these variables."""
        packages = [given for given in (False, True) if aiter in (None, given)]
        for given in packages:
            settings = self._combinations() if env is None else [env]
            for variables in settings:
                yield Platform.make(target, aiter=given, flash_attn=flash_attn, env=variables)
        if env is None:
            yield from self._alone(target, packages, flash_attn)

    def _alone(self, target: str, packages: Sequence[bool], always: bool) -> Iterator[Platform]:
        """With flash_attn, and each variable that is not AITER's, by itself."""
        extra: list[tuple[bool, bool, dict[str, str]]] = [] if always else [(False, True, {})]
        for name, value in self.others.items():
            if not name.startswith(TOGETHER):
                extra += [(a, f, {name: value}) for a, f in ((False, False), (True, False))]
                extra += [(False, True, {name: value})] if not self.defaults[name] else []
        for aiter, flash_attn, env in extra:
            if aiter in packages:
                with_it = flash_attn or always
                yield Platform.make(target, aiter=aiter, flash_attn=with_it, env=env)


def _conditions(table: Edition) -> Iterator[str]:
    for entries in (table.candidates.dense, table.candidates.mla, table.candidates.sparse):
        for entry in entries:
            yield from entry.when
    yield from (word for rule in table.vit.rules for word in rule.when)
    yield from (word for rule in table.paged_attention.values() for word in rule.when)
