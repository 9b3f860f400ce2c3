"""Heads on pooled features: one linear layer, or an MLP."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


class MLPHead(nn.Sequential):
    """Fully connected layers with ReLU and dropout between them, features in, logits out.

    Args:
        in_features: Width of the features.
        hidden: Widths of the hidden layers, at least one.
        classes: Number of classes.
        dropout: Probability of dropping a hidden unit while training.
    """

    def __init__(
        self, in_features: int, hidden: Sequence[int], classes: int, dropout: float = 0.0
    ) -> None:
        layers: list[nn.Module] = []
        width = in_features
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        super().__init__(*layers, nn.Linear(width, classes))
        self.in_features = in_features
        self.hidden = tuple(hidden)
        self.dropout = dropout


def build_head(description: Mapping[str, Any]) -> nn.Module:
    """A head with fresh weights from its description."""
    if description["type"] == "linear":
        return nn.Linear(description["in_features"], description["classes"])
    if description["type"] == "mlp":
        return MLPHead(
            description["in_features"],
            description["hidden"],
            description["classes"],
            description["dropout"],
        )
    raise KeyError(f"head type {description['type']!r}")


def describe_head(head: nn.Module) -> dict[str, Any]:
    """What :func:`build_head` needs to make the same head."""
    if isinstance(head, nn.Linear):
        return {"type": "linear", "in_features": head.in_features, "classes": head.out_features}
    if isinstance(head, MLPHead):
        last = head[-1]
        assert isinstance(last, nn.Linear)
        return {
            "type": "mlp",
            "in_features": head.in_features,
            "hidden": list(head.hidden),
            "classes": last.out_features,
            "dropout": head.dropout,
        }
    raise TypeError(f"a head is a Linear or an MLPHead, not {type(head).__name__}")
