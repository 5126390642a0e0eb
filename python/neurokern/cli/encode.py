"""``neurokern encode``: how well features predict responses, target by target, on held-out samples."""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurokern.cli._common import Steps, new_parser, require_torch, say
from neurokern.cli._flags import positive_int

if TYPE_CHECKING:
    from neurokern.cli.encode_inputs import EncodingData
    from neurokern.cli.encode_results import EncodingResult
    from neurokern.encoding import RidgeEncoder
    from neurokern.encoding.folds import Fold

_RUNS = "leave-one-run-out"
_EXAMPLES = """\
  neurokern encode --x features.npy --y responses.npy --out runs/enc          contiguous folds
  neurokern encode --x run1.npy run2.npy --y run1.nii.gz run2.nii.gz --mask brain.nii.gz \\
      --delay-seconds 2,4,6,8 --detrend --out runs/voxels --report            a run per pair, maps and a page
  neurokern encode --x data.npz:spikes --y data.npz:velocity --delays 0,1,2 --gap 10 --json
  neurokern encode --x features.npy --y responses.npy --repeats again.npy    noise ceilings, normalized scores
  neurokern encode --x features.npy --y responses.npy --spaces form=0:512 words=512:812 --report
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``encode``."""
    parser = new_parser(
        commands,
        "encode",
        run,
        summary="ridge from features to responses, scored target by target",
        description=(
            "Fit ridge regression from features to many responses (voxels, units, behavior) with an alpha "
            "for each, and score its predictions of held-out samples. Files are .npy, .npz, .safetensors "
            "(FILE:NAME picks an array) of shape (samples, columns), or NIfTI images; several files are runs."
        ),
        examples=_EXAMPLES,
    )
    parser.add_argument("--x", nargs="+", required=True, metavar="FILE", help="features, one file per run")
    parser.add_argument("--y", nargs="+", required=True, metavar="FILE", help="responses, one file per run")
    parser.add_argument("--mask", metavar="FILE", help="voxels to predict, for images")
    parser.add_argument("--runs", metavar="FILE", help="label of each sample's run, with one pair of files")
    parser.add_argument(
        "--detrend", action="store_true", help="remove mean and slope of responses in each run"
    )
    _add_model_flags(parser)
    parser.add_argument(
        "--permutations", type=positive_int, metavar="N", help="test each target by N permutations of blocks"
    )
    parser.add_argument(
        "--block-size",
        type=positive_int,
        metavar="N",
        help="samples of a block (a tenth of a run)",
    )
    _add_extra_flags(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of permutations and halves (0)")
    parser.add_argument("--out", default="runs/encode", metavar="FOLDER", help="for results (runs/encode)")
    parser.add_argument("--save-weights", action="store_true", help="also write encoder.safetensors")
    parser.add_argument("--report", action="store_true", help="also write report.html")
    parser.add_argument("--json", action="store_true", help="write JSON, and progress to stderr")
    return parser


def _add_extra_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--repeats",
        nargs="+",
        metavar="FILE",
        help="responses to repeats of the same stimuli, for noise ceilings: a file for each repeat, like "
        "those of --y, or one array (repeats, samples, targets)",
    )
    parser.add_argument(
        "--averaged",
        type=positive_int,
        default=1,
        metavar="N",
        help="each response of --y is the mean of N repeats (1)",
    )
    parser.add_argument(
        "--spaces",
        nargs="+",
        metavar="NAME=FIRST:STOP",
        help="feature spaces as columns of --x: split the R2 into what each explains alone and together",
    )


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    delays = parser.add_mutually_exclusive_group()
    delays.add_argument("--delays", type=_integers, metavar="N,N", help="delays of the features in samples")
    delays.add_argument("--delay-seconds", type=_numbers, metavar="S,S", help="delays in seconds")
    parser.add_argument(
        "--tr", type=float, metavar="S", help="seconds between samples (images: their sidecar's)"
    )
    parser.add_argument(
        "--alphas", type=_numbers, metavar="A,A", help="candidate penalties (15 from 0.1 to 1e6)"
    )
    parser.add_argument("--standardize", action="store_true", help="give each feature variance 1")
    parser.add_argument(
        "--folds",
        metavar="N",
        help=f"test folds: a number of contiguous stretches, or {_RUNS} (that with several runs, else 5)",
    )
    parser.add_argument(
        "--inner-folds", type=positive_int, default=5, metavar="N", help="folds that choose alphas (5)"
    )
    parser.add_argument(
        "--gap", type=int, default=0, metavar="N", help="samples between training and test (0)"
    )


def run(args: argparse.Namespace) -> None:
    """Read, score, write, and say where."""
    require_torch("encode")
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        result, files = _encode(args)
    if args.json:
        say(json.dumps({**result.facts(), "files": {n: str(path) for n, path in files.items()}}, indent=2))


def _encode(args: argparse.Namespace) -> tuple[EncodingResult, dict[str, pathlib.Path]]:
    from neurokern.cli.encode_extras import add_ceilings, add_parts, parse_spaces, read_repeats
    from neurokern.cli.encode_inputs import read_data, split_key
    from neurokern.cli.encode_results import require_nibabel, summary_text, write_results
    from neurokern.cli.image_facts import is_image

    if args.report:
        from neurokern.report.style import require_matplotlib

        require_matplotlib()  # now, not after minutes of work
    if is_image(split_key(args.y[0])[0]):
        require_nibabel()
    out = pathlib.Path(args.out)
    n_extra = sum(map(bool, (args.permutations, args.repeats, args.spaces, args.report)))
    steps = Steps(3 + n_extra)
    with steps.step("read features and responses"):
        data = read_data(args.x, args.y, mask=args.mask, runs=args.runs, detrend=args.detrend)
        steps.note(_shape_text(data))
        # Before minutes of work, too.
        repeats = read_repeats(args.repeats, data, detrend=args.detrend) if args.repeats else None
        spaces = parse_spaces(args.spaces, data.X.shape[1]) if args.spaces else {}
        if args.averaged > 1 and repeats is None:
            raise ValueError("--averaged is for --repeats, from which the ceiling comes")
    result, encoder, folds = _score(args, data, steps)
    if repeats is not None:
        with steps.step(f"noise ceilings from {len(repeats)} repeats of {repeats.shape[1]:,} samples"):
            result = add_ceilings(result, repeats, averaged=args.averaged, seed=args.seed)
    if spaces:
        with steps.step(f"fit all {2 ** len(spaces) - 1} combinations of {len(spaces)} feature spaces"):
            result = add_parts(result, spaces, data, folds, encoder)
    steps.lines(summary_text(result))
    with steps.step("write the results"):
        files = write_results(out, result, data)
        if args.save_weights:
            files["weights"] = out / "encoder.safetensors"
            encoder.save(files["weights"])
    if args.report:
        from neurokern.cli.encode_report import write_encoding_report

        with steps.step("write the report"):
            files["report"] = write_encoding_report(out / "report.html", result, data)
    say()
    for name, path in files.items():
        say(f"{name:<12} {path}")
    return result, files


def _score(
    args: argparse.Namespace, data: EncodingData, steps: Steps
) -> tuple[EncodingResult, RidgeEncoder, list[Fold]]:
    from neurokern.cli.encode_results import EncodingResult
    from neurokern.encoding import (
        RidgeEncoder,
        adjust_p_values,
        contiguous_folds,
        leave_one_run_out,
        permutation_test,
        predict_held_out,
        score_predictions,
    )
    from neurokern.encoding.encoder import DEFAULT_ALPHAS

    n_runs = len(np.unique(data.runs))
    by_run = args.folds == _RUNS or (args.folds is None and n_runs > 1)
    encoder = RidgeEncoder(
        alphas=args.alphas or DEFAULT_ALPHAS,
        folds=args.inner_folds,
        gap=args.gap,
        delays=_delays(args, data),
        standardize=args.standardize,
    )
    if by_run:
        folds = leave_one_run_out(data.runs, gap=args.gap)
    else:
        n_folds = _fold_number(args.folds)
        folds = contiguous_folds(len(data.X), n_folds, gap=args.gap, runs=data.runs)
    with steps.step(f"predict {len(folds)} test sets from the rest, then fit all samples"):
        predictions = predict_held_out(
            encoder, data.X, data.Y, folds, runs=data.runs, progress=sys.stderr.isatty()
        )
        scores = {metric: score_predictions(predictions, data.Y, metric) for metric in ("r2", "pearson")}
        encoder.fit(data.X, data.Y, runs=data.runs)
    p_values = q_values = None
    if args.permutations:
        with steps.step(f"permute blocks of responses {args.permutations:,} times"):
            test = permutation_test(
                predictions,
                data.Y,
                block_size=args.block_size,
                runs=data.runs,
                n_permutations=args.permutations,
                seed=args.seed,
            )
            p_values, q_values = test.p_values, adjust_p_values(test.p_values)
    result = EncodingResult(
        r2=scores["r2"],
        pearson=scores["pearson"],
        alphas=np.asarray(encoder.alpha_),
        candidates=np.ravel(encoder.alphas).astype(np.float64),
        p_values=p_values,
        q_values=q_values,
        settings=_settings(args, encoder, data, by_run, len(folds)),
    )
    return _with_notes(result, data), encoder, folds


def _with_notes(result: EncodingResult, data: EncodingData) -> EncodingResult:
    from dataclasses import replace

    notes = list(data.notes)
    if result.share_at_edges > 0.2:
        notes.append(
            f"{result.share_at_edges:.0%} of targets have the smallest or the largest alpha: those that "
            "nothing predicts take the largest; if well-predicted ones do too, widen --alphas."
        )
    if result.p_values is not None and not result.n_discoveries and _is_too_coarse(result.p_values, result):
        notes.append(
            "No target is above chance, but the smallest p-value of so few permutations is too large for so "
            "many targets: raise --permutations."
        )
    if n_constant := int(np.isnan(result.r2).sum()):
        notes.append(f"{n_constant:,} targets never vary and have no score.")
    for note in notes:
        Steps.note(note)
    return replace(result, notes=tuple(notes))


def _is_too_coarse(p_values: NDArray[np.float64], result: EncodingResult) -> bool:
    """Return whether targets that no permutation reaches would be too few to be discoveries."""
    from neurokern.cli.encode_results import FDR

    smallest = 1 / (1 + result.settings["permutations"])
    known = p_values[np.isfinite(p_values)]
    n_best = max(int((known <= smallest * (1 + 1e-9)).sum()), 1)
    return known.size > 0 and smallest * known.size / n_best > FDR


def _settings(
    args: argparse.Namespace, encoder: RidgeEncoder, data: EncodingData, by_run: bool, n_folds: int
) -> dict[str, Any]:
    return {
        "samples": len(data.X),
        "features": data.X.shape[1],
        "targets": data.Y.shape[1],
        "runs": len(np.unique(data.runs)),
        "folds": _RUNS if by_run else n_folds,
        "inner_folds": args.inner_folds,
        "gap": args.gap,
        "delays": encoder.delays,
        "interval_s": args.tr or data.interval,
        "alphas": [float(alpha) for alpha in np.ravel(encoder.alphas)],
        "standardize": args.standardize,
        "detrend": args.detrend,
        "permutations": args.permutations,
        "block_size": args.block_size,
        "seed": args.seed,
    }


def _delays(args: argparse.Namespace, data: EncodingData) -> list[int] | None:
    if args.delay_seconds is None:
        return args.delays
    from neurokern.encoding import seconds_to_delays

    interval = args.tr or data.interval
    if interval is None:
        raise ValueError("--delay-seconds needs --tr, the seconds between samples, where no image tells it")
    return seconds_to_delays(args.delay_seconds, interval)


def _fold_number(text: str | None) -> int:
    if text is None:
        return 5
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--folds must be a number or {_RUNS}, got {text!r}") from None


def _shape_text(data: EncodingData) -> str:
    kind = "voxels" if data.mask is not None else "targets"
    n_runs = len(np.unique(data.runs))
    runs = "1 run" if n_runs == 1 else f"{n_runs} runs"
    samples, (n_features, n_targets) = len(data.X), (data.X.shape[1], data.Y.shape[1])
    return f"{samples:,} samples in {runs}, {n_features:,} features, {n_targets:,} {kind}"


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


_numbers.__name__ = "list of numbers"  # what argparse calls them in its errors
_integers.__name__ = "list of integers"
