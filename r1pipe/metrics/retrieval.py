"""Do a caption and the views of its object find each other? CLIP score and R@k from embeddings.

Source: Cap3D (Luo et al. 2023), whose script measures text-to-3D: each of an object's views is a query over the texts of all
objects, R@k is over all queries, and the CLIP score is 250 times the cosine. It is made for ViT-B/32 and 8 views; there is no
official script that ranks captions, so a number holds only with its gallery size, its views and its model.

Shape suffixes: N objects, V views an object, C the space's width, Q queries, G the gallery.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
TIE = 1e-6
"""Cosines nearer than this are equal: the same caption for every object must not be found by luck of rounding."""


def view_cosines(text_NC: Floats, view_NVC: Floats) -> NDArray[np.float64]:
    """Each object's mean cosine of its text with its views, `(N,)`; unit vectors in."""
    return np.asarray(np.einsum("nc,nvc->n", text_NC, view_NVC) / view_NVC.shape[1], dtype=np.float64)


def image_ranks(text_NC: Floats, view_NVC: Floats) -> NDArray[np.int64]:
    """For each view the rank of its object's text among all texts, `(N, V)`, 0 the best; equals go before it."""
    num_objects, num_views, width = view_NVC.shape
    cosine_QG = view_NVC.reshape(-1, width) @ text_NC.T
    own_Q = cosine_QG[np.arange(len(cosine_QG)), np.repeat(np.arange(num_objects), num_views)]
    return np.asarray((cosine_QG >= own_Q[:, None] - TIE).sum(axis=1) - 1).reshape(num_objects, num_views)


def text_ranks(text_NC: Floats, view_NVC: Floats) -> NDArray[np.int64]:
    """For each text the rank of its object's best view among all views, `(N,)`, 0 the best; equals of others go before it."""
    num_objects, num_views, width = view_NVC.shape
    cosine_QG = text_NC @ view_NVC.reshape(-1, width).T
    mine_QG = np.repeat(np.eye(num_objects, dtype=bool), num_views, axis=1)
    best_Q = np.where(mine_QG, cosine_QG, -np.inf).max(axis=1)
    return np.asarray(((cosine_QG >= best_Q[:, None] - TIE) & ~mine_QG).sum(axis=1))
