"""The input that a network was trained on, saved with its weights and followed wherever the network is asked."""

from __future__ import annotations

from dataclasses import dataclass

from mvpose.errors import ConfigError
from mvpose.models.network_settings import PIXEL_DEVIATION, PIXEL_MEAN, CropRule, FusionMethod, Method

MARGIN = 1.4
"""The margin of crops that training takes without another; everything else takes the margin of the weights."""
MIN_VIEWS = 2
"""No method has an answer from fewer: joints are triangulated."""


@dataclass(frozen=True, kw_only=True)
class InputRule:
    """The crops, views and colours that a network expects, and the joints that it answers with."""

    skeleton: str
    """Name of the joint set."""
    crop: CropRule
    min_views: int = MIN_VIEWS
    max_views: int | None = None
    """None for any number. A network that concatenates views accepts exactly the number that it was trained with."""
    pixel_mean: tuple[float, float, float] = PIXEL_MEAN
    """Of RGB in 0..1. The network normalises by itself: crops are handed to it as they are cut."""
    pixel_deviation: tuple[float, float, float] = PIXEL_DEVIATION

    def accepts(self, views: int) -> bool:
        """Whether the network takes so many views."""
        return self.min_views <= views and (self.max_views is None or views <= self.max_views)

    @property
    def accepted_views(self) -> str:
        """In words."""
        if self.max_views is None:
            return f"{self.min_views} or more views"
        if self.min_views == self.max_views:
            return f"exactly {self.max_views} views"
        return f"{self.min_views} to {self.max_views} views"

    def require_views(self, views: int) -> None:
        """ConfigError where the network does not take so many views."""
        if not self.accepts(views):
            raise ConfigError(
                f"the network takes {self.accepted_views}, and {views} are given: use a network that accepts as many, "
                "or train one (a fusion that pools or attends accepts any number)."
            )


def input_rule(method: Method, margin: float) -> InputRule:
    """The rule of a network that is trained on crops of this margin."""
    views = method.fusion.views if isinstance(method, FusionMethod) and method.concatenates else None
    return InputRule(
        skeleton=method.skeleton,
        crop=CropRule(size=method.size, margin=margin),
        min_views=views or MIN_VIEWS,
        max_views=views,
    )
