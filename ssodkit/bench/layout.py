"""A table in words: heads, rounded numbers, footnotes. What no format needs to know about results stands here."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from ssodkit.bench.published import SHARES, Published, Setting
from ssodkit.bench.results import CellResult
from ssodkit.bench.statistics import CONFIDENCE, FEW, mean
from ssodkit.bench.table import Entry, Table
from ssodkit.data.config import CocoSource, DigitsSource, EvaluationSource, HeldOutSource, StoredSource, sources_of

MISSING = "-"
SETTINGS: dict[Setting, str] = {
    "coco_standard": "COCO",
    "coco_additional": "COCO-additional",
    "coco_full": "COCO, all labels",
    "coco_per_class": "COCO per class",
    "voc07_voc12": "VOC07 + VOC12",
    "voc07_voc12_coco20": "VOC07 + VOC12 + COCO20",
    "voc07_voc12_coco80": "VOC07 + VOC12 + COCO",
    "voc0712": "VOC0712, all labels",
    "voc07_part": "VOC07",
    "voc_per_class": "VOC per class",
}


@dataclass(frozen=True)
class Text:
    """What stands in one place of a table."""

    text: str
    notes: tuple[int, ...] = ()
    """Numbers of its footnotes, from 1."""


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    group: str
    """What it shares with its neighbors, such as `5 % labels`; empty where it stands alone."""
    head: str


@dataclass(frozen=True)
class Layout:
    """A table as it is read. All of it is plain text."""

    name: str
    warning: str | None
    about: str
    facts: tuple[str, ...]
    """Sentences without which the numbers mean nothing."""
    columns: tuple[Column, ...]
    rows: tuple[tuple[Text, ...], ...]
    notes: tuple[str, ...]


@dataclass
class _Notes:
    """Footnotes, numbered in the order of their first mention."""

    texts: list[str] = field(default_factory=list)

    def add(self, text: str) -> int:
        """Its number."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def lay_out(table: Table) -> Layout:
    """A table as it is read."""
    notes = _Notes()
    published = table.suite.published
    has_paper = any(entry.published for entry in table.entries)
    is_beside = has_paper and published is not None and published.percent == "same" and published.setting in SHARES
    has_gain = any(entry.baseline for entry in table.entries)
    differs = len(_devices(table.results)) > 1
    columns = [Column("", "Method")]
    for entry in table.rows[0]:
        heads = [_score_head(table), *["gain"] * has_gain, *[_paper_head(table)] * is_beside]
        columns.extend(Column(heading(table, entry), head) for head in heads)
    if has_paper and not is_beside:
        columns.append(Column("", _paper_head(table)))
    columns.extend(Column("", head) for head in ("time", "images/s", "memory, GB"))
    rows = []
    for row in table.rows:
        texts = [_method(row, notes)]
        for entry in row:
            texts.append(_score(table, entry, notes))
            texts += [_gain(entry, notes)] if has_gain else []
            texts += [_paper(entry.published, notes)] if is_beside else []
        texts += [_paper(row[0].published, notes)] if has_paper and not is_beside else []
        rows.append((*texts, *_costs(row, differs, notes)))
    facts = tuple(_facts(table, differs))
    return Layout(
        table.suite.name, table.suite.warning, table.suite.about, facts, tuple(columns), tuple(rows), tuple(notes.texts)
    )


def heading(table: Table, entry: Entry) -> str:
    """What stands above the scores of a share of labels."""
    shares = {cell.share for cell in table.cells} if table.suite.shares == (None,) else {entry.share}
    return table.suite.heading(entry.share) if len(shares) == 1 else "labels of the recipe"


def _score_head(table: Table) -> str:
    scored = table.scored
    return f"{scored.metric} ({scored.network}, {scored.threshold})"


def _paper_head(table: Table) -> str:
    columns = table.suite.published
    if columns is None:
        return ""
    share = f" {columns.percent:g} %" if isinstance(columns.percent, float) and columns.setting in SHARES else ""
    return f"paper, {SETTINGS[columns.setting]}{share}"


def _method(row: Sequence[Entry], notes: _Notes) -> Text:
    source = row[0].cells[0].recipe.data.unlabeled
    if not isinstance(source, StoredSource) or source.made_by is None:
        return Text(row[0].row.title)
    first = Path(source.made_by).stem
    note = f"Its pseudo-labels come from a training of {first} before it; steps and time are without that one."
    return Text(row[0].row.title, (notes.add(note),))


def _score(table: Table, entry: Entry, notes: _Notes) -> Text:
    numbers = []
    networks = {table.scored.network_of(result) for result in entry.results} - {table.scored.network}
    if networks:
        numbers.append(notes.add(f"Of the {' and '.join(sorted(networks))}, the only network of this training."))
    if entry.points and entry.mean is None:
        numbers.append(notes.add(f"The test images have no box that {table.scored.metric} looks at."))
    text = MISSING if entry.mean is None else f"{entry.mean:.1f}"
    if entry.deviation is not None:
        text += f" ± {entry.deviation:.1f}"
    if 0 < len(entry.points) < entry.folds:
        text += f" ({len(entry.points)} of {entry.folds} folds)"
    return Text(text, tuple(numbers))


def _gain(entry: Entry, notes: _Notes) -> Text:
    gain, baseline = entry.gain, entry.baseline
    if baseline is None:
        return Text("")
    if gain is None:
        return Text(MISSING)
    numbers = []
    if entry.steps != baseline.steps:
        numbers.append(notes.add(f"Trained for {entry.steps:,} steps, its baseline for {baseline.steps:,}."))
    parts = [*_differing_parts(_detector(entry), _detector(baseline))]
    if parts:
        numbers.append(notes.add(f"Its detector differs from its baseline's in {', '.join(parts)}."))
    if gain.pairs < len(entry.points):
        numbers.append(notes.add(f"Over {_count(gain.pairs, 'fold')}: the baseline lacks others."))
    text = f"{gain.mean:+z.1f}"
    if gain.interval is not None:
        text += " ({:+z.1f} to {:+z.1f})".format(*gain.interval) + " wide" * gain.is_wide
    return Text(text, tuple(numbers))


def _detector(entry: Entry) -> dict[str, Any]:
    return entry.cells[0].recipe.detector.model_dump()


def _differing_parts(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    """Parts of two detectors that are not the same; of a stage, what in it is not."""
    if ours["type"] != theirs["type"]:
        yield "type"
        return
    for name in ours:
        if ours[name] != theirs[name] and name != "stages":
            yield name
    for stage, parts in ours["stages"].items():
        yield from (
            f"stages.{stage}.{name}" for name in parts if parts[name] != theirs["stages"].get(stage, {}).get(name)
        )


def _paper(published: Published | None, notes: _Notes) -> Text:
    if published is None:
        return Text(MISSING)
    spread = "" if published.spread is None else f" ± {published.spread}"
    parts = [published.source]
    parts += [f"row: {published.variant}"] if published.variant else []
    parts += [f"of the {published.network}"] if published.network else []
    parts += [f"origin: {published.origin}"] if published.origin != "paper" else []
    parts += [published.note] if published.note else []
    parts += ["unconfirmed"] if published.unconfirmed else []
    return Text(f"{published.value}{spread}" + "?" * published.unconfirmed, (notes.add("; ".join(parts) + "."),))


def _costs(row: Sequence[Entry], differs: bool, notes: _Notes) -> list[Text]:
    """Time, images per second and memory of a method: means over all of its trainings."""
    results = [result for entry in row for result in entry.results]
    devices = _devices(results)
    text = " and ".join(f"{name} ({_count(count, 'training')})" for name, count in devices.items())
    numbers = (notes.add(f"On {text}{MIXED * (len(devices) > 1)}."),) if differs and devices else ()
    seconds = mean([result.seconds for result in results])
    speed = mean([result.images_per_second for result in results if result.images_per_second is not None])
    memory = mean([result.memory_gb for result in results if result.memory_gb is not None])
    return [
        Text(MISSING if seconds is None else str(timedelta(seconds=round(seconds))), numbers),
        Text(MISSING if speed is None else f"{speed:.1f}"),
        Text(MISSING if memory is None else f"{memory:.1f}"),
    ]


MIXED = ": a mean over different devices"


def _devices(results: Sequence[CellResult]) -> Counter[str]:
    """Device -> how many trainings, in the order of first use."""
    return Counter(describe_device(result) for result in results)


def describe_device(result: CellResult) -> str:
    """What trained, for a reader."""
    return result.device if result.processes == 1 else f"{result.processes} x {result.device}"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'s' if number != 1 else ''}"


def _facts(table: Table, differs: bool) -> list[str]:
    scored, cells, results = table.scored, table.cells, table.results
    folds = sorted({cell.fold for cell in cells})
    what = f"{scored.metric} (network, test threshold): points of the last checkpoint"
    facts = [f"{what}, on {' + '.join(map(_describe_test, sources_of(cells[0].recipe.data.test)))}."]
    spread = "mean ± sample standard deviation over folds " if len(folds) > 1 else "fold "
    spread += ", ".join(map(str, folds))
    if table.suite.seeds != "per_fold":
        spread += f"; a fold's number is the mean over seeds {', '.join(map(str, table.suite.seeds))}"
    facts.append(f"{len(results):,} of {_count(len(cells), 'training')} done; {spread}.")
    titles = {row.name: row.title for row in table.suite.methods}
    over: dict[str, list[str]] = {}
    for row in table.suite.methods:
        if row.baseline:
            over.setdefault(titles[row.baseline], []).append(row.title)
    if over:
        interval = f"with its {100 * CONFIDENCE:g} % Student t interval; wide: from fewer than {FEW} folds"
        pairs = "; ".join(f"over '{baseline}': {', '.join(methods)}" for baseline, methods in over.items())
        facts.append(f"Gain: mean difference, paired by fold, {interval}. {pairs[0].upper()}{pairs[1:]}.")
    if any(entry.published and entry.published.unconfirmed for entry in table.entries):
        facts.append("A published number with ? could not be confirmed.")
    if results:
        where = "several devices, so that times do not compare" if differs else next(iter(_devices(results)))
        facts.append(f"Time, training images per second, peak memory: means over trainings, on {where}.")
        facts.append(f"Made by {', '.join(describe_sources(results))}.")
    return facts


def describe_sources(results: Sequence[CellResult]) -> list[str]:
    """The checkouts or installed versions that trained, each once."""
    found = []
    for result in results:
        for source in result.sources:
            if source.commit is None:
                found.append(f"ssodkit {result.versions.get('ssodkit', 'of unknown version')}, installed")
            else:
                found.append(f"commit {source.commit[:12]}" + " with uncommitted changes" * (source.clean is not True))
    return list(dict.fromkeys(found))


def _describe_test(source: EvaluationSource) -> str:
    if isinstance(source, DigitsSource):
        return f"{source.images:,} {source.level} digit scenes of {source.side} x {source.side} ({source.part})"
    if isinstance(source, CocoSource):
        return source.annotations.name
    if isinstance(source, HeldOutSource):
        return f"{source.percent:g} % of the training images, held out"
    return " ".join(part for part in (source.root.name, source.split and Path(source.split).stem) if part)
