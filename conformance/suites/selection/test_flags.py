"""AITER's variables: what an unset one means, and every spelling of on and off.

Releases read them with Python code that a fork may change, and every other case sets them to 0 or
1. All values are asked in one session, because a build reads these variables again when told to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from conformance.matrix.requests import AITER, Ask, PagedAttention, Request, Selection, Vit
from conformance.results import Identity
from conformance.subjects.workers import READ_AGAIN
from conformance.suites.case import (
    Case,
    Context,
    Nonconformance,
    SessionPool,
    cases_per_platform,
    reproduce,
    show,
    show_ask,
)
from conformance.suites.selection import SUITE

DEFAULTS, SPELLINGS = "SEL-092", "SEL-093"
ON, OFF = "1", "0"
AS_ON = ("true", "True", "TRUE")
AS_OFF = ("", "false", "False", "01", "2", "yes", "on", " 1", "garbage")
# Requests whose candidates depend on the variables, with one that rejects the first of them.
ASKS: tuple[tuple[Ask, ...], ...] = (
    (
        Ask(Request()),
        Ask(Request(has_sink=True)),
        Ask(Request(use_mla=True, head_size=576)),
    ),
    (Ask(PagedAttention()),),
    (Ask(Vit()),),
)
Answers = list[tuple[Ask, Selection]]
Asked = Callable[[dict[str, str]], Answers]


def cases(context: Context) -> Iterator[Case]:
    """A case for each requirement and each machine, with none of the variables set."""
    asked: set[tuple[str, str, str]] = set()
    for case in cases_per_platform(context, SUITE.name, "flags", [DEFAULTS, SPELLINGS]):
        bare = replace(case.platform, env=())
        key = (case.subject, case.requirement, str(bare))
        if key not in asked:
            asked.add(key)
            yield replace(case, asked_on=bare)


def test_flags(case: Case, context: Context, sessions: SessionPool) -> dict[str, int]:
    def ask(env: dict[str, str]) -> Answers:
        session = sessions.session(case.subject, case.asked_on.with_env(env))
        return [pair for asks in ASKS for pair in zip(asks, session.ask(asks), strict=True)]

    check = {DEFAULTS: _default, SPELLINGS: _spellings}[case.requirement]
    flags = context.asked_edition(case.subject).flags
    compared = 0
    for name, default in flags.items():
        if name.startswith(READ_AGAIN):
            others = {} if name == AITER else {AITER: ON}
            compared += check(Flag(case, context, name, default, others), ask)
    return {"compared": compared}


class Flag:
    """One variable on a case's machine, while ``others`` are set."""

    def __init__(
        self, case: Case, context: Context, name: str, default: bool, others: dict[str, str]
    ) -> None:
        self._case, self._edition = case, context.edition(case.subject)
        self.name, self.default, self.others = name, default, others

    def compare(self, env: dict[str, str], means: str, got: Answers, wanted: Answers) -> int:
        """Compares the answers with ``env`` with those when the variable is ``means``.

        Raises:
            Nonconformance: one differs.
        """
        for (ask, answer), (_, right) in zip(got, wanted, strict=True):
            if answer != right:
                value = repr(env[self.name]) if self.name in env else "unset"
                asked = replace(self._case, asked_on=self._case.asked_on.with_env(env))
                raise Nonconformance(
                    f"expected {self.name} {value} to count as {means} ({show(right)}), "
                    f"{show(answer)}; {show_ask(ask)}",
                    reproduce(asked, self._edition, ask),
                    identities=[Identity("changed")],
                )
        return len(got)


def _default(flag: Flag, ask: Asked) -> int:
    means = ON if flag.default else OFF
    wanted = ask({**flag.others, flag.name: means})
    return flag.compare(flag.others, means, ask(flag.others), wanted)


def _spellings(flag: Flag, ask: Asked) -> int:
    meant: dict[str, Answers] = {
        means: ask({**flag.others, flag.name: means}) for means in (ON, OFF)
    }
    values: Sequence[tuple[str, str]] = [
        *((value, ON) for value in AS_ON),
        *((value, OFF) for value in AS_OFF),
    ]
    # Where it makes no difference whether it is on, one of each shows that it is no error.
    if meant[ON] == meant[OFF]:
        values = [values[0], values[-1]]
    compared = 0
    for value, means in values:
        env = {**flag.others, flag.name: value}
        compared += flag.compare(env, means, ask(env), meant[means])
    return compared
