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

VERBS = {
    "index": ("Index", "List the captures of an archive and what is wrong with them"),
    "check": ("Check", "Judge calibration, synchronisation and scale before compute is spent"),
    "reconstruct": ("Reconstruct", "Reconstruct 3D poses from an archive"),
    "import": ("Import", "Reconstruct 3D poses from 2D joints that another tool found"),
    "evaluate": ("Evaluate", "Judge models and runs against ground truth, and beside each other"),
    "view": ("View", "Make overlays, plots and a summary page of a finished run"),
    "export": ("Export", "Write the poses of a run in the formats of other tools"),
    "record": ("Record", "Write a run as recordings for the Rerun viewer"),
    "verify": ("Verify", "Check that the results of a run are whole, and each there once"),
    "train": ("Train", "Train a multi-view network on a table of samples"),
    "tune": ("Tune", "Search the settings of a training"),
    "dataset": ("Dataset", "Convert, measure and show datasets of samples"),
    "register": ("Register", "Register a trained network as a version that MLflow can serve"),
    "promote": ("Promote", "Move an alias to a version that is better than its holder, or back"),
    "track": ("Track", "Send records of runs that did not reach MLflow when they were made"),
    "models": ("Models", "Fetch and list the weights of the detector"),
    "benchmark": ("Benchmark", "Measure throughput beside the peers that are installed"),
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
    """Run one verb; the exit code. A mistake of the user is one sentence on stderr and exit code 1."""
    if arguments in ([], ["-h"], ["--help"]):
        print(_usage())
        return 0 if arguments else 2
    from mvpose.errors import MvposeError

    if not _known(arguments[0], VERBS, "verb"):
        return 2

    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        verb = module_of(arguments[0])
        actions = [choice.name for _, choice in map(get_args, get_args(command_of(arguments[0])))]
        if actions and arguments[1:] and not _known(arguments[1], actions, f"action of {arguments[0]}"):
            return 2
        command = parse(arguments[0], arguments[1:])
        _refuse_credentials(asdict(command))
        return verb.run(command)
    except MvposeError as error:
        print(f"mvpose: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"mvpose: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmvpose: interrupted. What is committed is kept: run the same command again to go on.", file=sys.stderr)
        return 130


def _known(name: str, known: Collection[str], kind: str) -> bool:
    """Whether a name is one of those that are known; says which one was meant if not. A flag is left to tyro."""
    if name in known or name.startswith("-"):
        return True
    from mvpose.config import nearest

    print(f"mvpose: no {kind} is named {name!r} ({nearest(name, known)})", file=sys.stderr)
    return False


def command_of(verb: str):
    """The dataclass (or union of dataclasses) whose fields are the flags of a verb."""
    return getattr(module_of(verb), VERBS[verb][0])


def module_of(verb: str) -> ModuleType:
    """The module of a verb; one that is a keyword of Python has an underscore behind it."""
    return import_module(f"mvpose.commands.{verb}{'_' * iskeyword(verb)}")


def parse(verb: str, arguments: list[str]):
    """The dataclass of a verb from its arguments; `--config FILE.toml` gives the defaults of the other flags."""
    import tyro

    command = command_of(verb)
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--config=") else [a])]
    if "--config" not in arguments:
        return tyro.cli(command, args=arguments, prog=f"mvpose {verb}")
    for option in get_args(command):
        subcommand, choice = get_args(option)
        if arguments[0] == choice.name:
            command, verb, arguments = subcommand, f"{verb} {choice.name}", arguments[1:]
            break
    default, arguments = _named_run(command, arguments)
    return tyro.cli(command, args=arguments, default=default, prog=f"mvpose {verb}")


def _named_run(command: type, arguments: list[str]) -> tuple[object, list[str]]:
    """A command filled from the TOML file after `--config`, and the arguments without it."""
    from mvpose.errors import ConfigError

    at = arguments.index("--config")
    if at + 1 == len(arguments):
        raise ConfigError("--config needs a TOML file.")
    from mvpose.archive.locations import exists, read_text
    from mvpose.config import MAX_TOML_BYTES, load_toml

    uri = arguments[at + 1]
    if not exists(uri):
        raise ConfigError(f"--config {uri}: there is no such file.")
    return load_toml(uri, read_text(uri, MAX_TOML_BYTES), command), arguments[:at] + arguments[at + 2 :]


def _refuse_credentials(value: Any) -> None:
    """ConfigError where an S3 location of the settings has credentials in it, before anything is printed."""
    from mvpose.archive.locations import refuse_credentials

    if isinstance(value, str):
        refuse_credentials(value)
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_credentials(part)


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {help_text}" for verb, (_, help_text) in VERBS.items())
    return (
        f"usage: mvpose VERB [--config FILE.toml] [flags]\n\n{verbs}\n\n`mvpose VERB --help` lists the flags of a verb."
    )


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
