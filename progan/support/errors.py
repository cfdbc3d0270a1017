"""What can go wrong by a user's hand. The command line prints these as one sentence and exits with code 2."""


class UserError(Exception):
    """A mistake the user can mend: says what was given, what is allowed and what to do.

    A sentence, which is one line whatever names are in it, and lines of a list below it, if there are any.
    """

    def __str__(self) -> str:
        sentence, *listed = map(str, self.args or ("",))
        return "\n".join([sentence.replace("\n", "\\n"), *listed])


class ConfigError(UserError):
    """A field of a configuration has a value outside its range, or two fields contradict each other."""


class DataError(UserError):
    """A picture, a folder of pictures or a data set cannot be used as it is."""


class RunError(UserError):
    """A run folder, a checkpoint or a weights file cannot be used as it is."""


class DivergedError(RunError):
    """A loss is not a number any more."""


class Stopped(Exception):
    """A signal ended the training after a checkpoint; `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"signal {self.signum}"


def printable(what: object, most: int = 200) -> str:
    """A text from outside, or what an error says, as one line without control characters, of at most `most` letters.

    An error of the system says its reason alone.
    """
    text = getattr(what, "strerror", None) or str(what)
    line = next((line for line in text[: 2 * most].splitlines() if line.strip()), "").strip()
    if not line and isinstance(what, BaseException):
        line = type(what).__name__
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= most else line[: most - 1] + "…"
