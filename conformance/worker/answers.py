"""Takes a message of many questions apart, and puts their answers together."""

from __future__ import annotations

from collections.abc import Iterator

from .contract import Choice, Questions, SelectAnswer, Value


def rows(message: Questions) -> Iterator[dict[str, Value]]:
    """The questions of a message, each with its fields' names."""
    for values in message["rows"]:
        yield dict(zip(message["fields"], values, strict=True))


class Answers:
    """The answers to one message: each distinct choice once, and the index of one for each row."""

    def __init__(self) -> None:
        self._outcomes: dict[Choice, int] = {}
        self._answers: list[int] = []
        self._messages: dict[int, str] = {}

    def add(self, choice: Choice, text: str = "") -> None:
        """Adds the answer to the next row; ``text`` is the message of an error."""
        if text:
            self._messages[len(self._answers)] = text
        self._answers.append(self._outcomes.setdefault(choice, len(self._outcomes)))

    def as_json(self) -> SelectAnswer:
        return {
            "outcomes": list(self._outcomes),
            "answers": self._answers,
            "messages": self._messages,
        }
