"""What comes after a model is trained or adapted: scores, few-shot decoding, report."""

from __future__ import annotations

import argparse
import pathlib

from neurokern.cli._common import Steps, say
from neurokern.cli.few_shot import decode_session
from neurokern.cli.run_report import RunResults, write_run_report
from neurokern.cli.scores import predictors_of, score_sessions, scores_text, write_scores
from neurokern.cli.sessions import LoadedSession
from neurokern.cli.settings import RunSettings
from neurokern.datasets import BinnedSession, Splits
from neurokern.models import MtM

__all__ = ["assess"]


def assess(
    model: MtM,
    loaded: LoadedSession,
    parts: Splits[BinnedSession],
    settings: RunSettings,
    out: pathlib.Path,
    args: argparse.Namespace,
    steps: Steps,
    *,
    title: str,
) -> None:
    """Go through the last three steps, saying what each finds and, at the end, where the results are.

    ``args`` holds the scoring flags: ``label``, ``max_units``, ``episodes``.
    """
    session = loaded.session.session
    with steps.step("predict hidden spikes of the test windows, beside ridge regression and the unit's mean"):
        predictors = {session: predictors_of(model, parts)}
        scores = score_sessions(predictors, {session: parts}, max_units=args.max_units)
        write_scores(out, scores)
        steps.note("bits per spike: mean over units [95 % interval over units]")
        steps.lines(scores_text(scores))
    with steps.step("decode from few labeled windows"):
        few = decode_session(
            model, loaded, parts, args.label, seed=settings.training.seed, episodes=args.episodes
        )
        few.write(out)
        for sentence in few.text:
            steps.note(sentence)
        steps.lines(few.as_text())
    with steps.step("write the report"):
        results = RunResults(
            settings=settings,
            loaded=[loaded],
            splits={session: parts},
            predictors=predictors,
            scores=scores,
            folder=out,
            few_shot=few,
            title=title,
            seconds=steps.seconds,
        )
        report = write_run_report(out / "report.html", results)
    say(f"\n{sum(steps.seconds.values()):.0f} s in all")
    say(f"report   {report.resolve()}")
    say(f"tables   {out / 'scores.csv'}, {out / 'few_shot.csv'}")
    say(f"weights  {out / 'best'}")
