"""Withdraw commits, so that a start of the job computes their results again: failures, and results that were deleted.

Everything of a capture that was computed from a withdrawn result goes with it. The summary and the last kinds are
removed first, so that after a crash in between, the next start finds the rest again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from mvpose.records import CaptureTasks, Kind
from mvpose.run.plan_scratch import Planned
from mvpose.run.run_end import commits_of, in_parallel
from mvpose.run.run_folder import RunFolder
from mvpose.run.store import ClipStore, Commit
from mvpose.storage.commits import remove_file
from mvpose.storage.locations import exists, join


def withdraw_failures(run: RunFolder, plans: Iterable[CaptureTasks]) -> int:
    """Withdraw failures, and all results computed without the failed clips; returns the number of captures affected.

    2D joints that were found are kept, since they depend on no other clip. Nothing is kept of the later kinds, since a
    capture's identities and adjusted rig were computed without the failed clips.
    """
    return sum(sum(some) for some in in_parallel(partial(_without_failures, run.uri), plans))


def _without_failures(run_uri: str, plan: CaptureTasks) -> bool:
    commits = {kind: commits_of(run_uri, plan, kind) for kind in Kind}
    if not any(commit.failure for of_kind in commits.values() for commit in of_kind):
        return False
    failed = [commit for commit in commits[Kind.KEYPOINTS] if commit.failure]
    _withdraw(run_uri, {**commits, Kind.KEYPOINTS: failed})
    return True


def lost_results(run: RunFolder, kinds: Sequence[Kind], planned: Planned) -> Counter[str]:
    """Number of results, by kind or by name, that were finished and are missing from the run folder.

    They are looked for by name, with two listings per capture and kind; no content is read.
    """
    ended = run.has_ended(planned.totals.digest)
    lost = Counter(uri.removeprefix(f"{run.uri}/") for uri in run.end_tables if ended and not exists(uri))
    for some in in_parallel(partial(_lost, run.uri, kinds, ended), planned.tasks()):
        for each in some:
            lost.update(each)
    return lost


def withdraw_lost(run: RunFolder, kinds: Sequence[Kind], planned: Planned) -> None:
    """Withdraw the commits of `lost_results`, and of all results that were computed from these."""
    ended = run.has_ended(planned.totals.digest)
    for _ in in_parallel(partial(_without_lost, run.uri, kinds, ended), planned.tasks()):
        pass


def _lost(run_uri: str, kinds: Sequence[Kind], ended: bool, plan: CaptureTasks) -> Counter[Kind]:
    """Number of missing results of a capture by kind: committed ones, and those that the end of the capture implies."""
    found = {kind: _missing(run_uri, plan, kind) for kind in kinds}
    # Figures are a capture's last result; but filtered poses may be requested later.
    finished = ended or not found[Kind.QUALITY][0]
    implied = {kind for kind in kinds if finished and (ended or kind != Kind.FILTERED)}
    return +Counter({k: len(gone) + (uncommitted if k in implied else 0) for k, (uncommitted, gone) in found.items()})


def _missing(run_uri: str, plan: CaptureTasks, kind: Kind) -> tuple[int, list[Commit]]:
    """The number of tasks of a kind without a commit, and the commits without their data file."""
    store, tasks = ClipStore(run_uri, kind), plan.tasks(kind)
    # In this order, since another driver writes data before their commit.
    committed, with_data = store.commits_of(plan.capture_id), store.clips_with_data(plan.capture_id)
    suspects = [task for task in tasks if task.name in committed and task.clip.clip_id not in with_data]
    commits = [c for task in suspects if (c := store.committed(task.clip, task.fingerprint)) and not c.failure]
    return sum(task.name not in committed for task in tasks), commits


def _without_lost(run_uri: str, kinds: Sequence[Kind], ended: bool, plan: CaptureTasks) -> None:
    if lost := _lost(run_uri, kinds, ended, plan):
        first = next(kind for kind in kinds if kind in lost)
        later = {kind: commits_of(run_uri, plan, kind) for kind in kinds[kinds.index(first) + 1 :]}
        _withdraw(run_uri, {first: _missing(run_uri, plan, first)[1], **later})


def _withdraw(run_uri: str, commits: Mapping[Kind, Sequence[Commit]]) -> None:
    remove_file(join(run_uri, "summary.json"))
    for kind in reversed(Kind):
        for commit in commits.get(kind, ()):
            ClipStore(run_uri, kind).withdraw(commit)
