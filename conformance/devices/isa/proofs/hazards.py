"""Shows that no two instructions follow one another too soon, on every way through a kernel.

A forward analysis: for each rule of the target and each place that an instruction made unsafe, how
much time has passed since. Where ways meet, all of them count. Compilers put ``s_nop`` or other
instructions between; what is found here is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ...assembly import Instruction, parse_program
from ...targets import target_facts
from ..code import Code, make_code
from ..target import IsaTarget
from .flow import follow
from .hazard_rules import Rule, rules_for
from .issued import Issued
from .registers import Register, uses
from .scalar_hazards import Scalars

# What is unsafe by rule and place: (number of the instruction, when it was issued).
_Key = tuple[int, Register]
_State = dict[_Key, frozenset[tuple[int, int]]]


@dataclass(frozen=True)
class Hazard:
    """``later`` touches ``place`` without ``needed`` between it and ``first``."""

    later: Instruction
    first: Instruction
    what: str
    place: Register
    needed: str

    def __str__(self) -> str:
        return (
            f"{self.what} ({_named(self.place)}) is used too soon by {self.later}: it needs "
            f"{self.needed} between it and {self.first}"
        )


@lru_cache(maxsize=512)
def hazard_findings(text: str, target: str, lanes: int) -> tuple[Hazard, ...]:
    """Every finding in the text of a compiled kernel."""
    code = make_code(parse_program(text), IsaTarget(target_facts(target), lanes))
    return tuple(check(code))


def check(code: Code) -> list[Hazard]:
    """Every finding in a kernel, in the order of the instructions that come too soon."""
    analysis = _Analysis(code)
    nothing: _State = {}
    follow(code, nothing, analysis.block, _joined)
    if code.target.family.name == "RDNA4":
        _follow_scalars(analysis)
    return [analysis.found[key] for key in sorted(analysis.found)]


_SCALARS = -1


def _follow_scalars(analysis: _Analysis) -> None:
    """Adds what is found of scalar registers; their state is of another kind."""

    def block(start: int, entering: Scalars) -> Scalars:
        state = entering.copy()
        for one in analysis.issued[start : analysis.code.ends[start]]:
            for register, number, wait in state.issue(one):
                first = analysis.issued[number].ins
                analysis.found.setdefault(
                    (one.number, number, _SCALARS),
                    Hazard(one.ins, first, "a scalar register that the vector unit keeps",
                           ("s", register), f"a wait (depctr_{wait}(0))"),
                )  # fmt: skip
        return state

    follow(analysis.code, Scalars(), block, Scalars.joined)


def _joined(one: _State, two: _State) -> _State:
    joined = dict(one)
    for key, since in two.items():
        joined[key] = since | joined.get(key, frozenset())
    return joined


class _Analysis:
    def __init__(self, code: Code) -> None:
        scratch = code.program.descriptor.get("private_segment_fixed_size", 0)
        used = uses(code.program, code.target, scratch)
        self.issued = [
            Issued(number, ins, used[number], code.target)
            for number, ins in enumerate(code.program.instructions)
        ]
        self.code, self.rules = code, rules_for(code.target)
        # The rules that ask anything of an instruction, each with the places, by its text.
        self._roles: dict[str, _Roles] = {}
        self.found: dict[tuple[int, int, int], Hazard] = {}

    def block(self, start: int, entering: _State) -> _State:
        """What is unsafe behind a block; times are ages on entry and exit, and clocks between."""
        clocks = [0] * len(self.rules)
        state: _State = {
            key: frozenset((n, -age) for n, age in since) for key, since in entering.items()
        }
        for number in range(start, self.code.ends[start]):
            one = self.issued[number]
            self._issue(one, state, clocks)
            for rule, what in enumerate(self.rules):
                clocks[rule] += what.ticks(one)
        return self._leaving(state, clocks)

    def _issue(self, one: Issued, state: _State, clocks: list[int]) -> None:
        roles = self._roles.get(one.ins.text) or self._roles.setdefault(
            one.ins.text, _Roles.of(one, self.rules)
        )
        for rule, places in roles.then:
            for place in places:
                since = state.get((rule, place))
                if since:
                    self._judge(one, rule, place, since, clocks[rule])
        for rule in roles.ends:
            for key in [key for key in state if key[0] == rule]:
                del state[key]
        for rule, places in roles.first:
            made = frozenset([(one.number, clocks[rule] + self.rules[rule].ticks(one))])
            for place in places:
                state[rule, place] = made

    def _judge(
        self,
        one: Issued,
        rule: int,
        place: Register,
        since: frozenset[tuple[int, int]],
        clock: int,
    ) -> None:
        what = self.rules[rule]
        for number, issued in since:
            first = self.issued[number]
            needed = what.states(first, one, place)
            if needed > 0 and not what.over(clock - issued, needed):
                self.found.setdefault(
                    (one.number, number, rule),
                    Hazard(one.ins, first.ins, what.what, place, f"{needed} {what.unit}"),
                )

    def _leaving(self, state: _State, clocks: list[int]) -> _State:
        leaving: _State = {}
        for (rule, place), since in state.items():
            what = self.rules[rule]
            ages = [
                (number, what.cut(clocks[rule] - issued, what.most)) for number, issued in since
            ]
            kept = frozenset((n, age) for n, age in ages if not what.over(age, what.most))
            if kept:
                leaving[rule, place] = kept
        return leaving


@dataclass(frozen=True)
class _Roles:
    """What an instruction is to the rules, by their number."""

    first: tuple[tuple[int, frozenset[Register]], ...]
    then: tuple[tuple[int, frozenset[Register]], ...]
    ends: tuple[int, ...]

    @staticmethod
    def of(one: Issued, rules: tuple[Rule, ...]) -> _Roles:
        first = [(number, frozenset(rule.first(one))) for number, rule in enumerate(rules)]
        then = [(number, frozenset(rule.then(one))) for number, rule in enumerate(rules)]
        return _Roles(
            tuple((number, places) for number, places in first if places),
            tuple((number, places) for number, places in then if places),
            tuple(number for number, rule in enumerate(rules) if rule.ends(one)),
        )


def _named(place: Register) -> str:
    kind, number = place
    return f"{kind}{number}" if kind in ("v", "s") else kind
