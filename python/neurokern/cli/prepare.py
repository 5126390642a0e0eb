"""``neurokern prepare``: decodes, filters and bins a folder of data ahead of training, into the cache."""

from __future__ import annotations

import argparse
import errno
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from neurokern.cli._common import new_parser, require_torch, say, size_text, text_table
from neurokern.cli._flags import positive_int

if TYPE_CHECKING:
    from neurokern.cli.prepare_settings import PrepareSettings
    from neurokern.cli.prepare_tasks import Plan, Task

_EXAMPLES = """\
  neurokern prepare ds000114/ --mask brain.nii.gz --set fmri.normalize=true --set fmri.detrend=true
  neurokern prepare ds000114/ --labels atlas.nii.gz --select task=rest --select subject=[01,02]
  neurokern prepare eeg_bids/ --set meeg.l_freq=0.5 --set meeg.h_freq=40 --set meeg.resample=128
  neurokern prepare sessions/ --set windows.bin_size=0.02 --set windows.min_rate=0.5
  neurokern prepare ds000114/ --config prepare.yaml --dry-run
  neurokern prepare sessions/ --config runs/a/run.yaml     what that run, and others like it, will load
"""
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_BYTES_OF_PROCESS = 16 << 20  # of files that are worth a process of their own
_OF_TRAINING = ("threads", "split", "model", "training")  # sections of a run.yaml that data do not depend on


@dataclass
class _Result:
    """What became of a run."""

    task: Task
    status: str  # "prepared", "ready", "planned", "nothing", "failed" or "left"
    n_bytes: int | None = None
    seconds: float = 0.0
    error: str = ""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``prepare``."""
    parser = new_parser(
        commands,
        "prepare",
        run,
        summary="decode, filter and bin data ahead of training",
        description="Fill the cache with what training loads: voxels or parcels of fMRI with the "
        "coefficients of cleaning, filtered EEG and MEG, binned spikes. Several runs at once; a second call "
        "does what is missing, also after an interruption, of which at most the runs in work are lost. What "
        "loads the same data by the same settings later maps it.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "data", nargs="*", metavar="DATA", help="BIDS folders, images, recordings, or folders of recordings"
    )
    parser.add_argument("--mask", metavar="FILE", help="fMRI: voxels to take (fmri.mask)")
    parser.add_argument("--labels", metavar="FILE", help="fMRI: parcels to take (fmri.labels)")
    parser.add_argument(
        "--select",
        metavar="ENTITY=VALUE",
        action="append",
        default=[],
        help="BIDS: runs to take, such as task=rest; may be repeated",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings, or the run.yaml of a run")
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="one setting, such as windows.bin_size=0.02; wins over the file; may be repeated",
    )
    parser.add_argument("--cache", metavar="FOLDER", help="default: NEUROKERN_CACHE, else ~/.cache/neurokern")
    parser.add_argument("--jobs", type=positive_int, metavar="N", help="runs at once (as many as processors)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    return parser


def run(args: argparse.Namespace) -> int:
    """Look at what is there, make what is missing; return 1 if a run failed."""
    require_torch("prepare")
    from neurokern.cli.prepare_tasks import find_tasks
    from neurokern.ops._gzip_cache import cache_folder

    if args.cache:
        os.environ["NEUROKERN_CACHE"] = os.path.abspath(args.cache)
    args.interrupted = "; what was finished stays: the same command goes on"
    settings = _settings(args)
    tasks = find_tasks(settings)
    begun = time.perf_counter()
    results = [_looked_at(task) for task in _bar(tasks, "looking")]
    if args.dry_run:
        stopped = None
    else:
        missing = [result for result in results if result.status == "planned"]
        _check_room(missing)
        stopped = _make_all(missing, args.jobs or len(os.sched_getaffinity(0)))
    seconds = time.perf_counter() - begun
    if args.json:
        facts = {"cache": str(cache_folder()), "seconds": seconds, "runs": [_facts(r) for r in results]}
        say(json.dumps(facts, indent=2))
    else:
        _tell(results, args.dry_run, seconds)
        say(f"cache    {cache_folder()}")
    if stopped is not None:
        raise OSError(f"{stopped}; what was finished stays: the same command goes on")
    return int(any(result.status == "failed" for result in results))


def _settings(args: argparse.Namespace) -> PrepareSettings:
    from neurokern._config import apply_settings, parse_flags, read_yaml
    from neurokern.cli.prepare_settings import PrepareSettings

    settings = PrepareSettings()
    if args.config:
        given = {key: value for key, value in read_yaml(args.config).items() if key not in _OF_TRAINING}
        settings = apply_settings(settings, given, where=os.path.basename(args.config))
    settings = apply_settings(settings, parse_flags(args.settings), where="--set")
    files = {name: getattr(args, name) for name in ("mask", "labels") if getattr(args, name)}
    flags: dict[str, Any] = {"fmri": files, "select": settings.select | parse_flags(args.select)}
    if args.data:
        flags["data"] = args.data
    settings = apply_settings(settings, flags, where="prepare")
    if not settings.data:
        raise ValueError("no DATA given: name folders, or a --config file that names them")
    return settings


def _looked_at(task: Task) -> _Result:
    try:
        plan: Plan = task.plan()
    except (OSError, ValueError, TypeError, RuntimeError, ImportError, MemoryError) as error:
        return _Result(task, "failed", error=_one_line(error))
    if not plan.n_files:
        return _Result(task, "nothing")
    if plan.n_ready == plan.n_files:
        return _Result(task, "ready", plan.n_bytes)
    return _Result(task, "planned", plan.n_missing)


def _check_room(missing: Sequence[_Result]) -> None:
    """Raise before anything is done where the known sizes do not fit."""
    from neurokern.ops._cache_files import room

    needed, there = sum(result.n_bytes or 0 for result in missing), room()
    if needed > there:
        raise OSError(
            f"{size_text(needed)} are needed, and the cache has room for {size_text(there)} (its bound is "
            "NEUROKERN_CACHE_GIB, and 1 GiB of the disk stays free); take another folder with --cache, fewer "
            "runs with --select, or make room with `neurokern cache prune`"
        )


def _make_all(missing: list[_Result], jobs: int) -> str | None:
    """Make what is missing, several at once; return why it stopped early, or None."""
    bar = _progress(missing)
    stopped = None
    try:
        for kinds, start in ((("fMRI",), _threads), (("M/EEG", "spikes"), _processes)):
            some = [result for result in missing if result.task.kind in kinds]
            if stopped is None and some:
                stopped = _make_some(some, start, _workers(some, jobs), bar)
    finally:
        bar.close()
    for result in missing:
        result.status = "left" if result.status == "planned" else result.status
    return stopped


def _workers(some: list[_Result], jobs: int) -> int:
    """Return how many workers are worth it: a process takes seconds to start, a thread does not."""
    if some[0].task.kind == "fMRI":
        return min(jobs, len(some))
    n_bytes = sum(result.task.source_bytes for result in some)
    return min(jobs, len(some), n_bytes // _BYTES_OF_PROCESS + 1)


def _make_some(some: list[_Result], start: Callable[[int], Any], jobs: int, bar: tqdm[Any]) -> str | None:
    """Hand tasks out as workers get free, so that those not begun can be left at any time."""
    waiting = iter(sorted(some, key=lambda result: -result.task.source_bytes))  # long ones first
    stopped: str | None = None
    with start(jobs) as pool:
        running: dict[Future[tuple[int, float]], _Result] = {}
        while True:
            while stopped is None and len(running) < jobs and (result := next(waiting, None)) is not None:
                running[pool.submit(_make, result.task)] = result
            if not running:
                return stopped
            done, _ = wait(running, return_when="FIRST_COMPLETED")
            for future in done:
                result = running.pop(future)
                stopped = _take(result, future) or stopped
                bar.update(result.task.source_bytes)


def _make(task: Task) -> tuple[int, float]:
    begun = time.perf_counter()
    return task.make(), time.perf_counter() - begun


def _take(result: _Result, future: Future[tuple[int, float]]) -> str | None:
    """Note what became of a run; return a reason to stop all, if it is one."""
    try:
        result.n_bytes, result.seconds = future.result()
        result.status = "prepared"
    except BrokenProcessPool:
        result.status, result.error = "failed", "its process was killed; out of memory? See --jobs 1"
        return result.error
    except (OSError, ValueError, TypeError, RuntimeError, ImportError, MemoryError, OverflowError) as error:
        result.status, result.error = "failed", _one_line(error)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return f"{result.task.name}: {result.error}"
    return None


class _Here(Executor):
    """Runs a task at once, in this thread: nothing is started where one run at a time is asked for."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def _threads(jobs: int) -> Iterator[Executor]:
    """Decoding does not hold Python's lock; processors are shared out among the runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(before // jobs, 1))
    try:
        with _Here() if jobs == 1 else ThreadPoolExecutor(jobs) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


@contextmanager
def _processes(jobs: int) -> Iterator[Executor]:
    """MNE and pandas hold Python's lock, and what they warn of is collected by process."""
    if jobs == 1:
        yield _Here()
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
        yield pool


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: killed, it could not tell its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in workers alone

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _bar(tasks: list[Task], what: str) -> tqdm[Task]:
    return tqdm(tasks, unit="run", desc=what, disable=True if len(tasks) < 20 else None, leave=False)


def _progress(missing: list[_Result]) -> tqdm[Any]:
    total = sum(result.task.source_bytes for result in missing)
    return tqdm(
        total=total, unit="B", unit_scale=True, desc=f"{len(missing)} runs", disable=None, file=sys.stderr
    )


def _facts(result: _Result) -> dict[str, Any]:
    facts = {
        "run": result.task.name,
        "kind": result.task.kind,
        "status": result.status,
        "source_bytes": result.task.source_bytes,
        "bytes": result.n_bytes,
        "seconds": result.seconds,
    }
    return facts | ({"error": result.error} if result.error else {})


def _tell(results: list[_Result], dry_run: bool, seconds: float) -> None:
    by_status = {name: [r for r in results if r.status == name] for name in _WORDS}
    for result in by_status["failed"]:
        say(f"failed   {result.task.name}: {result.error}")
    kinds = dict.fromkeys(result.task.kind for result in results)
    rows = []
    for kind in kinds:
        for status, words in _WORDS.items():
            some = [result for result in by_status[status] if result.task.kind == kind]
            if some:
                rows.append((f"{kind}, {words}", str(len(some)), _sources(some), _sizes(some)))
    say(text_table(("", "runs", "files", "in the cache"), rows))
    if by_status["nothing"]:
        say("Of whole volumes nothing is kept: give --mask or --labels, or set fmri.cache=true.")
    if not dry_run and len(by_status["ready"]) == len(results):
        say("nothing to do: everything was prepared before")
    elif not dry_run:
        say(f"took {seconds:.1f} s")


_WORDS = {
    "prepared": "prepared",
    "ready": "ready before",
    "planned": "to prepare",
    "left": "not begun",
    "nothing": "nothing to keep",
    "failed": "failed",
}


def _sources(some: list[_Result]) -> str:
    return size_text(sum(result.task.source_bytes for result in some))


def _sizes(some: list[_Result]) -> str:
    known = [result.n_bytes for result in some if result.n_bytes is not None]
    if len(known) == len(some):
        return size_text(sum(known))
    return "by its spikes" if some[0].status in ("planned", "left") else "–"


def _one_line(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:  # its number says nothing to people
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    return " ".join(text.split()) or type(error).__name__
