"""The verb that looks at everything before a training: doctor."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ssodkit.cli.options import OnDevice, Overrides, RecipeName, TrustPlugins


def doctor(
    recipe: RecipeName,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder for pictures of every view, and the report.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    overrides: Overrides = None,
    device: OnDevice = None,
    trust_plugins: TrustPlugins = False,
) -> None:
    """Look at recipe, labels, pictures and one training step.

    All mistakes are shown at once, each with its cure; with exit code 2 if there are some.
    """
    from rich.console import Console

    from ssodkit.data.files import write_whole
    from ssodkit.engine.distributed import open_processes
    from ssodkit.engine.doctor.examine import examine
    from ssodkit.engine.folders import refuse_used

    if out is not None:
        refuse_used(out)
        out.mkdir(parents=True, exist_ok=True)
    with open_processes(device) as processes:
        report = examine(recipe, overrides or (), processes, out, trust_plugins)
    text = json.dumps(report.as_json(), indent=2, allow_nan=False)
    if out is not None:
        write_whole(out / "report.json", text + "\n")
    if as_json:
        print(text)
    else:
        Console().print(report.table())
    raise typer.Exit(2 if report.has_mistakes else 0)
