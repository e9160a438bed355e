"""The input that a network was trained on. It is saved with the weights and applied wherever the network runs."""

from __future__ import annotations

from dataclasses import dataclass

from mvpose.errors import ConfigError
from mvpose.models.network_settings import PIXEL_DEVIATION, PIXEL_MEAN, CropRule, FieldsMethod, Method

MARGIN = 1.4
"""Default crop margin in training. Everything else uses the margin saved with the weights."""
MIN_VIEWS = 2
"""Minimum number of views of all methods that triangulate joints."""


@dataclass(frozen=True, kw_only=True)
class InputRule:
    """The crops, views and colours that a network expects, and the joints that it predicts."""

    skeleton: str
    """Name of the joint set."""
    crop: CropRule
    min_views: int = MIN_VIEWS
    max_views: int | None = None
    """None for any number. A network that concatenates views, or has weights for each pair of them, accepts exactly the
    number used in training."""
    pixel_mean: tuple[float, float, float] = PIXEL_MEAN
    """Of RGB in 0..1. The network normalises its input, so crops are passed without normalisation."""
    pixel_deviation: tuple[float, float, float] = PIXEL_DEVIATION

    def accepts(self, views: int) -> bool:
        """Whether the network accepts this number of views."""
        return self.min_views <= views and (self.max_views is None or views <= self.max_views)

    @property
    def accepted_views(self) -> str:
        """The accepted number of views in words, for messages."""
        if self.max_views == 1:
            return "one view"
        if self.max_views is None:
            return f"{self.min_views} or more views"
        if self.min_views == self.max_views:
            return f"exactly {self.max_views} views"
        return f"{self.min_views} to {self.max_views} views"

    @property
    def one_view(self) -> bool:
        """Whether the network takes a single image."""
        return self.max_views == 1

    def require_views(self, views: int) -> None:
        """Raise ConfigError if the network does not accept this number of views."""
        if not self.accepts(views):
            raise ConfigError(
                f"the network takes {self.accepted_views}, but {views} are given: use or train a network that accepts "
                "this number (fusion by pooling or attention accepts any number)."
            )


def input_rule(method: Method, margin: float) -> InputRule:
    """The input rule of a network trained on crops with this margin; of part affinity fields, on whole images."""
    views = method.fixed_views
    whole = isinstance(method, FieldsMethod)
    return InputRule(
        skeleton=method.skeleton,
        crop=CropRule(about="image", size=method.size, margin=1.0)
        if whole
        else CropRule(size=method.size, margin=margin),
        min_views=views or MIN_VIEWS,
        max_views=views,
    )
