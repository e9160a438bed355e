"""The `mvpose VERB` command: flags from each verb's dataclass, named runs from TOML, errors in one sentence."""

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
# Per verb: the module of `mvpose.commands` with its flags, their dataclass, and a summary. The implementation is in the
# module named after the verb, which is imported when the verb runs.
VERBS = {
    "index": ("run_flags", "Index", "List the captures of an archive and their problems"),
    "check": ("run_flags", "Check", "Check calibration, synchronisation and scale before a long run"),
    "reconstruct": ("run_flags", "Reconstruct", "Reconstruct 3D poses from an archive"),
    "import": ("run_flags", "Import", "Reconstruct 3D poses from the 2D joints of another tool"),
    "evaluate": ("network_flags", "Evaluate", "Evaluate models and runs against ground truth, and compare them"),
    "view": ("run_flags", "View", "Make overlays, plots and a summary page of a finished run"),
    "export": ("run_flags", "Export", "Write the poses of a run in the formats of other tools"),
    "record": ("run_flags", "Record", "Write a run as recordings for the Rerun viewer"),
    "verify": ("verify", "Verify", "Check a run for missing, damaged and duplicate results"),
    "train": ("network_flags", "Train", "Train a multi-view network on a table of samples"),
    "tune": ("network_flags", "Tune", "Search training settings"),
    "dataset": ("dataset", "Dataset", "Convert, render, measure and show tables of samples"),
    "register": ("register", "Register", "Register a trained network in MLflow"),
    "promote": ("promote", "Promote", "Move an alias to a better version, or roll it back"),
    "track": ("track", "TrackSync", "Send pending run records to MLflow"),
    "models": ("models", "Models", "List models, fetch weights, export to ONNX"),
    "benchmark": ("benchmark", "Benchmark", "Measure throughput, and compare with installed peers"),
}


def main() -> None:
    """Entry point of the `mvpose` command."""
    signal.signal(signal.SIGTERM, _interrupted)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every terminal can show every file name
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter shutdown soon after a Parquet read aborts in one of four runs (threads of native libraries, measured),
    # and loses the message and exit code. Everything that must be closed is closed by now.
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one verb and return the exit code. A user error prints one sentence on stderr and gives exit code 1.

    With `--debug` anywhere in the arguments, the traceback is printed first, and logs are shown.
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
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        print("mvpose: the detector needs ONNX Runtime: install mvpose[cpu] or mvpose[gpu], not both.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interruption:
        _print_traceback(interruption)
        print("\nmvpose: interrupted. Committed results are kept: rerun the same command to resume.", file=sys.stderr)
        return 130


def _print_traceback(error: BaseException) -> None:
    """Print the redacted traceback when debugging."""
    from mvpose.errors import is_debugging, redacted_traceback

    if is_debugging():
        print(redacted_traceback(error), file=sys.stderr)


def _known(name: str, known: Collection[str], kind: str) -> bool:
    """Whether a name is known; if not, suggest the nearest one. Flags are left to tyro."""
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
    """The module of a verb; a trailing underscore is added to Python keywords."""
    return import_module(f"mvpose.commands.{verb}{'_' * iskeyword(verb)}")


def parse(verb: str, arguments: list[str]) -> Any:
    """Parse the arguments of a verb into its dataclass; see `mvpose.commands.parsing`."""
    from mvpose.commands.parsing import parsed

    return parsed(verb, command_of(verb), arguments, common_flags(verb))


def common_flags(verb: str) -> tuple[str, ...]:
    """The flags that `--help` shows for a verb; empty means all."""
    return getattr(import_module(f"mvpose.commands.{VERBS[verb][0]}"), "COMMON", {}).get(verb, ())


def _refuse_credentials(value: Any) -> None:
    """Raise ConfigError if an S3 location in the settings contains credentials, before anything is printed."""
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
