"""A batch of questions taken apart, and its answers put together."""

from collections.abc import Iterator

from .wire import Message

# (selected, error, ((backend, reasons), ...)): hashable, because most answers are equal.
Outcome = tuple[str | None, str | None, tuple[tuple[str, tuple[str, ...]], ...]]


def rows(message: Message) -> Iterator[Message]:
    """The questions of a batch, each with its fields' names."""
    for values in message["rows"]:
        yield dict(zip(message["fields"], values, strict=True))


class Batch:
    """Answers of one batch: each distinct outcome once, then an index a row."""

    def __init__(self) -> None:
        self._outcomes: dict[Outcome, int] = {}
        self._answers: list[int] = []
        self._messages: dict[int, str] = {}

    def add(self, outcome: Outcome, text: str = "") -> None:
        """The next row's answer; ``text`` is the message of an error."""
        if text:
            self._messages[len(self._answers)] = text
        self._answers.append(self._outcomes.setdefault(outcome, len(self._outcomes)))

    def as_json(self) -> Message:
        return {
            "outcomes": list(self._outcomes),
            "answers": self._answers,
            "messages": self._messages,
        }
