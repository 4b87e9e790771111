"""Translates a module into rules, or says which part has none.

The module is traced once (torch.fx), so any style works: nn.Sequential, a class with a shortcut, calls of
torch.nn.functional. Every step of its forward pass must be a layer or a function of `layers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn
from torch.fx import Node, Tracer
from torch.fx.proxy import TraceError

from clients.stacked.embedding import EmbeddingRule
from clients.stacked.layers import refuse_what_is_not_traced, rule_of_function, rule_of_layer
from clients.stacked.pointwise import PointwiseRule
from clients.stacked.pooling import MaxPoolRule
from clients.stacked.rule import NotStackable, Rule
from clients.stacked.shapes import WholeNumbersRule
from fedopt.vectors.layout import Layout

UNTRACEABLE = (TraceError, TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)
"""What a forward pass may raise when it gets tracing proxies instead of tensors."""


@dataclass(frozen=True)
class Step:
    """One rule and the sources of its inputs: numbers of earlier steps, or SAMPLES for the batch."""

    rule: Rule
    inputs: tuple[int, ...]


SAMPLES = -1


def recognize(module: nn.Module, layout: Layout) -> list[Step]:
    """The steps of the module's forward pass, in order; NotStackable if one has no rule."""
    for path, part in module.named_modules():
        refuse_what_is_not_traced(part, path)
    try:
        nodes = list(Tracer().trace(module).nodes)
    except UNTRACEABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotStackable(f"its forward pass cannot be traced: {reason}") from error
    steps: list[Step] = []
    numbers: dict[Node, int] = {}
    for node in nodes:
        if node.op == "placeholder":
            if numbers:
                raise NotStackable("its forward pass takes more than one input")
            numbers[node] = SAMPLES
        elif node.op == "output":
            if not isinstance(node.args[0], Node) or numbers[node.args[0]] != len(steps) - 1:
                raise NotStackable("its output is not that of its last layer")
        else:
            sources = [argument for argument in node.args if isinstance(argument, Node)]
            numbers[node] = len(steps)
            steps.append(Step(_rule(node, module), tuple(numbers[source] for source in sources)))
    used = {source for step in steps for source in step.inputs}
    if not used.issuperset(range(len(steps) - 1)):
        raise NotStackable("its forward pass computes what it does not use")
    _require_own_parameters(steps, layout)
    _require_whole_numbers_for_tables(steps)
    return _pool_before_relu(steps)


def _rule(node: Node, module: nn.Module) -> Rule:
    if node.op == "call_module":
        if len(node.args) != 1 or node.kwargs:
            raise NotStackable(f"{node.target} is called with more than its input")
        return rule_of_layer(module.get_submodule(str(node.target)), str(node.target))
    if node.op not in ("call_function", "call_method"):
        raise NotStackable(f"{node.target} is used outside a layer")
    tensors = [argument for argument in node.args if isinstance(argument, Node)]
    others = node.args[len(tensors) :]
    named = node.kwargs
    if any(isinstance(value, Node) for value in (*others, *named.values())):
        raise NotStackable(f"{node.name} is called in a way that has no rule")
    rule = rule_of_function(node.target, others, named)
    if len(tensors) != rule.takes:
        raise NotStackable(f"{node.name} is called in a way that has no rule")
    return rule


def _require_own_parameters(steps: list[Step], layout: Layout) -> None:
    """Each trainable parameter belongs to one step, and steps own no others."""
    owned = [name for step in steps for name in step.rule.names]
    for name in owned:
        if name not in layout.names:
            raise NotStackable(f"{name} is frozen, or shared between layers")
        if owned.count(name) > 1:
            raise NotStackable(f"{name} is used twice")
    for name in layout.names:
        if name not in owned:
            raise NotStackable(f"{name} takes no part")


def _require_whole_numbers_for_tables(steps: list[Step]) -> None:
    """The rule of x.long() leaves samples unchanged, so only an Embedding, which truncates itself, may read them."""
    for number, step in enumerate(steps):
        if isinstance(step.rule, WholeNumbersRule):
            readers = [other.rule for other in steps if number in other.inputs]
            if not readers or not all(isinstance(rule, EmbeddingRule) for rule in readers):
                raise NotStackable("a conversion to whole numbers has no rule but in front of an Embedding")


def _pool_before_relu(steps: list[Step]) -> list[Step]:
    """Swaps ReLU and max pooling: the result is the same to the bit, and ReLU has a quarter of the work."""
    steps = list(steps)
    for number, (step, after) in enumerate(pairwise(steps)):
        alone = sum(number in other.inputs for other in steps) == 1
        is_relu = isinstance(step.rule, PointwiseRule) and step.rule.is_relu
        if is_relu and isinstance(after.rule, MaxPoolRule) and after.inputs == (number,) and alone:
            steps[number : number + 2] = [Step(after.rule, step.inputs), Step(step.rule, (number,))]
    return steps
