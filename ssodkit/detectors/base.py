"""What a detector exposes: capabilities before it is built, and verbs once it is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from pydantic import field_validator, model_validator
from torch import Tensor, nn

from ssodkit.assigners.matchers.base import Matcher
from ssodkit.detectors.anchors import Anchored
from ssodkit.detectors.portable.parts import Suppress
from ssodkit.detectors.rules import DetectionRule, ProposalCount, StageRule
from ssodkit.detectors.torchvision_weights import TorchvisionName, plain_name
from ssodkit.plugins import BuildContext, PluginConfig
from ssodkit.structures.predictions import Candidates, Detections, Features, Predictions, Queries, Stages, stage_of
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision
from ssodkit.structures.views import View


class DetectorConfig(PluginConfig, ABC):
    """Capabilities belong to the config, so that a recipe is checked before a network exists."""

    slot: ClassVar[str] = "detector"

    stages: Mapping[str, StageRule]
    test: DetectionRule = DetectionRule()
    weights: TorchvisionName | Path | None = None
    """What the whole detector starts from: torchvision's COCO weights, by the name of their network; a file of weights
    of such a network; the folder of a run or of one of its checkpoints, or a safetensors file of either. The backbone
    fetches none of its own then. What says classes that these weights do not know is new."""

    @field_validator("weights", mode="before")
    @classmethod
    def _as_torchvision_names_it(cls, weights: object) -> object:
        return plain_name(weights) if isinstance(weights, str) else weights

    @property
    @abstractmethod
    def stage_answers(self) -> Mapping[str, frozenset[str]]:
        """Stage -> its answers, such as `class` and `box`; in the order in which stages answer.

        Each answer needs a term that teaches it, or its weights would never learn.
        """

    @property
    @abstractmethod
    def stage_provides(self) -> Mapping[str, frozenset[str]]:
        """Stage -> what else its rule, matcher and criteria may build on.

        `predictions`: it has them before matching; `places`: its candidates lie somewhere; `strides`: on cells of the
        pyramid; `sigmoid` or `softmax`: what its class logits are for; `no_classes`: it tells things from background;
        `own_plan`: it knows itself what its candidates learn from, so that its rule has neither matcher nor sampler.
        """

    @property
    def stage_levels(self) -> Mapping[str, int]:
        """Stage that lies on the cells of a pyramid -> how many levels that has."""
        return {}

    @property
    def largest_cell(self) -> int | None:
        """Pixels per side of the largest cell that the stage which makes detections answers about; None: of none."""
        return None

    @property
    def query_channels(self) -> int:
        """How wide the content of a query is; 0 without the capability `queries`."""
        return 0

    @model_validator(mode="after")
    def _all_stages_have_rules(self) -> "DetectorConfig":
        if set(self.stages) != set(self.stage_answers):
            own, given = (" and ".join(names) for names in (self.stage_answers, self.stages))
            raise ValueError(f"the stages of {self.type} are {own}, not {given or 'none'}")
        for name, rule in self.stages.items():
            plans = "own_plan" in self.stage_provides[name]
            if plans and (rule.matchers or rule.sampler is not None):
                raise ValueError(
                    f"stages.{name} knows what its candidates learn from; its matcher and sampler are null"
                )
            if not plans and rule.matcher is None:
                raise ValueError(f"stages.{name}.matcher cannot be null: which candidate learns from which target?")
        return self

    @model_validator(mode="after")
    def _rules_fit_the_pyramid(self) -> "DetectorConfig":
        for name, levels in self.stage_levels.items():
            rule = self.stages[name]
            misfits = [matcher.misfit(levels) for matcher in rule.matchers.values()]
            for text in misfits + [normalizer.misfit(levels) for normalizer in rule.normalizers]:
                if text is not None:
                    raise ValueError(text)
        return self

    @abstractmethod
    def build(self, context: BuildContext) -> "Detector": ...


class Detector(nn.Module, ABC):
    """A network whose answers are records; nothing it returns depends on `self.training`."""

    num_classes: int
    stage_rules: Mapping[str, StageRule]
    backbone: nn.Module
    neck: nn.Module
    """From the backbone's maps to the pyramid; both are compiled where the recipe asks for it."""
    matchers: nn.ModuleDict
    """Those of `build_matchers`."""
    anchored: Anchored | None = None
    """The stage whose candidates are anchors, where there is one."""

    def rule(self, name: str, progress: Progress) -> StageRule:
        """How a stage, or a layer of one, learns in this step."""
        return self.stage_rules[stage_of(name)].at(progress)

    def matcher(self, name: str, progress: Progress) -> Matcher:
        """The matcher of a stage, or of a layer of one, in this step."""
        stage = stage_of(name)
        rule = self.stage_rules[stage]
        own = [place for place in rule.begun(progress) if rule.phases[place].matcher is not None]
        matcher = self.matchers[f"{stage}@{own[-1]}" if own else stage]
        assert isinstance(matcher, Matcher)
        return matcher

    @abstractmethod
    def extract(self, view: View) -> Features:
        """Normalize, backbone and neck."""

    @abstractmethod
    def predict(
        self,
        features: Features,
        supervision: Supervision | None = None,
        proposals: ProposalCount = "test",
    ) -> Stages:
        """Raw predictions of every stage. `supervision` serves detectors that sample before they predict."""

    def answer_about(self, features: Features, others: Stages) -> Stages:
        """Raw predictions about the candidates of `others`, answers of a network like this one in the same frame.

        Raises NotImplementedError where candidates of two networks are never the same: for detectors without
        `comparable_answers`.
        """
        raise NotImplementedError(f"candidates of two {type(self).__name__} are never the same")

    def states_of(self, stages: Stages, queries: Queries) -> Sequence[Float[Tensor, "batch queries channels"]]:
        """What becomes of further queries behind each layer, where `stages` are this network's answers about their
        images: they see its own queries, which do not see them. Differentiably, where the answers were.

        Raises NotImplementedError for detectors without `queries`.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no queries")

    def score_regions(self, features: Features, regions: Candidates) -> Predictions:
        """The last stage's answer about any box in the frame of `features`, differentiably; logits and codes of what is
        not valid or has no area are 0.

        Raises NotImplementedError where regions alone cannot be asked about: for detectors without `exact_regions`.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be asked about a region")

    @abstractmethod
    def detect(
        self,
        stages: Stages,
        score: float | None = None,
        rank: Mapping[str, float] | None = None,
        progress: Progress | None = None,
        nms: float | None = None,
    ) -> Detections:
        """Final detections in the frame of `stages.view`, by the test rule of a run that is so far, without `progress`
        as the rule stands; `score`, `rank` and `nms` override its threshold, ranking and suppression."""

    def class_layers(self, num_classes: int) -> Mapping[str, Tensor]:
        """Layers that say classes, and for each which outputs speak of which class, if there were so many: (classes,
        outputs). So weights are taken over by the names of classes; what is not listed is taken where it has the same
        shape."""
        return {}

    def portable(self, suppress: Suppress, score: float) -> nn.Module | None:
        """This detector in operations that a file can hold: gray levels (batch, 3, height, width), and the one size
        (height, width) of the images in them -> `Answer`. None where it has no such form.
        """
        return None


def build_matchers(rules: Mapping[str, StageRule], context: BuildContext) -> nn.ModuleDict:
    """The matchers of all stages by name, and those of their phases, such as `roi@0`."""
    return nn.ModuleDict(
        {f"{name}{of}": matcher.build(context) for name, rule in rules.items() for of, matcher in rule.matchers.items()}
    )
