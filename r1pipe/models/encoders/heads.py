"""What is predicted of each voxel, and of each group of points taken for an object.

Shape suffixes: M voxels, S members of all groups, O groups, K classes, C named colours, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from r1pipe.scenes.colours import NAMED


class Votes(NamedTuple):
    """What the heads say of each voxel."""

    classes: Tensor
    """`(M, K)`, logits."""

    box: Tensor
    """`(M, 6)`: the way to the centre of its object, metres, and the logarithms of that object's size."""


class Groups(NamedTuple):
    """Groups of points, each taken for one object."""

    voxels: Tensor
    """`(S,)`, the members' voxels, group by group."""

    members: Tensor
    """`(S, MEMBER_WIDTH)`, what is known of each member beside its voxel's features."""

    counts: Tensor
    """`(O,)`, members of each group, at least one."""

    shapes: Tensor
    """`(O, SHAPE_WIDTH)`, what is known of each group as a whole."""


MEMBER_WIDTH = 10
"""Where in the group's box (-1..1), height above the floor, the box's size (metres), colour (-1..1)."""

SHAPE_WIDTH = 15
"""Mean colour; shorter and longer side, height; height of bottom and top; logarithm of the number of points; how centre
and size of the box that the points vote for differ from the box around them."""


class Described(NamedTuple):
    """What the heads say of each group."""

    features: Tensor
    """`(O, D)`, of unit variance."""

    classes: Tensor
    """`(O, K)`, logits; class 0: no object."""

    colour: Tensor
    """`(O, C)`, logits of the named colours: the object's mean colour, so that features keep it."""

    rgb: Tensor
    """`(O, 3)`, the same as numbers, 0..1."""


class VoxelHead(nn.Module):
    """Per voxel: class, and box of the object it belongs to."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, num_classes)
        self.box = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 6))

    def forward(self, feat_MD: Tensor) -> tuple[Tensor, Votes]:
        """Features `(M, D)` of unit variance and what they say."""
        feat_MD = self.norm(feat_MD)
        return feat_MD, Votes(self.classes(feat_MD), self.box(feat_MD))


class ObjectHead(nn.Module):
    """Per group: class, colour and features, from its members' features and where they are in its box.

    A PointNet over the members. Voting voxel by voxel for one of some thirty classes needs far more training: few
    voxels of a chair tell that it is no stool, but its size and the spread of its points do.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.member = nn.Sequential(
            nn.Linear(width + MEMBER_WIDTH, 2 * width), nn.GELU(), nn.Linear(2 * width, 2 * width), nn.GELU()
        )
        self.group = nn.Sequential(
            nn.Linear(4 * width + SHAPE_WIDTH, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.LayerNorm(width)
        )
        self.classes = nn.Linear(width, num_classes)
        self.colour = nn.Linear(width, len(NAMED))
        self.rgb = nn.Linear(width, 3)

    def forward(self, feat_MD: Tensor, groups: Groups) -> Described:
        """Describe each group from the voxel features `(M, D)`."""
        # A look-up, for the gradient of indexing is summed by racing CPU threads.
        member_SE = self.member(torch.cat([embedding(groups.voxels, feat_MD), groups.members], dim=1))
        pooled = [torch.segment_reduce(member_SE, how, lengths=groups.counts, axis=0) for how in ("max", "mean")]
        features_OD = self.group(torch.cat([*pooled, groups.shapes], dim=1))
        return Described(features_OD, self.classes(features_OD), self.colour(features_OD), self.rgb(features_OD))
