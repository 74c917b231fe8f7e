"""Feature matching: the student's embedding is brought near the teacher's as well.

Romero et al. 2015, "FitNets: Hints for Thin Deep Nets". Where the embeddings differ in size a
linear adapter, learnt with the student and thrown away after, stands between them.
"""

from typing import cast

import torch
from torch import Tensor, nn

from tasks.training.models import Classifier


class WithEmbedding(nn.Module):
    """A student that in training gives its embedding, too; all that it learns is in its state.

    Args:
        student: the network; it is trained in place.
        wanted: numbers of the teacher's embedding.
        own: numbers of the student's.
    """

    def __init__(self, student: Classifier, own: int, wanted: int) -> None:
        super().__init__()
        self.student = student
        self.adapter = nn.Identity() if own == wanted else nn.Linear(own, wanted)

    def forward(self, x: Tensor) -> Tensor:
        """Float N×3×S×S to logits N×C; in training to N×(C + wanted), the embedding last."""
        if not self.training:
            return cast(Tensor, self.student(x))
        embedding = self.student.embed(x)
        logits = self.student.head(self.student.dropout(embedding))
        return torch.cat([logits, self.adapter(embedding)], 1)
