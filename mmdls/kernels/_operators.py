"""Convolutions, group normalisation and a small network as operators of torch, with gradients.

Each takes the ``way`` in which it is computed, so that gradients are computed as the outputs were.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmdls.kernels._ways import library

__all__ = ["antialiased_operator", "conv3x3_operator", "group_norm_operator", "pair_sum_operator", "stem_operator"]


# Torch keeps operators as long as the process: where the package is imported anew, they are there already.
_IS_NEW = not hasattr(torch.ops.mmdls, "conv3x3")


def _operator(name: str) -> Callable[[Callable], Any]:
    """A function as an operator of torch.

    What ``torch.library.custom_op`` makes imports torch's compiler at the first call, which takes a second or two.
    """

    def register(function: Callable) -> Any:
        if _IS_NEW:
            schema = torch.library.infer_schema(function, mutates_args=())
            torch.library.define(f"mmdls::{name}", schema, tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.impl(f"mmdls::{name}", "CompositeExplicitAutograd", function)
        return getattr(torch.ops.mmdls, name).default

    return register


def _shapes_of(name: str) -> Callable[[Callable], Callable]:
    """A function that gives the outputs of an operator without their values, for torch's compiler."""

    def register(function: Callable) -> Callable:
        return torch.library.register_fake(f"mmdls::{name}", function) if _IS_NEW else function

    return register


def _register_gradient(name: str, differentiate: Callable, save: Callable) -> None:
    if _IS_NEW:
        torch.library.register_autograd(f"mmdls::{name}", differentiate, setup_context=save)


@_operator("conv3x3")
def conv3x3_operator(image: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, way: str) -> Tensor:
    """(N, C, H, W), weights (D, C, 3, 3), bias (D,) -> (N, D, H, W), with or without ReLU."""
    if way == "nnpack":
        out = torch._nnpack_spatial_convolution(image.contiguous(), weight.contiguous(), bias, [1, 1], [1, 1])
        return out.relu_() if relu else out
    image, bias = _channels_last(image), None if bias is None else bias.contiguous()
    n, channels, height, width = image.shape
    out = _empty(n, len(weight), height, width)
    size = n, height, width, channels, len(weight)
    _run(library(way).mmdls_conv3x3, _at(image), *size, *_filters(weight), False, _at(bias), relu, _at(out))
    return out


@_shapes_of("conv3x3")
def _(image: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, way: str) -> Tensor:
    n, _, height, width = image.shape
    if way == "nnpack":
        return image.new_empty(n, len(weight), height, width)
    return image.new_empty(n, height, width, len(weight)).permute(0, 3, 1, 2)


@_operator("conv3x3_gradient")
def _gradient_operator(
    image: Tensor, weight: Tensor, gradient: Tensor, image_too: bool, way: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the weights, of the bias and, where asked for, of the image; otherwise that is empty."""
    if way == "nnpack":
        wanted = [image_too, True, True]
        of_image, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient, image, weight, [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
        )
        return of_weight, of_bias, of_image if image_too else image.new_empty(0)
    image, gradient = _channels_last(image), _channels_last(gradient)
    n, channels, height, width = image.shape
    size = n, height, width, channels, len(weight)
    of_weight, of_bias = torch.empty_like(weight), weight.new_empty(len(weight))
    _run(library(way).mmdls_conv3x3_gradient, _at(image), _at(gradient), *size, *_filters(of_weight), _at(of_bias))
    if not image_too:
        return of_weight, of_bias, image.new_empty(0)
    of_image = _empty(n, channels, height, width)
    size = n, height, width, len(weight), channels
    _run(library(way).mmdls_conv3x3, _at(gradient), *size, *_filters(weight), True, None, False, _at(of_image))
    return of_weight, of_bias, of_image


@_shapes_of("conv3x3_gradient")
def _(image: Tensor, weight: Tensor, gradient: Tensor, image_too: bool, way: str) -> tuple[Tensor, Tensor, Tensor]:
    of_image = torch.empty_like(image) if image_too else image.new_empty(0)
    return torch.empty_like(weight), weight.new_empty(len(weight)), of_image


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    image, weight, bias, ctx.relu, ctx.way = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(image, weight, output if ctx.relu else None)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    image, weight, output = ctx.saved_tensors
    if ctx.relu:
        gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
    wanted = ctx.needs_input_grad
    of_weight, of_bias, of_image = _gradient_operator(image, weight, gradient, wanted[0], ctx.way)
    return of_image if wanted[0] else None, of_weight, of_bias if ctx.has_bias else None, None, None


_register_gradient("conv3x3", _differentiate, _save)


@_operator("conv3x3_pair_sum")
def pair_sum_operator(
    image: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, keep: bool, way: str
) -> tuple[Tensor, Tensor]:
    """Two layers with ReLU and the sums over the pixels of the second one's map.

    (N, C, H, W), weights (D, C, 3, 3) and (E, D, 3, 3) -> sums (N, E), and one bit for each number of the map, which
    says whether it is positive: bytes (N, H, W, ...), empty if they are not kept for the gradient.
    """
    image, native = _channels_last(image), library(way)
    n, channels, height, width = image.shape
    sums = torch.empty(n, len(weight2), dtype=torch.float32)
    n_bytes = native.mmdls_mask_bytes(len(weight2)) if keep else 0
    positive = torch.empty(n, height, width, n_bytes, dtype=torch.uint8)
    bias1, bias2 = bias1.contiguous(), bias2.contiguous()
    size = n, height, width, channels, len(weight1), len(weight2)
    layers = *_filters(weight1), _at(bias1), *_filters(weight2), _at(bias2)
    _run(native.mmdls_pair_sum, _at(image), *size, *layers, _at(sums), _at(positive) if keep else None)
    return sums, positive


@_shapes_of("conv3x3_pair_sum")
def _(
    image: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, keep: bool, way: str
) -> tuple[Tensor, Tensor]:
    n, _, height, width = image.shape
    n_bytes = library(way).mmdls_mask_bytes(len(weight2)) if keep else 0
    return image.new_empty(n, len(weight2)), image.new_empty(n, height, width, n_bytes, dtype=torch.uint8)


@_operator("conv3x3_pair_sum_gradient")
def _pair_gradient_operator(
    image: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, positive: Tensor, gradient: Tensor, way: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the weights and biases of both layers."""
    image, gradient, bias1 = _channels_last(image), gradient.contiguous(), bias1.contiguous()
    n, channels, height, width = image.shape
    found = _empty_like_parameters(weight1, weight2)
    size = n, height, width, channels, len(weight1), len(weight2)
    layers = *_filters(weight1), _at(bias1), *_filters(weight2)
    into = [_at(tensor) for tensor in found]
    _run(library(way).mmdls_pair_sum_gradient, _at(image), *size, *layers, _at(positive), _at(gradient), *into)
    return found


@_shapes_of("conv3x3_pair_sum_gradient")
def _(
    image: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, positive: Tensor, gradient: Tensor, way: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_like_parameters(weight1, weight2)


def _empty_like_parameters(weight1: Tensor, weight2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    one, two = weight1.new_empty(weight1.shape), weight2.new_empty(weight2.shape)
    return one, one.new_empty(len(one)), two, two.new_empty(len(two))


def _save_pair(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, _, _, ctx.way = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate_pair(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return None, *_pair_gradient_operator(*ctx.saved_tensors, gradient, ctx.way), None, None


_register_gradient("conv3x3_pair_sum", _differentiate_pair, _save_pair)


@_operator("group_norm")
def group_norm_operator(
    image: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, added: Tensor | None, relu: bool, way: str
) -> tuple[Tensor, Tensor]:
    """Maps (N, C, H, W), normalised, + added, perhaps with ReLU; and mean and 1 / deviation of each group (N, 2, G)."""
    n, channels, height, width = image.shape
    image, added = _channels_last(image), None if added is None else _channels_last(added)
    out, moments = _empty(n, channels, height, width), torch.empty(n, 2, groups, dtype=torch.float64)
    size, parameters = (n, height * width, channels, groups), (weight.contiguous(), bias.contiguous())
    layer = *map(_at, parameters), eps, _at(added), relu
    _run(library(way).mmdls_group_norm, _at(image), *size, *layer, _at(out), _at(moments))
    return out, moments


@_shapes_of("group_norm")
def _(
    image: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, added: Tensor | None, relu: bool, way: str
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(image, memory_format=torch.channels_last)
    return out, image.new_empty(len(image), 2, groups, dtype=torch.float64)


@_operator("group_norm_gradient")
def _norm_gradient_operator(
    image: Tensor, weight: Tensor, out: Tensor | None, moments: Tensor, gradient: Tensor, added_too: bool, way: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of image, weight, bias, and what was added, empty if not asked for; ``out`` is that of ReLU or None."""
    image, gradient, weight = _channels_last(image), _channels_last(gradient), weight.contiguous()
    out = None if out is None else _channels_last(out)
    n, channels, height, width = image.shape
    found = _empty_like_norm(image, weight, added_too)
    of_image, of_weight, of_bias, of_added = found
    into = _at(of_image), _at(of_added) if added_too else None, _at(of_weight), _at(of_bias)
    size = n, height * width, channels, moments.shape[2]
    given = _at(weight), _at(out), _at(gradient), _at(moments)
    _run(library(way).mmdls_group_norm_gradient, _at(image), *size, *given, *into)
    return found


@_shapes_of("group_norm_gradient")
def _(
    image: Tensor, weight: Tensor, out: Tensor | None, moments: Tensor, gradient: Tensor, added_too: bool, way: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_like_norm(image, weight, added_too)


def _empty_like_norm(image: Tensor, weight: Tensor, added_too: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_image = torch.empty_like(image, memory_format=torch.channels_last)
    of_added = torch.empty_like(of_image) if added_too else image.new_empty(0)
    return of_image, weight.new_empty(len(weight)), weight.new_empty(len(weight)), of_added


def _save_norm(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    image, _, weight, _, _, _, relu, ctx.way = inputs
    out, moments = output
    ctx.save_for_backward(image, weight, out if relu else None, moments)
    ctx.mark_non_differentiable(moments)


def _differentiate_norm(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    added_too = ctx.needs_input_grad[5]
    of_image, of_weight, of_bias, of_added = _norm_gradient_operator(*ctx.saved_tensors, gradient, added_too, ctx.way)
    return of_image, None, of_weight, of_bias, None, of_added if added_too else None, None, None


_register_gradient("group_norm", _differentiate_norm, _save_norm)


# Bytes of the map, which is not kept, of those images of a stem that are computed at once.
_STEM_BYTES = 8 * 2**20


@_operator("stem")
def stem_operator(
    image: Tensor, weight: Tensor, groups: int, norm_weight: Tensor, norm_bias: Tensor, eps: float, keep: bool, way: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The maps that :func:`stem` gives, (N, D, H / 4, W / 4); mean and 1 / deviation of each group (N, 2, G).

    And which of 9 pixels each number of the maps is: bytes (N, H / 4, W / 4, D), empty if not kept for the gradient.
    """
    image, weight = _channels_last(image), _channels_last(weight)
    norm_weight, norm_bias = norm_weight.contiguous(), norm_bias.contiguous()
    n, channels, height, width = _stem_shape(image, weight)
    out = _empty(n, channels, (height + 1) // 2, (width + 1) // 2)
    moments = torch.empty(n, 2, groups, dtype=torch.float64)
    chosen = torch.empty(n if keep else 0, *out.shape[2:], channels, dtype=torch.uint8)
    for part in _stem_parts(n, channels, height, width):
        inner = _stem_map(image[part], weight)
        layer = groups, _at(norm_weight), _at(norm_bias), eps
        into = _at(out[part]), _at(moments[part]), _at(chosen[part]) if keep else None
        _run(library(way).mmdls_pooled_norm, _at(inner), len(inner), height, width, channels, *layer, *into)
    return out, moments, chosen


@_shapes_of("stem")
def _(
    image: Tensor, weight: Tensor, groups: int, norm_weight: Tensor, norm_bias: Tensor, eps: float, keep: bool, way: str
) -> tuple[Tensor, Tensor, Tensor]:
    n, channels, height, width = _stem_shape(image, weight)
    out = image.new_empty(n, (height + 1) // 2, (width + 1) // 2, channels)
    chosen = image.new_empty(n if keep else 0, *out.shape[1:], dtype=torch.uint8)
    return out.permute(0, 3, 1, 2), image.new_empty(n, 2, groups, dtype=torch.float64), chosen


def _stem_shape(image: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
    """Of the map that is normalised."""
    height, width = ((length + 1) // 2 for length in image.shape[2:])
    return len(image), len(weight), height, width


def _stem_parts(n: int, channels: int, height: int, width: int) -> list[slice]:
    size = max(_STEM_BYTES // (4 * channels * height * width), 1)
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def _stem_map(image: Tensor, weight: Tensor) -> Tensor:
    padding = weight.shape[2] // 2
    return _channels_last(torch.conv2d(image, weight, stride=2, padding=padding))


@_operator("stem_gradient")
def _stem_gradient_operator(
    image: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    moments: Tensor,
    chosen: Tensor,
    gradient: Tensor,
    image_too: bool,
    way: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of weight, norm_weight, norm_bias and, where asked for, of the image; otherwise that is empty."""
    image, filters, gradient = _channels_last(image), _channels_last(weight), _channels_last(gradient)
    norm_weight = norm_weight.contiguous()
    n, channels, height, width = _stem_shape(image, filters)
    padding, groups = filters.shape[2] // 2, moments.shape[2]
    of_image = torch.empty_like(image) if image_too else image.new_empty(0)
    found = torch.zeros_like(weight), torch.zeros_like(norm_weight), torch.zeros_like(norm_weight)
    own = [torch.empty_like(each) for each in found[1:]]
    for part in _stem_parts(n, channels, height, width):
        inner = _stem_map(image[part], filters)
        slope = torch.empty_like(inner)
        given = _at(norm_weight), _at(chosen[part]), _at(gradient[part]), _at(moments[part])
        size = len(inner), height, width, channels, groups
        _run(library(way).mmdls_pooled_norm_gradient, _at(inner), *size, *given, _at(slope), *map(_at, own))
        added = torch.ops.aten.convolution_backward(
            slope, image[part], filters, None, [2, 2], [padding] * 2, [1, 1], False, [0, 0], 1, [image_too, True, False]
        )
        for total, each in zip(found, (added[1], *own), strict=True):
            total += each
        if image_too:
            of_image[part] = added[0]
    return *found, of_image


@_shapes_of("stem_gradient")
def _(
    image: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    moments: Tensor,
    chosen: Tensor,
    gradient: Tensor,
    image_too: bool,
    way: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_image = torch.empty_like(image) if image_too else image.new_empty(0)
    of_norm = norm_weight.new_empty(len(norm_weight)), norm_weight.new_empty(len(norm_weight))
    return torch.empty_like(weight), *of_norm, of_image


def _save_stem(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    image, weight, _, norm_weight, _, _, _, ctx.way = inputs
    _, *kept = output
    ctx.save_for_backward(image, weight, norm_weight, *kept)
    ctx.mark_non_differentiable(*kept)


def _differentiate_stem(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    image_too = ctx.needs_input_grad[0]
    found = _stem_gradient_operator(*ctx.saved_tensors, gradient, image_too, ctx.way)
    of_weight, of_norm_weight, of_norm_bias, of_image = found
    return of_image if image_too else None, of_weight, None, of_norm_weight, of_norm_bias, None, None, None


_register_gradient("stem", _differentiate_stem, _save_stem)


@_operator("antialiased_sums")
def antialiased_operator(
    image: Tensor, parameters: list[Tensor], eps: float, keep: bool, way: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sums over pixels that :func:`antialiased_sums` gives (N, D); and what is kept for the gradient.

    That is blurred maps (M, numbers), mean and 1 / deviation of each (M, stages, 2), and one bit for each number of the
    other maps, which says whether it passes ReLU: bytes (M / 8, numbers). M is N, made up to full vectors of images.
    All are empty if they are not kept.
    """
    image, parameters = image.contiguous(), _each_contiguous(parameters)
    found = sums, *kept = _found(image, parameters, keep)
    into = [_at(tensor) if keep else None for tensor in kept]
    _run(library(way).mmdls_antialiased, *_network(image, parameters), eps, _at(sums), *into)
    return found


@_shapes_of("antialiased_sums")
def _(
    image: Tensor, parameters: list[Tensor], eps: float, keep: bool, way: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _found(image, parameters, keep)


def _found(image: Tensor, parameters: list[Tensor], keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, _, height, width = image.shape
    depth, layers = _layers(parameters)
    channels = n_blurred = n_found = 0
    for found in layers:
        height, width = (height + 1) // 2, (width + 1) // 2
        n_blurred += channels * height * width
        n_found += found * height * width
        channels += found
    at_once = 8 if n <= 8 else 16
    n_kept, stages = (-(-n // at_once) * at_once, depth - 1) if keep else (0, 0)
    moments = image.new_empty(n_kept, stages, 2, dtype=torch.float64)
    passing = image.new_empty(n_kept // 8, n_found, dtype=torch.uint8)
    return image.new_empty(n, channels), image.new_empty(n_kept, n_blurred), moments, passing


@_operator("antialiased_sums_gradient")
def _antialiased_gradient_operator(
    image: Tensor,
    parameters: list[Tensor],
    blurred: Tensor,
    moments: Tensor,
    passing: Tensor,
    gradient: Tensor,
    way: str,
) -> list[Tensor]:
    """Gradients of the parameters."""
    image, parameters, gradient = image.contiguous(), _each_contiguous(parameters), gradient.contiguous()
    found = _empty_like_each(parameters)
    given = *map(_at, (blurred, moments, passing, gradient)), _pointers(found)
    _run(library(way).mmdls_antialiased_gradient, *_network(image, parameters), *given)
    return found


@_shapes_of("antialiased_sums_gradient")
def _(
    image: Tensor,
    parameters: list[Tensor],
    blurred: Tensor,
    moments: Tensor,
    passing: Tensor,
    gradient: Tensor,
    way: str,
) -> list[Tensor]:
    return _empty_like_each(parameters)


def _network(image: Tensor, parameters: list[Tensor]) -> tuple[Any, ...]:
    n, channels, height, width = image.shape
    return _at(image), n, height, width, channels, *_layers(parameters), _pointers(parameters)


def _layers(parameters: list[Tensor]) -> tuple[int, Any]:
    """How many layers there are, and the channels that each finds."""
    found = [len(parameters[0]), *map(len, parameters[4::4])]
    return len(found), (ctypes.c_int * len(found))(*found)


def _pointers(tensors: list[Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*map(_at, tensors))


def _each_contiguous(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def _empty_like_each(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]


def _save_antialiased(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    image, parameters, _, _, ctx.way = inputs
    _, *kept = output
    ctx.save_for_backward(image, *kept, *parameters)
    ctx.mark_non_differentiable(*kept)


def _differentiate_antialiased(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Any, ...]:
    image, blurred, moments, passing, *parameters = ctx.saved_tensors
    found = _antialiased_gradient_operator(image, parameters, blurred, moments, passing, gradient, ctx.way)
    return None, found, None, None, None


_register_gradient("antialiased_sums", _differentiate_antialiased, _save_antialiased)


def _channels_last(image: Tensor) -> Tensor:
    """The same numbers, the channels of a pixel beside each other, all one after another."""
    n, channels, height, width = image.shape
    # is_contiguous() calls maps of one channel, or of one pixel, contiguous whatever their strides are.
    if image.stride() == (channels * height * width, 1, channels * width, channels):
        return image
    return _empty(n, channels, height, width).copy_(image)


def _empty(n: int, channels: int, height: int, width: int) -> Tensor:
    # Not a permuted tensor: what is a view of another cannot be changed in place, as by the ReLU of a user's network.
    strides = channels * height * width, 1, channels * width, channels
    return torch.empty_strided((n, channels, height, width), strides, dtype=torch.float32)


def _filters(weight: Tensor) -> tuple[int, Any]:
    return _at(weight), (ctypes.c_int64 * 4)(*weight.stride())


def _at(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.data_ptr()


def _run(function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments, torch.get_num_threads()):
        raise MemoryError("not enough memory for a convolution; give smaller micro-batches or images.")
