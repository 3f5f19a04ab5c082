"""A worker that answers as the reference selector does, until it misbehaves.

``python misbehaving_worker.py MODE [AT] [ONCE]`` answers the full batch number AT (from 0) as MODE
says. Only full batches count, so that truth rows and properties, which come a few at a time, are
answered correctly. ONCE names a file that is created at the first misdeed: while it exists, the
worker behaves. The mode ``crash`` fails at every start; ``crash-later`` at every start but the
first, which creates the file ONCE, and each crash adds a line to it. The mode ``mi300x`` is not a
misdeed: it is a real machine that refuses to be another one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conformance.matrix.requests import Ask, PagedAttention, Platform, Question, Request, Vit
from conformance.subjects.protocol import BATCH
from conformance.subjects.reference import ReferenceSession, edition_table

Message = dict[str, Any]
KINDS: dict[str, Callable[..., Question]] = {
    "attention": Request,
    "paged_attention": PagedAttention,
    "vit": Vit,
}
HERE = "gfx942"
LAST_WORDS = "the last words of a misbehaving worker"


def say(text: str) -> None:
    """Sends one line to the suite."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def started(message: Message) -> tuple[ReferenceSession, Message]:
    """A new session, and the answer to ``start``."""
    stated = message["platform"]
    platform = Platform.make(
        stated["target"], aiter=stated["aiter"], flash_attn=stated["flash_attn"], env=stated["env"]
    )
    session = ReferenceSession(edition_table("0.19"), platform)
    return session, {"subject": "misbehaving", "version": "0.19.0", "simulated": True}


def answered(session: ReferenceSession, message: Message) -> Message:
    """The well-formed answer to a batch."""
    outcomes: dict[str, int] = {}
    answers = []
    messages = {}
    for row, values in enumerate(message["rows"]):
        given = dict(zip(message["fields"], values, strict=True))
        backend = given.pop("backend")
        (selection,) = session.ask([Ask(KINDS[message["op"]](**given), backend)])
        candidates = [[c.backend, list(c.rejected)] for c in selection.candidates]
        outcome = json.dumps([selection.selected, selection.error, candidates])
        answers.append(outcomes.setdefault(outcome, len(outcomes)))
        if selection.message:
            messages[row] = selection.message
    listed = [json.loads(outcome) for outcome in outcomes]
    return {"outcomes": listed, "answers": answers, "messages": messages}


def not_here(message: Message) -> bool:
    """Whether a real MI300X is asked to be another machine."""
    return bool(message["simulate"] != "always" and message["platform"]["target"] != HERE)


def misbehave(mode: str, number: int, ok: Message) -> None:
    """Answers one batch, or fails to, as ``mode`` says."""
    print(LAST_WORDS, file=sys.stderr, flush=True)  # noqa: T201 - stderr is what is tested
    count = len(ok["answers"])
    answers = {
        "wrong-id": {"id": number + 7, "ok": ok},
        "too-few": {"id": number, "ok": {**ok, "answers": ok["answers"][:-1]}},
        "out-of-range": {"id": number, "ok": {**ok, "answers": [*ok["answers"][:-1], count]}},
        "negative": {"id": number, "ok": {**ok, "answers": [*ok["answers"][:-1], -1]}},
        "neither": {"id": number},
        "no-object": [number],
        "refuse": {"id": number, "error": {"message": "cannot do it", "traceback": "at line 9"}},
        "bad-outcome": {"id": number, "ok": {**ok, "outcomes": [["ROCM_ATTN"]] * count}},
    }
    if mode in answers:
        say(json.dumps(answers[mode]))
    elif mode == "answer-and-die":
        say(json.dumps({"id": number, "ok": ok}))
        os.kill(os.getpid(), signal.SIGKILL)
    elif mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif mode == "hang":
        time.sleep(600)
    elif mode == "rubbish":
        say("Loading weights: 100%")
    elif mode == "malformed":
        say(json.dumps({"id": number, "ok": ok})[:-9])
    elif mode == "close-stdout":
        os.close(1)
        time.sleep(600)
    else:
        raise SystemExit(f"unknown mode {mode!r}")


def serve(mode: str, at: int, once: Path | None) -> None:
    """Answers messages until stdin ends."""
    session: ReferenceSession | None = None
    full = 0
    for line in sys.stdin:
        message = json.loads(line)
        number, op = message["id"], message["op"]
        if op == "start" and mode == "mi300x" and not_here(message):
            text = f"this machine's GPU is {HERE}, not {message['platform']['target']}"
            refusal = {"kind": "other_machine", "message": text}
            say(json.dumps({"id": number, "error": refusal}))
            continue
        if op == "start":
            session, ok = started(message)
            if mode == "deaf":
                say(json.dumps({"id": number, "ok": ok}))
                time.sleep(600)
        elif op in KINDS and session:
            ok = answered(session, message)
            if len(message["rows"]) == BATCH:
                full += 1
                if full == at + 1 and mode != "good" and not (once and once.exists()):
                    if once:
                        once.touch()
                    misbehave(mode, number, ok)
                    continue
        elif op == "variable" and session:
            ok = {"variables": session.variables(message["names"])}
        else:
            ok = {}
        say(json.dumps({"id": number, "ok": ok}))


def crash() -> None:
    """Ends like a program that cannot import what it needs."""
    try:
        raise RuntimeError(LAST_WORDS)
    except RuntimeError:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(3) from None


def main(mode: str, at: str = "0", once: str = "") -> None:
    if mode == "crash":
        crash()
    if mode == "crash-later":
        crashes = Path(once)
        if crashes.exists():
            with crashes.open("a") as log:
                log.write("crash\n")
            crash()
        crashes.touch()
        mode = "good"
    serve(mode, int(at), Path(once) if once else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
