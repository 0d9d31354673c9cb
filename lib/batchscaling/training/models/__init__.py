"""Networks as pure functions over a dict of parameter tensors, one family a file."""

from batchscaling.training.models.base import Model
from batchscaling.training.models.cnn import simple_cnn
from batchscaling.training.models.mlp import mlp

__all__ = ["Model", "mlp", "simple_cnn"]
