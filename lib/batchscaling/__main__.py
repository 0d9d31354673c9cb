"""Command line: ``batchscaling data``, ``sweep``, ``results``, ``advise`` and more."""

import argparse
import inspect
import os
import sys
import warnings
from itertools import product
from pathlib import Path

from batchscaling import _validation as check
from batchscaling._errors import Failure, InputError
from batchscaling.registry import METHODS

_EXTRAS = {"torch": "train", "sklearn": "train", "pooch": "train", "ray": "cluster"}
# Exit statuses: a failure, that of argparse, those of shells after Ctrl-C and a closed pipe.
_FAILED, _WRONG, _INTERRUPTED, _CLOSED = 1, 2, 130, 141


def main(arguments=None):
    """Run one command.

    Parameters
    ----------
    arguments : list of str, optional
        Those of the process if left out.
    """
    try:
        try:
            _run(_parser().parse_args(arguments))
        finally:
            print(end="", flush=True)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_CLOSED)


def _run(options):
    """Run a command, and tell what is wrong with its input or outside the program in one line."""
    try:
        options.run(options)
    except BrokenPipeError:
        raise
    except InputError as error:
        _exit(_WRONG, error)
    except (Failure, OSError) as error:
        _exit(_FAILED, error)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name)
        if extra is None:
            raise
        _exit(_WRONG, f'{error}; install it with: pip install "batchscaling[{extra}]"')
    except KeyboardInterrupt:
        again = "; the same command goes on where it was" if options.goes_on else ""
        _exit(_INTERRUPTED, f"interrupted{again}")


def _exit(status, message):
    print(f"batchscaling: {message}", file=sys.stderr)
    sys.exit(status)


def _parser():
    parser = argparse.ArgumentParser(prog="batchscaling", description="Batch-size experiments.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parser.set_defaults(goes_on=False)  # whether the command that was interrupted does

    data = commands.add_parser("data", help="list the data sets, or download some")
    data.add_argument("names", nargs="*", metavar="NAME", help='data sets to download, or "all"')
    data.set_defaults(run=_data)

    sweep = commands.add_parser("sweep", help="search hyperparameters at many batch sizes")
    own = "or your own: module:name, or path/file.py:name"
    sweep.add_argument("--task", required=True, help=f"such as digits-mlp, {own}")
    sweep.add_argument("--optimizer", required=True, nargs="+", help=f"of {', '.join(METHODS)}")
    sweep.add_argument("--batch-size", required=True, nargs="+", type=int)
    sweep.add_argument("--trials", type=int, default=64, help="settings for each cell (64)")
    sweep.add_argument("--seeds", type=int, default=2, help="seeds for each setting (2)")
    sweep.add_argument("--finalists", type=int, default=8, help="settings in the final (8)")
    sweep.add_argument("--final-seeds", type=int, default=10, help="seeds for each of them (10)")
    sweep.add_argument("--fresh", type=int, default=20, help="seeds that measure the best (20)")
    sweep.add_argument("--search-seed", type=int, default=0)
    sweep.add_argument("--out", type=_path, default=Path("sweeps"), help="folder of results")
    sweep.add_argument("--device", default="cpu", help="cpu or cuda")
    sweep.add_argument("--workers", type=int, default=1, help="processes on this machine (1)")
    sweep.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster, such as auto")
    sweep.set_defaults(run=_sweep, goes_on=True)

    job = commands.add_parser(
        "train-distributed", help="train one setting with several processes, under torchrun"
    )
    job.add_argument("--task", required=True, help="such as digits-mlp")
    job.add_argument("--optimizer", required=True, nargs="+", help="such as extrap_sgd")
    job.add_argument("--hyper", required=True, nargs="+", type=_number, metavar="NAME=NUMBER")
    job.add_argument("--batch-size", required=True, type=int, help="of all processes together")
    job.add_argument("--steps", required=True, type=int)
    job.add_argument("--seeds", nargs="+", type=int, default=[0], help="one trial for each (0)")
    job.add_argument("--exchange", default="synchronous", help="or local_steps, outer_steps")
    job.add_argument("--every", type=int, help="steps from one meeting of workers to the next")
    job.add_argument("--after", type=int, help="steps before local_steps begin (0)")
    job.add_argument("--out", type=_path, required=True, metavar="FILE", help="of the result")
    job.add_argument("--checkpoint-every", type=int, default=1000, help="steps (1000)")
    job.add_argument("--device", default="cpu", help="cpu or cuda")
    job.add_argument("--timeout", type=float, default=600, help="seconds to wait for others (600)")
    job.set_defaults(run=_train_distributed, goes_on=True)

    results = commands.add_parser("results", help="print and draw the results of sweeps")
    results.add_argument("folder", type=_path, nargs="?", help="of results (the book's own)")
    results.add_argument("--task", help=f"only this one, {own}")
    results.add_argument("--measure", default="validation")
    results.add_argument("--plot", type=_path, metavar="FILE", help="draw the curves to a file")
    results.set_defaults(run=_results)

    advice = commands.add_parser("advise", help="advise on the batch size of your own network")
    about = "module:name, or path/file.py:name, of a function that returns a dict of arguments of "
    advice.add_argument("setup", metavar="SETUP", help=f"{about} batchscaling.practice.advise")
    advice.add_argument(
        "--layers", nargs="+", help="of throughput, noise, branches (these) and race"
    )
    advice.add_argument("--html", type=_path, metavar="FILE", help="write a page")
    advice.add_argument("--json", type=_path, metavar="FILE", help="write all numbers")
    advice.set_defaults(run=_advise)
    return parser


def _path(text):
    """Return a path; a shell leaves the ~ of ``--out=~/sweeps`` as it is."""
    return Path(os.path.expanduser(text))


def _number(text):
    """Return the name and the number of ``lr=0.1``."""
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not such as lr=0.1") from None


def _data(options):
    from batchscaling.training.data import describe, fetch_all

    if options.names:
        fetch_all(() if options.names == ["all"] else options.names)
    for row in describe():
        here = "here" if row.present else "not here"
        print(f"{row.name:16} {row.megabytes:7.1f} MB  {here:8}  {row.licence}")


def _sweep(options):
    from batchscaling.training.cells import Cell
    from batchscaling.training.sweeps import run_sweep

    task = _task(options.task)
    cells = [
        Cell(
            task,
            optimizer,
            batch_size,
            trials=options.trials,
            seeds=options.seeds,
            finalists=options.finalists,
            final_seeds=options.final_seeds,
            fresh=options.fresh,
            search_seed=options.search_seed,
        )
        for batch_size, optimizer in product(options.batch_size, options.optimizer)
    ]
    more = {"device": options.device, "workers": options.workers, "ray": options.ray}
    files = run_sweep(cells, options.out, **more)
    print(f"{len(files)} cells are in {options.out}")


def _task(name):
    """Return the name of one of the book's tasks, or the task that ``module:name`` is."""
    if ":" not in name:
        return name
    from batchscaling.training.own_tasks import load_task

    return load_task(name)


def _train_distributed(options):
    from batchscaling.training.workers.job import Job, run_job

    timing = {"every": options.every, "after": options.after}
    job = Job(
        options.task,
        options.optimizer,
        _once(options.hyper),
        options.batch_size,
        options.steps,
        options.seeds,
        options.exchange,
        {name: value for name, value in timing.items() if value is not None},
    )
    how = {"device": options.device, "timeout": options.timeout}
    told = run_job(job, options.out, checkpoint_every=options.checkpoint_every, **how)
    if told:
        print(told)


def _once(pairs):
    """Return a dict of pairs; refuse a name that is given more than once."""
    for name in dict(pairs):
        values = [value for other, value in pairs if other == name]
        if len(values) > 1:
            check.reject(name, values, "one number")
    return dict(pairs)


def _results(options):
    from batchscaling.curves.results import having, load_results, table

    own = None if ":" not in (options.task or "") else _task(options.task)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cells = load_results(options.folder, own.name if own else options.task)
    for warning in caught:
        print(f"batchscaling: {warning.message}", file=sys.stderr)
    if own:
        _refuse_others(cells, own)
    print(table(cells, options.measure))
    if options.plot:
        _plot(having(cells, options.measure), options.measure, options.plot)


def _refuse_others(cells, task):
    """Refuse results of another task of the same name."""
    from batchscaling.training.own_tasks import is_of

    if not all(is_of(cell.record, task) for cell in cells):
        check.reject("task", task.source, f"the task {task.name!r} that these results are of")


def _advise(options):
    from batchscaling.practice import advise
    from batchscaling.training.references import call, resolved

    for name in ("html", "json"):
        _check_writable(name, getattr(options, name))
    allowed = "a function that returns a dict of arguments of advise"
    *_, setup = resolved("setup", options.setup)
    arguments = call("setup", options.setup, setup) if callable(setup) else None
    if not isinstance(arguments, dict):
        check.reject("setup", options.setup, allowed)
    if options.layers:
        arguments = arguments | {"layers": options.layers}
    try:
        inspect.signature(advise).bind(**arguments)
    except TypeError as error:
        check.reject("setup", options.setup, f"{allowed} ({error})")
    advice = advise(**arguments)
    print(advice)
    for moved in advice.transfer() if advice.batch_size else ():
        print(f"{moved.name} {moved.value:.4g} -> {moved.moved:.4g}  ({moved.rule})")
    for name, words in advice.worth().items():
        print(f"{name}: {words}")
    for path, text in ((options.html, advice.to_html), (options.json, advice.to_json)):
        if path:
            path.write_text(text(), "utf-8")


def _check_writable(name, path):
    """Check that a file can be written, before the work whose result it is to hold."""
    if path and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
        check.reject(name, str(path), "a file that can be written, in a folder that exists")


def _plot(cells, measure, path):
    from batchscaling.figures.networks.curves import sweep_curves

    figure = sweep_curves(cells, measure)
    kinds = figure.canvas.get_supported_filetypes()
    check.one_of("plot's ending", path.suffix.lower().removeprefix(".") or "png", kinds)
    figure.savefig(path)


if __name__ == "__main__":
    main()
