"""Arguments and options that several verbs have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Network(StrEnum):
    """Which of a run's networks."""

    STUDENT = "student"
    TEACHER = "teacher"


RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A file, or the name of a shipped recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one value of the recipe; may be repeated.")
]
OnDevice = Annotated[str | None, typer.Option("--device", metavar="cpu|cuda", help="Default: cuda where there is one.")]
TrustPlugins = Annotated[
    bool,
    typer.Option("--trust-plugins", help="Run the code of plug-ins that a recipe names, also if it is new here."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
