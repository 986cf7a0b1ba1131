"""Embeddings of the tokens that a pretrained language model does not know, trained while its own table stays frozen.

The tags and the identifiers are added to a pretrained vocabulary. Adapters leave both of its matrices alone, so without
rows of their own these tokens would stay what they were filled with: with a padded vocabulary, what its makers never
trained.

Shape suffixes: B batch, L text length, T added tokens, V vocabulary, D language width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Head(NamedTuple):
    """What TRL's fused head reads of a language-model head."""

    weight: Tensor
    """`(V, D)`."""

    bias: None = None


class TokenRows(nn.Module):
    """The rows of some tokens, in float32, in place of those of a table."""

    def __init__(self, token_ids: Sequence[int], width: int) -> None:
        """`token_ids` in ascending order."""
        super().__init__()
        self.token_ids = list(token_ids)
        self.weight = nn.Parameter(torch.zeros(len(token_ids), width))

    def ids(self, device: torch.device) -> Tensor:
        """`(T,)`."""
        return torch.tensor(self.token_ids, device=device)

    def forward(self, embeds_BLD: Tensor, ids_BL: Tensor) -> Tensor:
        """The embeddings of a text, with these rows where it has these tokens."""
        ids_T = self.ids(ids_BL.device)
        row_BL = torch.searchsorted(ids_T, ids_BL.contiguous()).clamp(max=len(ids_T) - 1)
        is_added_BL1 = (ids_T[row_BL] == ids_BL).unsqueeze(-1)
        return torch.where(is_added_BL1, self.weight[row_BL].to(embeds_BLD.dtype), embeds_BLD)

    def table(self, weight_VD: Tensor) -> Tensor:
        """The whole table: a copy, so that the gradient of a product with it reaches the rows."""
        return weight_VD.index_copy(0, self.ids(weight_VD.device), self.weight.to(weight_VD.dtype))

    def logits(self, logits_BLV: Tensor, hidden_BLD: Tensor) -> Tensor:
        """The logits with those of these tokens put in: what a product with `table` gives, without the copy."""
        own_BLT = hidden_BLD @ self.weight.to(hidden_BLD.dtype).T
        return logits_BLV.index_copy(-1, self.ids(logits_BLV.device), own_BLT.to(logits_BLV.dtype))
