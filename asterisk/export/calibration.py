"""Activation ranges from real text, and the INT8 graph built with them."""

from collections.abc import Callable

import onnx
import torch
from torch import nn

from asterisk.export import int8_graph
from modeling_asterisk import AsteriskModel


def calibrate(model: AsteriskModel, token_ids: list[list[int]]) -> dict[str, tuple[float, float]]:
    """Return the least and the largest input of each linear layer over token sequences, by the layer's name."""
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[torch.Tensor]], None]:
        def note(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, inputs[0].min().item()), max(high, inputs[0].max().item())

        return note

    linear = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear))
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linear]
    with torch.no_grad():
        for ids in token_ids:
            model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return ranges


def build_int8(
    model: AsteriskModel, calibration: list[list[int]], weight_limit: int = int8_graph.WEIGHT_LIMIT
) -> onnx.ModelProto:
    """Build the INT8 form of a model, its activation ranges calibrated on token sequences."""
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    heads, epsilon = model.config.num_attention_heads, model.config.layer_norm_eps
    return int8_graph.build(weights, calibrate(model, calibration), heads, epsilon, weight_limit)
