"""What each view is worth for a question: the three scores of the paper's Eq. 6-7, and what they are made of.

The paper's E_3D does not depend on the camera, so that every view would score the same; here E_3D(v) is taken over the points
that v sees.

Shape suffixes: V views, H rows, W columns, h, w rows and columns of patches, P points, C CLIP width, T texts.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from r1pipe.errors import DataError

Float32 = NDArray[np.float32]


def view_scores(clip_images_VC: Float32, clip_points_VC: Float32, coverage_V: Float32, text: Float32) -> Float32:
    """The scores text3d, image3d and clip of every view, `(V, 3)`; `(T, V, 3)` for texts `(T, C)`.

    - text3d: cosine of the text and E_3D(v), the CLIP features of the points that v sees;
    - image3d: mean cosine of the scene's view images and E_3D(v), times the share of surface that v adds;
    - clip: cosine of the text and the view's own image.

    All embeddings are of unit length. Each score is in -1..1.

    Raises:
        DataError: if widths or counts differ.
    """
    shapes = clip_images_VC.shape, clip_points_VC.shape, (len(coverage_V), text.shape[-1])
    if len(set(shapes)) != 1:
        raise DataError(f"Expected V images, points and shares and texts of width C, found (V, C) of {shapes}.")
    texts_TC = text.reshape(-1, text.shape[-1])
    text3d_TV = texts_TC @ clip_points_VC.T
    clip_TV = texts_TC @ clip_images_VC.T
    # The mean of cosines with unit vectors is the dot product with their mean.
    image3d_V = clip_points_VC @ clip_images_VC.mean(axis=0) * coverage_V
    image3d_TV = np.broadcast_to(image3d_V, text3d_TV.shape)
    scores_TV3 = np.stack([text3d_TV, image3d_TV, clip_TV], axis=-1, dtype=np.float32, casting="same_kind")
    return scores_TV3.reshape(*text.shape[:-1], *scores_TV3.shape[1:])


def greedy_coverage(index_VHW: NDArray[np.int32], num_points: int) -> Float32:
    """`(V,)`: the share of the scene's points that each view adds to those before it, taken greedily, most first.

    The shares add up to what all views see together. Of equal views the first one counts.
    """
    new_VP = _visible(index_VHW, num_points).toarray()
    share_V = np.zeros(len(new_VP), np.float32)
    left = list(range(len(new_VP)))
    while left:
        gains = new_VP[left].sum(axis=1)
        best = left.pop(int(gains.argmax()))
        share_V[best] = gains.max() / num_points
        new_VP &= ~new_VP[best]
    return share_V


def lift(patches_VhwC: Float32, index_VHW: NDArray[np.int32], num_points: int) -> Float32:
    """`(P, C)`: each point's mean over the views that see it of the patch it appears in; zeros for an unseen point."""
    weights = _weights(index_VHW, patches_VhwC.shape[1:3], num_points)
    return np.asarray(weights @ patches_VhwC.reshape(-1, patches_VhwC.shape[-1]), np.float32)


def embed_visible(patches_VhwC: Float32, index_VHW: NDArray[np.int32], num_points: int) -> Float32:
    """E_3D, `(V, C)`, unit length: the mean of `lift` over the points that each view sees; zeros where it sees none."""
    weights = _weights(index_VHW, patches_VhwC.shape[1:3], num_points)
    # Multiplied from the left: points x C would be gigabytes for a large scan and a large CLIP.
    mixed = _visible(index_VHW, num_points).astype(np.float32) @ weights
    sums_VC = np.asarray(mixed @ patches_VhwC.reshape(-1, patches_VhwC.shape[-1]))
    length_V1 = np.linalg.norm(sums_VC, axis=-1, keepdims=True)
    unit_VC = np.divide(sums_VC, length_V1, out=np.zeros_like(sums_VC), where=length_V1 > 0)
    return np.asarray(unit_VC, np.float32)


def _visible(index_VHW: NDArray[np.int32], num_points: int) -> csr_array:
    """`(V, P)`, whether a view sees a point."""
    view, row, column = np.nonzero(index_VHW >= 0)
    point = index_VHW[view, row, column]
    seen = csr_array((np.ones(len(point), bool), (view, point)), shape=(len(index_VHW), num_points))
    seen.sum_duplicates()
    return seen


def _weights(index_VHW: NDArray[np.int32], patches: tuple[int, int], num_points: int) -> csr_array:
    """`(P, V * h * w)`: how much of each patch goes into a point; rows add up to 1, or to 0 for an unseen point.

    Every view that sees the point counts the same, however large its splat there; within a view its pixels do.
    """
    count, height, width = index_VHW.shape
    view, row, column = np.nonzero(index_VHW >= 0)
    point = index_VHW[view, row, column].astype(np.int64)
    patch = (view * patches[0] + row * patches[0] // height) * patches[1] + column * patches[1] // width
    sighting = view * num_points + point
    share = 1 / np.bincount(sighting, minlength=count * num_points)[sighting]
    views_P = np.bincount(point, share, minlength=num_points)
    shape = (num_points, count * patches[0] * patches[1])
    return csr_array(((share / views_P[point]).astype(np.float32), (point, patch)), shape=shape)
