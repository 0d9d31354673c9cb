"""Networks as pure functions over a dict of parameter tensors, one family a file."""

from batchscaling.training.models.base import Model
from batchscaling.training.models.cnn import simple_cnn
from batchscaling.training.models.lstm import lstm
from batchscaling.training.models.mlp import autoencoder, mlp
from batchscaling.training.models.module import from_module
from batchscaling.training.models.resnet import resnet, resnet8, resnet20, resnet32
from batchscaling.training.models.softmax import softmax_regression
from batchscaling.training.models.transformer import transformer, transformer_lm
from batchscaling.training.models.vgg import vgg11
from batchscaling.training.models.wide_resnet import wide_resnet

__all__ = [
    "Model",
    "autoencoder",
    "from_module",
    "lstm",
    "mlp",
    "resnet",
    "resnet8",
    "resnet20",
    "resnet32",
    "simple_cnn",
    "softmax_regression",
    "transformer",
    "transformer_lm",
    "vgg11",
    "wide_resnet",
]
