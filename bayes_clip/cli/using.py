"""The commands that use what was learnt: predict and evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayes_clip.cli import options, tables, values


def predict(
    posterior: options.PosteriorFolder,
    inputs: options.InputName,
    false_alarms: options.FalseAlarms = 0.05,
    coverage: options.Coverage = None,
    abstain_at: options.AbstainAt = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.csv", help="Also write a table.")] = None,
    backbone: options.BackboneName = None,
    pretrained: options.Pretrained = None,
    precision: options.Precision = "auto",
    skip_broken: options.SkipBroken = False,
    store: options.Store = None,
    no_store: options.NoStore = False,
    device: options.Device = "cpu",
    debug: options.Debug = False,
) -> None:
    """Class, probability, uncertainty and an in/out verdict for images or features.

    What is promised (false alarms, coverage, risk) goes by support rows that fits did not see.

    \b
    Examples
      bayes-clip predict posterior/ picture.jpg
      bayes-clip predict posterior/ new_photos/ --abstain-at 0.05 --out predictions.csv
      bayes-clip predict posterior/ features.npz --coverage 0.9 --false-alarms 0.01
    """
    from bayes_clip.data.arrays import check_place
    from bayes_clip.data.resolve import load_input
    from bayes_clip.evaluation.conformal import check_share
    from bayes_clip.evaluation.holdout import dated, load_held_out, sets_of
    from bayes_clip.evaluation.verdicts import check_backbone, judge, save_verdicts
    from bayes_clip.storage.folder import load_posterior

    check_share("--false-alarms", false_alarms)
    if coverage is not None:
        check_share("--coverage", coverage)
    if out is not None:
        check_place(out)
    known, held_out = load_posterior(posterior), load_held_out(posterior)
    rows = load_input(inputs, values.encoder(backbone, pretrained, device, precision), skip_broken, device)
    check_backbone(known, rows.backbone, inputs)
    sets = None if coverage is None else sets_of(known, held_out, rows.rows, coverage)
    prediction = known.predict(rows.rows)
    names = known.class_names
    verdicts = judge(prediction, names, rows.paths, held_out, abstain_at, false_alarms, sets)
    if out is not None:
        save_verdicts(verdicts, out)
    tables.show(tables.verdict_table(verdicts))
    tables.notes([*rows.notes, *verdicts.notes, *dated(known, held_out)])


def evaluate(
    context: typer.Context,
    posterior: options.PosteriorFolder,
    task: options.TaskName,
    ood: options.Outside = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Also write a report.")] = None,
    arviz: Annotated[
        Path | None, typer.Option("--arviz", metavar="FILE.nc", help="Also write draws for ArviZ, as netCDF.")
    ] = None,
    backbone: options.BackboneName = None,
    pretrained: options.Pretrained = None,
    precision: options.Precision = "auto",
    skip_broken: options.SkipBroken = False,
    store: options.Store = None,
    no_store: options.NoStore = False,
    device: options.Device = "cpu",
    debug: options.Debug = False,
) -> None:
    """Measure a posterior on the query set of a task: accuracy, calibration, novelty, each with an interval.

    \b
    Examples
      bayes-clip evaluate posterior/ digits_rotated
      bayes-clip evaluate posterior/ features.npz --ood elsewhere.npz --out runs/check
      bayes-clip evaluate posterior/ features.npz --arviz posterior.nc
    """
    from bayes_clip.data.arrays import check_place
    from bayes_clip.data.resolve import load_task
    from bayes_clip.evaluation.alignment import in_class_order
    from bayes_clip.evaluation.intervals import intervals
    from bayes_clip.evaluation.results import Comparison
    from bayes_clip.evaluation.scoring import score_posterior
    from bayes_clip.evaluation.verdicts import check_backbone
    from bayes_clip.report.write import check_writable, write_comparison
    from bayes_clip.storage.folder import load_posterior

    if out is not None:
        check_writable(out)
    if arviz is not None:
        check_place(arviz)
    known = load_posterior(posterior)
    encoder = values.encoder(backbone, pretrained, device, precision)
    loaded = load_task(task, encoder, None, skip_broken, True, device, ood)
    check_backbone(known, loaded.backbone, task)
    loaded = in_class_order(loaded, known.class_names)
    run = score_posterior(known, loaded)
    config = {"command": {"evaluate": context.params}}
    comparison = Comparison((run,), {loaded.name: loaded}, config, loaded.notes)
    if out is not None:
        write_comparison(comparison, out)
    if arviz is not None:
        from bayes_clip.report.export import save_arviz, to_arviz

        save_arviz(to_arviz(known, loaded.query_rows, loaded.query_labels), arviz)
    tables.show(tables.interval_table(intervals(comparison)))
    tables.show_comparison(comparison, out)
