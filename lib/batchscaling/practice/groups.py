"""Which parameters of a network are measured, and which of them together."""

from batchscaling import _validation as check

GROUPS = ("layers", "optimizer")


def groups_of(module, optimizer, kind):
    """Return the trained parameters of each group: a dict of dicts from names to parameters.

    A parameter that stands in the module twice counts once, with its first name.
    """
    kind = check.one_of("groups", kind, GROUPS)
    if kind == "optimizer" and optimizer is None:
        check.reject("optimizer", None, "an optimizer, for groups 'optimizer'")
    number = None
    if optimizer is not None:
        both = enumerate(optimizer.param_groups)
        number = {id(p): str(index) for index, group in both for p in group["params"]}
    found = {}
    for name, param in module.named_parameters():
        if param.requires_grad and (number is None or id(param) in number):
            layer = name.rpartition(".")[0] or name
            label = layer if kind == "layers" else number[id(param)]
            found.setdefault(label, {})[name] = param
    trained(found)
    return found


def trained(groups):
    """Return the parameters of each group that are trained now: a list of dicts."""
    found = [{n: p for n, p in group.items() if p.requires_grad} for group in groups.values()]
    if not any(found):
        check.reject("model", "without a parameter to train", "one that the optimizer trains")
    return found
