"""`mvpose VERB`: flags from the fields of each verb's dataclass, named runs from TOML, errors as one sentence."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Collection
from dataclasses import asdict
from importlib import import_module
from keyword import iskeyword
from types import FrameType, ModuleType
from typing import Any, get_args

DEBUG = "--debug"
# Module of `mvpose.commands` with the flags, their dataclass, and what the verb does. Its work is in the module of the
# verb's own name, which is imported when it runs.
VERBS = {
    "index": ("run_flags", "Index", "List the captures of an archive and what is wrong with them"),
    "check": ("run_flags", "Check", "Judge calibration, synchronisation and scale before compute is spent"),
    "reconstruct": ("run_flags", "Reconstruct", "Reconstruct 3D poses from an archive"),
    "import": ("run_flags", "Import", "Reconstruct 3D poses from 2D joints that another tool found"),
    "evaluate": ("network_flags", "Evaluate", "Judge models and runs against ground truth, and beside each other"),
    "view": ("run_flags", "View", "Make overlays, plots and a summary page of a finished run"),
    "export": ("run_flags", "Export", "Write the poses of a run in the formats of other tools"),
    "record": ("run_flags", "Record", "Write a run as recordings for the Rerun viewer"),
    "verify": ("verify", "Verify", "Check that the results of a run are whole, and each there once"),
    "train": ("network_flags", "Train", "Train a multi-view network on a table of samples"),
    "tune": ("network_flags", "Tune", "Search the settings of a training"),
    "dataset": ("dataset", "Dataset", "Convert, measure and show datasets of samples"),
    "register": ("register", "Register", "Register a trained network as a version that MLflow can serve"),
    "promote": ("promote", "Promote", "Move an alias to a version that is better than its holder, or back"),
    "track": ("track", "TrackSync", "Send records of runs that did not reach MLflow when they were made"),
    "models": ("models", "Models", "Fetch and list the weights of the detector"),
    "benchmark": ("benchmark", "Benchmark", "Measure throughput beside the peers that are installed"),
}


def main() -> None:
    """Entry point of the `mvpose` command."""
    signal.signal(signal.SIGTERM, _interrupted)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files are printed that not every terminal can show
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter shutdown soon after a Parquet read aborts in one of four runs (threads of native libraries, measured)
    # and takes message and exit code along; all that has to be closed is closed by now.
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one verb; the exit code. A mistake of the user is one sentence on stderr and exit code 1.

    With `--debug`, wherever it is among the arguments, its traceback comes before it, and logs are shown.
    """
    from mvpose.errors import set_debugging

    set_debugging(DEBUG in arguments)
    arguments = [argument for argument in arguments if argument != DEBUG]
    if arguments in ([], ["-h"], ["--help"]):
        print(_usage())
        return 0 if arguments else 2
    from mvpose.errors import MvposeError

    if not _known(arguments[0], VERBS, "verb"):
        return 2

    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        actions = [choice.name for _, choice in map(get_args, get_args(command_of(arguments[0])))]
        if actions and arguments[1:] and not _known(arguments[1], actions, f"action of {arguments[0]}"):
            return 2
        command = parse(arguments[0], arguments[1:])
        _refuse_credentials(asdict(command))
        return module_of(arguments[0]).run(command)
    except (MvposeError, OSError) as error:
        _print_traceback(error)
        print(f"mvpose: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        _print_traceback(interruption)
        print("\nmvpose: interrupted. What is committed is kept: run the same command again to go on.", file=sys.stderr)
        return 130


def _print_traceback(error: BaseException) -> None:
    """Only while debugging."""
    from mvpose.errors import is_debugging, redacted_traceback

    if is_debugging():
        print(redacted_traceback(error), file=sys.stderr)


def _known(name: str, known: Collection[str], kind: str) -> bool:
    """Whether a name is one of those that are known; says which one was meant if not. A flag is left to tyro."""
    if name in known or name.startswith("-"):
        return True
    from mvpose.config import nearest

    print(f"mvpose: no {kind} is named {name!r} ({nearest(name, known)})", file=sys.stderr)
    return False


def command_of(verb: str):
    """The dataclass (or union of dataclasses) whose fields are the flags of a verb."""
    module, name, _ = VERBS[verb]
    return getattr(import_module(f"mvpose.commands.{module}"), name)


def module_of(verb: str) -> ModuleType:
    """The module of a verb; one that is a keyword of Python has an underscore behind it."""
    return import_module(f"mvpose.commands.{verb}{'_' * iskeyword(verb)}")


def parse(verb: str, arguments: list[str]) -> Any:
    """The dataclass of a verb from its arguments; see `mvpose.commands.parsing`."""
    from mvpose.commands.parsing import parsed

    return parsed(verb, command_of(verb), arguments, common_flags(verb))


def common_flags(verb: str) -> tuple[str, ...]:
    """The flags that the `--help` of a verb shows; without them it shows all."""
    return getattr(import_module(f"mvpose.commands.{VERBS[verb][0]}"), "COMMON", {}).get(verb, ())


def _refuse_credentials(value: Any) -> None:
    """ConfigError where an S3 location of the settings has credentials in it, before anything is printed."""
    from mvpose.storage.locations import refuse_credentials

    if isinstance(value, str):
        refuse_credentials(value)
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_credentials(part)


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {help_text}" for verb, (*_, help_text) in VERBS.items())
    return (
        f"usage: mvpose VERB [--config FILE.toml] [flags]\n\n{verbs}\n\n"
        "`mvpose VERB --help` lists the common flags of a verb, `--help-all` lists all of them.\n"
        "`--debug` with any verb shows tracebacks and detailed logs."
    )


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
