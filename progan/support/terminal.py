"""The one place that prints: what comes from outside, names and words in files, is shown as text whatever it holds.

A path with "[/]" in it is no markup, and an escape sequence in a label reaches no terminal.
"""

from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text


class Terminal(Console):
    """Standard output or error, of which every text on its way is cleaned, in tables too.

    stderr: which of them; quiet: nothing is shown. Lines are never cut or wrapped; a table is as wide as the terminal.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """Every plain text that Rich prints comes by here."""
        return super().render_str(cleaned(text), **how)

    def say(self, what: RenderableType) -> None:
        """Print a text as it is, or a table."""
        self.print(what, soft_wrap=isinstance(what, str))


def say(what: RenderableType, *, error: bool = False) -> None:
    """Print a text or a table to standard output, or to standard error."""
    Terminal(stderr=error).say(what)


def cleaned(text: str) -> str:
    """The text with control characters, and what no encoding can hold, written as Python writes them: \\x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
