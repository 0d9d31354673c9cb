"""Numbers and parameters that are drawn in double precision, the same in each call."""

import torch


def normal(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def integers(high, *shape):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


def drawn(model):
    params = model.init(torch.Generator().manual_seed(0))
    return {name: p.double() + 0.2 * normal(*p.shape, seed=2) for name, p in params.items()}
