"""Whether the parts of a recipe fit together, before a network exists.

Parts declare what they need, provide, read and write, and this compares them; of single parts it knows stored labels
and backbones, each in one check.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from ssodkit.data.config import StoredSource
from ssodkit.data.views import are_aligned
from ssodkit.detectors.backbones.base import BackboneConfig
from ssodkit.detectors.detections import rankable
from ssodkit.detectors.rules import changes_of
from ssodkit.detectors.starting import misfit
from ssodkit.detectors.torchvision_weights import promised
from ssodkit.plugins import Config, PluginConfig, members, slots, suggest
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.read import Mistake, Written, refuse
from ssodkit.recipe.validate import Location, dotted, locate
from ssodkit.schedules.base import HIGHEST_RATE, StepMarker
from ssodkit.teachers.base import TeacherConfig

Problem = tuple[Location, str]
"""Path of a field, and what is wrong there."""
Parts = list[tuple[Location, PluginConfig]]

ALWAYS_SCORED = "confidence"
"""The score that every detection carries."""


def check_fit(recipe: Recipe, tree: Written) -> None:
    """Raise RecipeError that shows everything that cannot work together, at its place in `tree`."""
    parts = [(path, config) for path, config in walk(recipe) if isinstance(config, PluginConfig)]
    problems: list[Problem] = [
        *_unmet_needs(recipe, parts),
        *_idle_keys(recipe, parts),
        *_unwritten_scores(recipe, parts),
        *_missing_views(recipe),
        *_stored_labels(recipe),
        *_misfits(recipe),
        *_term_changes(recipe, parts),
        *_untaught_answers(recipe, parts),
        *_unanswered_ranks(recipe, parts),
        *_frozen_noise(recipe, parts),
        *_other_weights(recipe),
        *_late_steps(recipe),
        *_unmeasured_peak(recipe),
        *_high_rates(recipe),
    ]
    refuse(_at_place(tree, path, text) for path, text in problems)


def walk(value: object, path: Location = ()) -> Iterator[tuple[Location, Config]]:
    """Every config inside `value`, itself included, with its path; outer before inner, in the order of fields."""
    items: Iterable[tuple[int | str, object]] = ()
    if isinstance(value, Config):
        yield path, value
        items = ((key, getattr(value, name)) for key, name in value.fields_by_key().items())
    elif isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    for key, item in items:
        yield from walk(item, (*path, key))


def _at_place(tree: Written, path: Location, text: str) -> Mistake:
    _, node = locate(tree, path)
    return Mistake(node.key if isinstance(node.value, dict) else node.place, dotted(path), text)


def _unmet_needs(recipe: Recipe, parts: Parts) -> Iterator[Problem]:
    """Capabilities come from the detector and its parts; inside one of its stages also from that stage."""
    changing = {("method", key) for key in recipe.method.term_changes}
    for path, part in parts:
        if path[:2] not in changing:
            yield from _unmet(recipe, path, part, *_around(recipe, path, parts))


def _unmet(
    recipe: Recipe, path: Location, part: PluginConfig, owner: str, available: frozenset[str]
) -> Iterator[Problem]:
    missing = part.needed - available
    if missing:
        needs = " and ".join(f"'{need}'" for need in sorted(missing))
        cure = _cure(recipe, part, missing, available)
        yield path, f"'{part.type}' needs {needs}, which {owner} does not provide; {cure}"


def _term_changes(recipe: Recipe, parts: Parts) -> Iterator[Problem]:
    """What the method changes about terms: names of none, and changes that do not fit the terms they name."""
    detector = recipe.detector
    terms = {(stage, term): own for stage, rule in detector.stages.items() for term, own in rule.terms.items()}
    names = list(dict.fromkeys([*detector.stages, *(term for _, term in terms), *map("/".join, terms)]))
    taught = {one.teaches for one in members("criterion").values()}  # a preset may speak of what this detector lacks
    for key, changes in recipe.method.term_changes.items():
        for name, change in changes.items():
            path: Location = ("method", key, name)
            named = {at: own for at, own in terms.items() if changes_of({name: change}, *at, own.criterion.teaches)}
            if not named and name not in taught:
                yield path, f"no stage or loss term has this name; {suggest(name, names)}"
            for (stage, term), own in named.items():
                laid = changes_of(changes, stage, term, own.criterion.teaches)
                stronger = laid[laid.index(change) + 1 :]
                if text := own.misfit_of(change):
                    yield path, f"{text} (in the stage '{stage}')"
                owner, available = _around(recipe, ("detector", "stages", stage), parts)
                around = owner, available if key in recipe.method.about_labels else available | recipe.method.provided
                for field in ("criterion", "normalizer"):
                    part = getattr(change, field)
                    if part is not None and all(getattr(other, field) is None for other in stronger):
                        yield from _unmet(recipe, path, part, *around)
                levels = detector.stage_levels.get(stage)
                if change.normalizer is not None and levels and (text := change.normalizer.misfit(levels)):
                    yield path, text


def _idle_keys(recipe: Recipe, parts: Parts) -> Iterator[Problem]:
    """Keys that would have no effect, because what they speak of is not there."""
    for path, config in walk(recipe):
        owner, available = _around(recipe, path, parts)
        for key, need in config.key_needs.items():
            if need not in available:
                value = str(getattr(config, config.fields_by_key()[key])).lower()
                providers = ", ".join(_providers(recipe, frozenset({need}))) or "nothing installed"
                text = f"`{value}` needs '{need}', which {owner} does not provide, but: {providers}; leave it out"
                yield (*path, key), text


def _around(recipe: Recipe, path: Location, parts: Parts) -> tuple[str, frozenset[str]]:
    """Who surrounds the part at a path, in words, and what is provided to it."""
    detector = recipe.detector
    if path[:2] == ("detector", "stages") and len(path) > 2:
        stage = str(path[2])
        return f"the stage '{stage}' of '{detector.type}'", _provided(parts) | _of_stage(recipe, stage)
    if path[:2] == ("method", "consistencies"):
        method = recipe.method
        return f"'{method.type}' on '{detector.type}'", _provided(parts) | method.provided
    return f"'{detector.type}'", _provided(parts)


def _provided(parts: Parts) -> frozenset[str]:
    """What the detector and its parts provide to everyone."""
    return frozenset[str]().union(*(part.provided for path, part in parts if path[0] == "detector"))


def _of_stage(recipe: Recipe, stage: str) -> frozenset[str]:
    """What a stage provides to its parts: its answers, and what else they may build on."""
    sampler = {"sampler"} if recipe.detector.stages[stage].sampler is not None else set()
    return recipe.detector.stage_answers[stage] | recipe.detector.stage_provides[stage] | sampler


def _cure(recipe: Recipe, part: PluginConfig, missing: frozenset[str], available: frozenset[str]) -> str:
    cure = _sources(recipe, missing)
    parts = [(path, one) for path, one in walk(recipe.detector, ("detector",)) if isinstance(one, PluginConfig)]
    settings = [(path, one.offers[need]) for path, one in parts for need in missing if need in one.offers]
    if part.slot == "criterion" and missing <= recipe.method.provided:
        taught = [f"`method.{key}`" for key in recipe.method.term_changes if key not in recipe.method.about_labels]
        cure = f"labels do not say it, only a teacher: write it in {' or '.join(taught)}"
    elif settings and not _providers(recipe, missing):
        cure = f"write {', '.join(f'`{dotted(path)}.{setting}`' for path, setting in settings)}"
    if missing - part.needs - {part.teaches}:
        cure += f"; '{part.type}' needs it only as it is set here"
    alike = {name: one for name, one in members(part.slot).items() if one.teaches == part.teaches}
    frugal = [f"'{name}'" for name, one in alike.items() if name != part.type and one.needs <= available]
    return f"{cure}; without this need: {', '.join(frugal)}" if frugal and part.teaches not in missing else cure


def _sources(recipe: Recipe, missing: frozenset[str]) -> str:
    """Who provides all of it; where nobody does, who provides what."""
    if providers := _providers(recipe, missing):
        return f"provided by: {', '.join(providers)}"
    each = {need: _providers(recipe, frozenset({need})) for need in sorted(missing)}
    if not all(each.values()):
        return "nothing installed provides it"
    return "; ".join(f"'{need}' is provided by: {', '.join(names)}" for need, names in each.items())


def _providers(recipe: Recipe, missing: frozenset[str]) -> list[str]:
    """What provides all of it: stages of this recipe's detector, and plug-ins."""
    stages = [f"stage '{name}'" for name in recipe.detector.stages if missing <= _of_stage(recipe, name)]
    return stages + [
        f"{slot} '{name}'" for slot in slots() for name, one in members(slot).items() if missing <= one.provides
    ]


def _unwritten_scores(recipe: Recipe, parts: Parts) -> Iterator[Problem]:
    """Scorers run in the order of their list, so each reads only what those before it wrote."""
    written = [ALWAYS_SCORED, *sorted(recipe.method.scores)]
    everything = [*written, *(part.writes for _, part in parts if part.writes)]
    for path, part in parts:
        known = written if part.writes else everything
        for score in sorted(part.reads - set(known)):
            yield (*path, *_field_that_says(part, score)), _unwritten(recipe, parts, score, known, everything)
        if part.writes in recipe.method.scores:
            text = f"writes the score '{part.writes}', which the teacher's answer has already"
            yield path, f"{text}; give its ranking another name"
        if part.writes:
            written.append(part.writes)


def _unwritten(recipe: Recipe, parts: Parts, score: str, known: list[str], everything: list[str]) -> str:
    who = "no scorer before it writes" if score in everything else "no scorer writes"
    writers = {name: one for name, one in members("instance_scorer").items() if one.writes == score}
    lacking = {name: sorted(one.needs - _provided(parts)) for name, one in writers.items()}
    fitting = [name for name in writers if not lacking[name]]
    if score in everything:
        cure = "change the order of the scorers"
    elif score in recipe.method.scored_by:
        cure = recipe.method.scored_by[score]
    elif fitting:
        cure = f"add `- {{type: {fitting[0]}}}` to method.scorers, or choose one of these"
    elif writers:
        name = next(iter(writers))
        cure = f"'{name}' would, but '{recipe.detector.type}' lacks its '{lacking[name][0]}': choose one of these"
    else:
        cure = suggest(score, known)
    return f"reads the score '{score}', which {who}; scores here: {', '.join(known)}; {cure}"


def _field_that_says(part: PluginConfig, text: str) -> Location:
    """The path of the field inside `part` whose value is `text`, or a list with it; empty where none is."""
    for path, config in walk(part):
        for key, name in config.fields_by_key().items():
            value = getattr(config, name)
            if key != "type" and (value == text or (isinstance(value, tuple) and text in value)):
                return (*path, key)
    return ()


def _missing_views(recipe: Recipe) -> Iterator[Problem]:
    method = recipe.method
    if not recipe.views.labeled:
        yield ("views", "labeled"), "give at least one view of the labeled images, such as `weak: []`"
    for stream, names in method.needs_views.items():
        views = getattr(recipe.views, stream)
        for name in names:
            said = _field_that_says(method, name)
            if name not in views and said:
                yield ("method", *said), f"there is no view '{name}' of the {stream} images; {suggest(name, views)}"
            elif name not in views:
                here = f"views here: {', '.join(views) or 'none'}"
                text = f"the method '{method.type}' needs a view '{name}' of the {stream} images; {here}"
                yield ("views", stream), text
    yield from _unaligned_views(recipe)
    if "unlabeled" in method.needs_views and recipe.data.batch.unlabeled == 0:
        text = f"the method '{method.type}' learns from unlabeled images; give a step at least 1, not 0"
        yield ("data", "batch", "unlabeled"), text


def _unaligned_views(recipe: Recipe) -> Iterator[Problem]:
    method, views = recipe.method, recipe.views.unlabeled
    if method.aligned_views is None or not views.keys() >= set(method.aligned_views):
        return
    first, second = method.aligned_views
    if not are_aligned(views, first, second):
        text = (
            f"the method '{method.type}' compares the views '{first}' and '{second}' place by place; give both the "
            f"same transforms that move pixels, in the same order, and write `draws_as: {first}`"
        )
        yield ("views", "unlabeled", second), text


def _stored_labels(recipe: Recipe) -> Iterator[Problem]:
    """Stored labels and a method that learns from them need each other, and images and views of them in the step."""
    method, is_stored = recipe.method, isinstance(recipe.data.unlabeled, StoredSource)
    if is_stored and not method.learns_stored:
        text = (
            f"the method '{method.type}', as it is set here, reads no stored labels; take `type: supervised` with an "
            "`unlabeled_weight`, or another source of images"
        )
        yield ("data", "unlabeled"), text
    if method.learns_stored and not is_stored:
        text = (
            f"the method '{method.type}' learns from the labels of unlabeled images, which this source has none of; "
            "take `type: stored`, or leave out method.unlabeled_weight"
        )
        yield ("data", "unlabeled"), text
    if method.learns_stored and recipe.data.batch.unlabeled == 0:
        yield ("data", "batch", "unlabeled"), "no step has an unlabeled image, whose stored labels shall teach"
    if method.learns_stored and "strong" not in recipe.views.unlabeled:
        text = "stored labels teach in a view `strong` of the unlabeled images, and there is none; `strong: []` is one"
        yield ("views", "unlabeled"), text


def _misfits(recipe: Recipe) -> Iterator[Problem]:
    """Consistencies that say themselves what they cannot look at."""
    for place, consistency in enumerate(recipe.method.consistencies):
        if text := consistency.misfit(recipe.detector, recipe.views.pad_to):
            yield ("method", "consistencies", place), text


def _untaught_answers(recipe: Recipe, parts: Parts) -> Iterator[Problem]:
    """Weights that nothing teaches get no gradient, for which several processes would wait."""
    for stage, rule in recipe.detector.stages.items():
        taught = {term.criterion.teaches for term in rule.terms.values()}
        for answer in sorted(recipe.detector.stage_answers[stage] - taught):
            teaching = {name: one for name, one in members("criterion").items() if one.teaches == answer}
            available = _provided(parts) | _of_stage(recipe, stage)
            fitting = ", ".join(name for name, one in teaching.items() if one.needs <= available)
            text = f"no term teaches the stage's answer '{answer}'; give it one with a criterion that does: {fitting}"
            yield ("detector", "stages", stage, "terms"), text


def _unanswered_ranks(recipe: Recipe, parts: Parts) -> Iterator[Problem]:
    """Detections are ranked by what the stage that makes them answers."""
    *_, (stage, answers) = recipe.detector.stage_answers.items()
    rankings: dict[Location, Mapping[str, float]] = {("detector", "test", "rank"): recipe.detector.test.rank}
    for path, part in parts:
        if isinstance(part, TeacherConfig):
            rankings |= {(*path, "rankings", name): rank for name, rank in part.scores.items()}
    known = ", ".join(sorted(rankable(answers)))
    for path, rank in rankings.items():
        for name in sorted(rank.keys() - rankable(answers)):
            yield (*path, name), f"the stage '{stage}' has no such answer; answers to rank by: {known}"


def _other_weights(recipe: Recipe) -> Iterator[Problem]:
    """torchvision's weights by a name say what they are of before they are there; files are read when a run begins."""
    name = recipe.detector.weights
    text = misfit(promised(name), recipe.detector) if isinstance(name, str) else None
    if text is not None:
        yield ("detector", "weights"), text


def _frozen_noise(recipe: Recipe, parts: Parts) -> Iterator[Problem]:
    for path, part in parts if recipe.detector.weights is None else ():
        if isinstance(part, BackboneConfig) and part.freezes and not part.is_pretrained:
            yield path, f"'{part.type}' freezes layers that have random weights; give it weights, or freeze nothing"


def _late_steps(recipe: Recipe) -> Iterator[Problem]:
    """Step numbers that a run of this length never reaches; shares and `never` are always right."""
    end = recipe.engine.steps
    cure = "write a share of the run such as `33 %`, or `never`, or lengthen the run"
    for path, config in walk(recipe):
        for key, name in config.fields_by_key().items():
            if not _holds_step_numbers(type(config).model_fields[name]):
                continue
            value = getattr(config, name)
            numbers = {(key, i): item for i, item in enumerate(value)} if isinstance(value, tuple) else {(key,): value}
            for end_of_path, number in numbers.items():
                if isinstance(number, int) and number >= end:
                    text = f"step {number} is not before the run's end (engine.steps is {end}); {cure}"
                    yield (*path, *end_of_path), text


def _unmeasured_peak(recipe: Recipe) -> Iterator[Problem]:
    """A best checkpoint is asked for, and nothing is looked at that could tell which one that is."""
    held_out = "such as `data.validation: {type: held_out, percent: 20}`"
    if recipe.data.validation is None and recipe.evaluation.checkpoint == "best":
        text = f"`best` is chosen on validation images, and there are none: name them, {held_out}, or take `last`"
        yield ("evaluation", "checkpoint"), text
    if recipe.engine.patience is not None and recipe.data.validation is None:
        text = f"it counts scores on validation images, and there are none: name them, {held_out}"
        yield ("engine", "patience"), text
    if recipe.engine.patience is not None and recipe.engine.evaluate_every is None:
        yield ("engine", "patience"), "it counts evaluations on the way, and there are none: set engine.evaluate_every"


def _high_rates(recipe: Recipe) -> Iterator[Problem]:
    """The learning rate is within its range, but what multiplies it may take weights beyond what a float holds."""
    engine, images = recipe.engine, recipe.data.batch.slots
    rate = engine.lr.span[1] * (images / engine.lr_for_images if engine.lr_for_images else 1.0)
    if rate > HIGHEST_RATE:
        text = f"for the {images} images of a step, the learning rate reaches {rate:g}, which is above {HIGHEST_RATE:g}"
        yield ("engine", "lr_for_images"), text
    factor = max(1.0, engine.optimizer.backbone_lr) * max(1.0, engine.optimizer.bias_lr)
    if rate * factor * engine.optimizer.weight_decay > 1.0:
        text = f"times the learning rate, which reaches {rate * factor:g}, it is above 1: weights would grow, not decay"
        yield ("engine", "optimizer", "weight_decay"), text


def _holds_step_numbers(field: FieldInfo) -> bool:
    return any(isinstance(item, StepMarker) for item in field.metadata) or _is_marked(field.annotation)


def _is_marked(annotation: Any) -> bool:
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated and any(isinstance(item, StepMarker) for item in arguments[1:]):
        return True
    return any(_is_marked(item) for item in arguments)
