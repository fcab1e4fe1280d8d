"""The parser of the command lines: options in groups, help without types, errors in a sentence."""

__all__ = [
    "AMOUNT",
    "COUNT",
    "FACTOR",
    "SEED",
    "Parser",
    "add_common",
    "add_own_code",
    "add_panels",
    "did_you_mean",
]

import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn, cast

from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveFloat, PositiveInt

import pyrovae

COUNT = cast(type[int], PositiveInt)
AMOUNT = cast(type[float], PositiveFloat)
SEED = cast(type[int], NonNegativeInt)
FACTOR = cast(type[float], OpenUnitInterval)
EXPECTED = {
    "PositiveInt": "a whole number above 0",
    "PositiveFloat": "a number above 0",
    "NonNegativeInt": "a whole number, 0 or more",
    "OpenUnitInterval": "a number above 0 and below 1",
}


class Formatter(DefaultHelpFormatter):
    """Help with defaults, but without types, which no user asked for; examples stay in lines."""

    def _get_help_string(self, action: Action) -> str:
        """Returns an option's help with its default, where it has one that says something."""
        text, default = action.help or "", action.default
        unsaid = default is None or default is False or default == SUPPRESS
        if unsaid or "(default" in text or action.required:
            return text
        default = " ".join(map(str, default)) if isinstance(default, list) else default
        return f"{text} (default: {default})".strip()

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Returns a text filled to the width; one that has lines of its own keeps them."""
        return text if "\n" in text else super()._fill_text(text, width, indent)


class Parser(ArgumentParser):
    """A command's parser.

    Args:
        name: Of the command, as it stands behind "python -m pyrovae": ".svi", or " latent".
        does: What it does, in a sentence.
        examples: Of its command line, and what each is for.
        about: What stands before the options in a usage line.
    """

    def __init__(
        self, name: str, does: str, examples: Sequence[tuple[str, str]], about: str = ""
    ) -> None:
        prog = f"python -m pyrovae{name}"
        lines = [f"  {prog} {line}\n      {what}" for line, what in examples]
        super().__init__(
            prog=prog,
            usage=" ".join(filter(None, [prog, about, "[OPTION ...]"])),
            description=does,
            epilog="\n".join(["examples:", *lines]),
            formatter_class=Formatter,
            allow_abbrev=False,
        )
        self.given: list[str] = []
        version = f"pyrovae {pyrovae.__version__}"
        self.add_argument("--version", action="version", version=version, help="say which it is")

    def parse_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None
    ) -> Namespace:
        """Returns the options; exits with a sentence where they are wrong."""
        self.given = list(sys.argv[1:] if args is None else args)
        try:
            self._check_files()
            return super().parse_args(self.given)
        except UnicodeDecodeError as e:
            self.error(f"{self._files()} is no text ({e.reason})")

    def _check_files(self) -> None:
        """Ends the process where a configuration is none, or too large or deep to be read.

        The parser itself would follow whatever a file makes it unfold.
        """
        path = Path(self._files())
        if path.exists() and not path.is_dir():
            from pyrovae.storage import read_yaml  # which takes long to import

            try:
                read_yaml(path)
            except UnicodeDecodeError:
                raise
            except (OSError, ValueError) as e:
                self.error(f"--config {path} cannot be read: {e}")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the process with exit code 2: one sentence, and where help is.

        Args:
            message: Of argparse or jsonargparse, in their words.
            ex: Not used: what is known of it stands in the message.
        """
        sentence = self._sentence(message)
        more = f"{self.prog} --help says more"
        self.exit(2, f"error: {sentence}{' ' if sentence.endswith('?') else '; '}{more}\n")

    def _sentence(self, message: str) -> str:
        """Returns what the parser has found, in the words of the command line.

        Args:
            message: Of argparse or jsonargparse; where it is of no form known here, it is
                returned.
        """
        message = " ".join(message.split())
        if of_line := self._of_line(message):
            return of_line
        known = re.match(r'(?:Parser key "([^"]+)"|argument (\S+):)[^:]*:?\s*(.*)', message)
        name = known and (known[1] or known[2]).split("/")[-1]
        found = [a for a in self._actions if name and name in (a.dest, *a.option_strings)]
        if not found:
            return message
        return self._of_form(found[0], message) or self._of_value(found[0], message) or message

    def _of_line(self, message: str) -> str:
        """Returns what is wrong with the line: an option too many, or missing; or "".

        Args:
            message: Of the parser, in one line.
        """
        if unknown := re.match(r"unrecognized arguments: (\S+)", message):
            name = unknown[1].partition("=")[0]
            if not name.startswith("-"):
                return f"{name!r} is one argument too many"
            return f"there is no option {name}{did_you_mean(name, self._options())}"
        if unknown := re.match(r"Option '([^']+)' is not accepted", message):
            keys = [a.dest for a in self._actions]
            return (
                f"{self._files()}: there is no option {unknown[1]}{did_you_mean(unknown[1], keys)}"
            )
        if missing := re.match(r"the following arguments are required: (\S+)", message):
            return f"{missing[1].upper()} is missing"
        if message.startswith(("Problems parsing config", "Unexpected config")):
            return f"{self._files()} is no YAML of options ({message})"
        return ""

    def _of_form(self, action: Action, message: str) -> str:
        """Returns how an option is written wrongly, whatever its value; or "".

        Args:
            action: The option.
            message: Of the parser, in one line.
        """
        option = _written(action)
        if "expected" in message and "argument" in message:
            dashed = [w for w in self.given if w.startswith("-") and w not in self._options()]
            hint = f"; write {option}={dashed[0]}" if dashed else ""
            return f"{option} needs a value{hint}"
        if "ignored explicit argument" in message:
            return f"{action.option_strings[0]} takes no value"
        if "File does not exist" in message or "Path is not a file" in message:
            return f"{option}: there is no file {self._files()}"
        return ""

    def _of_value(self, action: Action, message: str) -> str:
        """Returns what value an option has, and what it takes; "" where that is not known.

        Args:
            action: The option.
            message: Of the parser, which names the type that was expected.
        """
        option, choices = _written(action), list(action.choices or ())
        value = self._value(action.option_strings)
        wrong = [v for v in value if v not in choices]
        text = repr(" ".join(wrong)) if value else f"wrong in {self._files()}"
        if action.nargs == "+" and any("," in v for v in wrong):
            return f"{option} is {text}; put spaces between its values"
        for kind, expected in EXPECTED.items():
            if kind in message:
                return f"{option} is {text}; give {expected}"
        if not choices:
            return ""
        meant = did_you_mean(wrong[0], choices) if wrong else ""
        return f"{option} is {text}{meant or '; take ' + ', '.join(choices)}"

    def _options(self) -> list[str]:
        """Returns the names of all options, dashes and all."""
        return [name for a in self._actions for name in a.option_strings]

    def _files(self) -> str:
        """Returns the configuration that the command line names."""
        return " ".join(self._value(["--config"])) or "the configuration"

    def _value(self, names: Sequence[str]) -> list[str]:
        """Returns what the command line says after an option, the last time that it does.

        Args:
            names: Of the option, such as "-n" and "--num-epochs".
        """
        value: list[str] = []
        taking = False
        for word in self.given:
            name, equals, rest = word.partition("=")
            if name in names:
                value, taking = [rest] if equals else [], not equals
            elif word.startswith("--"):
                taking = False
            elif taking:
                value.append(word)
        return value


def _written(action: Action) -> str:
    """Returns how an option, or an argument without dashes, is named in a sentence.

    Args:
        action: Of the parser.
    """
    return action.option_strings[-1] if action.option_strings else action.dest.upper()


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns the question for what may have been meant, "" where nothing is near.

    Args:
        name: As the user wrote it.
        names: Those that are known.

    Example:
        >>> did_you_mean("bath-size", ["batch-size", "seed"])
        '; did you mean batch-size?'
    """
    near = get_close_matches(name, list(names), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def add_own_code(add: Callable[..., object]) -> None:
    """Adds the options that name a user's own code of a run again, which no file can.

    Args:
        add: Adds an option to a group of the parser.
    """
    add(
        "--program",
        type=str | None,
        metavar="MODULE:MAKE",
        help="of a program, or of a run of one: make() returns (model, guide)",
    )
    add(
        "--model",
        type=str | None,
        metavar="NAME",
        help="of a run of your own model: package.module.Class",
    )
    add(
        "--likelihood",
        type=str | None,
        metavar="NAME",
        help="of a run with your own likelihood: package.module.Class",
    )


def add_panels(add: Callable[..., object]) -> None:
    """Adds the option that puts panels of the user's own on the page of a run.

    Args:
        add: Adds an option to a group of the parser.
    """
    add(
        "--panels",
        nargs="+",
        default=[],
        metavar="NAME",
        help="beside those of the page that is written: package.module.Class of your own",
    )


def add_common(parser: Parser) -> Callable[..., object]:
    """Adds the options that every command has which computes; returns what adds more of them.

    Args:
        parser: Gains a group, "computing".

    Returns:
        Adds an option to that group.
    """
    add = parser.add_argument_group("computing").add_argument
    add("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, ...")
    add(
        "--compile",
        action="store_true",
        help="compile the program first: some ten seconds, once, then about twice as fast",
    )
    add(
        "--progress",
        action=ActionYesNo(yes_prefix="", no_prefix="no-"),
        default=None,
        help="show bars (default: on a terminal; elsewhere a line now and then)",
    )
    add(
        "--json",
        action="store_true",
        help="the table as JSON on stdout, everything else on stderr",
    )
    return add
