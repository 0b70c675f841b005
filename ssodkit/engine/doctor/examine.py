"""The doctor: everything that can be known of a recipe before it trains, looked at once and told all together."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ssodkit.data.annotations import ImageSet
from ssodkit.data.broken import leave_out, look_into
from ssodkit.data.config import CocoSource, DataConfig, VocSource, YoloSource, sources_of
from ssodkit.data.folder import read_folder
from ssodkit.data.sets import DataSets, assemble, read_sources
from ssodkit.data.survey import Survey, survey
from ssodkit.engine.bars import showing
from ssodkit.engine.build import build_method, place
from ssodkit.engine.distributed import Processes
from ssodkit.engine.doctor.files import check_copies, check_files
from ssodkit.engine.doctor.findings import Finding
from ssodkit.engine.doctor.labels import check_labels
from ssodkit.engine.doctor.meeting import check_meeting
from ssodkit.engine.doctor.trial import Cost, try_out
from ssodkit.engine.failures import explained
from ssodkit.engine.start import find_start
from ssodkit.errors import DataError, RecipeError, SsodkitError
from ssodkit.recipe.check import first_stage, load_recipe
from ssodkit.recipe.model import Recipe

STYLES = {"mistake": "bold red", "warning": "yellow", "note": ""}


@dataclass(frozen=True)
class Report:
    """What was found, worst first."""

    findings: tuple[Finding, ...]
    survey: Survey | None = None
    """Of the labeled images, where they could be read."""
    cost: Cost | None = None
    """Where a step could be tried."""

    @property
    def has_mistakes(self) -> bool:
        """Whether a run would stop, or not begin."""
        return any(finding.severity == "mistake" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """In plain types."""
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "survey": None if self.survey is None else self.survey.as_json(),
            "cost": None if self.cost is None else self.cost.as_json(),
        }

    def table(self) -> Table:
        """For a reader, with a sum below."""
        counts = Counter(str(finding.severity) for finding in self.findings)
        total = ", ".join(f"{counts[name]} {name}{'s' * (counts[name] != 1)}" for name in STYLES)
        table = Table(show_lines=True, caption=total, caption_justify="left", show_header=False)
        for finding in self.findings:
            what = Text(f"{finding.where}: " if finding.where else "").append(finding.what)
            if finding.how:
                what.append(f"\n{finding.how}.", style="green")
            table.add_row(Text(f"{finding.severity}\n{finding.area}", style=STYLES[finding.severity]), what)
        return table


def examine(
    name: str | Path,
    overrides: Iterable[str] = (),
    processes: Processes | None = None,
    out: Path | None = None,
    trust_plugins: bool = False,
) -> Report:
    """Look at a recipe, its data, and one step of it; sheets of its views are written into the folder `out`.

    Nothing that is wrong with recipe or data is raised; all of it is in the answer. Of a recipe of two stages, the
    first is tried.
    """
    try:
        recipe = load_recipe(name, overrides, trust_plugins)
        recipe = first_stage(recipe, trust_plugins) or recipe
    except RecipeError as error:
        return _report([Finding("mistake", "recipe", "", line) for line in str(error).splitlines()])
    with showing("reading the data") as on_read:
        read, refusals = read_sources(recipe.data, on_read)
    with showing("looking at images") as on_checked:
        files = {**read, **_folders_of_others(recipe.data, read)}
        findings = check_files(files, recipe.data.broken, on_checked)
    findings += check_copies(files)
    try:
        sets = assemble(recipe.data, read, refusals)
    except DataError as error:
        return _report([*_from_text(str(error)), *findings])
    if recipe.data.broken.skip:
        sets = leave_out(sets, look_into(sets))
    seen = survey(sets.labeled)
    findings += check_labels(read, sets, seen)
    more, cost = _try(recipe, sets, read, findings, processes, out)
    return _report([*findings, *more], seen, cost)


def _folders_of_others(data: DataConfig, read: Mapping[str, ImageSet]) -> dict[str, ImageSet]:
    """All images that lie in the folders of sources whose labels could not be read: these may be broken as well."""
    sources = {"data.train": data.train, "data.test": data.test, "data.validation": data.validation}
    found = {}
    for key, source in sources.items():
        for number, one in enumerate(sources_of(source) if key not in read else ()):
            match one:
                case CocoSource():
                    folder = one.images
                case VocSource() | YoloSource():
                    folder = one.root if one.root.is_dir() else one.root.parent
                case _:
                    continue
            with suppress(DataError):  # a folder that is not there is among the mistakes of its labels
                found[f"{key}.{number}" if isinstance(source, tuple) else key] = read_folder(folder)
    return found


def _try(
    recipe: Recipe,
    sets: DataSets,
    read: dict[str, ImageSet],
    findings: list[Finding],
    processes: Processes | None,
    out: Path | None,
) -> tuple[list[Finding], Cost | None]:
    """What needs the networks; a step is tried where all files can be read."""
    per_image = tuple((sets.labeled.boxes_per_class() / len(sets.labeled)).tolist())
    try:
        with explained():
            start = find_start(recipe.detector, [category.name for category in sets.categories])
            method = build_method(recipe, len(sets.categories), start=start, labeled_boxes_per_image=per_image)
            more = check_meeting(recipe, sets, method.networks())
            if processes is None or any(finding.severity == "mistake" for finding in findings):
                return more, None
            tried, cost = try_out(recipe, sets, place(method, recipe, processes.device), processes, out)
    except SsodkitError as error:
        return [Finding("mistake", "step", "", str(error))], None
    return [*more, *tried], cost


def _report(findings: Iterable[Finding], seen: Survey | None = None, cost: Cost | None = None) -> Report:
    order = list(STYLES)
    return Report(tuple(sorted(findings, key=lambda finding: order.index(finding.severity))), seen, cost)


def _from_text(text: str) -> list[Finding]:
    """The mistakes that a DataError lists: each begins with a key, and lines that are indented belong to it."""
    blocks: list[str] = []
    for line in text.splitlines():
        if blocks and line.startswith(" "):
            blocks[-1] += f"\n{line}"
        else:
            blocks.append(line)
    pairs = [block.partition(": ") for block in blocks]
    return [Finding("mistake", "data", key, what) for key, _, what in pairs]
