"""The user's own files in the output of a job: random names in random folders, some like mvpose's own.

They are drawn from the bytes of one file, which is mutated as every other: after the job is resumed, planned anew and
ended beside them they are what they were.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mvpose.archive.locations import exists
from mvpose.archive.verification import verify_run
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.records import Kind

FOLDERS = (
    "",
    "whole",
    "short",
    "whole/deep/down",
    "whole_before",
    ".hidden",
    "0123456789ab/poses/whole/0000000-0000006",
    "ünter",
    "a\nb",
)
NAMES = (
    "notes.txt", "0000000-0000006.0123456789ab.parquet", "0000000-0000006.0123456789abcdef.json", "0", ".DS_Store",
    "0000000-0000006.parquet", "best.json", "0000000-0000006.0123456789ab.parquet.tmp", "x.parquet", "a b*?[c].csv",
)  # fmt: skip


def own_files_door(job: ReconstructJob, seed: str, scratch: str) -> Callable[[str], None]:
    """Reads the file `seed` as the choice of what is done; `job` has ended."""

    def read(damage: str) -> None:
        with open(seed, "rb") as file:
            rng = np.random.default_rng(list(hashlib.sha256(file.read()).digest()))
        output = os.path.join(scratch, "run")
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(job.output, output)
        if rng.random() < 0.5:  # as where the job was killed
            os.remove(os.path.join(output, "summary.json"))
            for kind in list(Kind)[rng.integers(len(Kind)) :]:
                shutil.rmtree(os.path.join(output, "commits", kind), ignore_errors=True)
        mine = dict(_planted(output, rng) for _ in range(rng.integers(1, 8)))
        changed = replace(job, output=output, filtered=bool(rng.random() < 0.5), replan=True)
        reconstruct_archive(changed)
        reconstruct_archive(replace(job, output=output, replan=True))
        for path, content in mine.items():
            assert exists(path), f"{path} was removed"
            with open(path, "rb") as file:
                assert file.read() == content, f"{path} was changed"
        findings = verify_run(output).findings
        assert findings == (), f"{findings} with {sorted(mine)}"

    return read


def _planted(output: str, rng: np.random.Generator) -> tuple[str, bytes]:
    """A file of the user: of random bytes, or a copy of one of the run under another name or in another folder."""
    top = rng.choice([*Kind, *(f"commits/{kind}" for kind in Kind), "attempts", "failures", "models", "export"])
    path = os.path.join(output, top, rng.choice(FOLDERS), rng.choice(NAMES))
    content = rng.bytes(20)
    if rng.random() < 0.5:
        files = [os.path.join(where, f) for where, _, files in os.walk(output) for f in sorted(files)]
        source = sorted(files)[rng.integers(len(files))]
        with open(source, "rb") as file:
            content = file.read()
        if rng.random() < 0.5:
            path = os.path.join(os.path.dirname(path), os.path.basename(source))
    if os.path.exists(path):
        path += ".mine"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return path, content
