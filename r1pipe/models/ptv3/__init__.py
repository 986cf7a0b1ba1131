"""Point Transformer v3 (Wu et al., CVPR 2024), written anew on spconv with the authors' state-dict names."""

from r1pipe.models.ptv3.model import Encoded, PointTransformerV3

__all__ = ["PointTransformerV3", "Encoded"]
