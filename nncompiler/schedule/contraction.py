"""Takes a contraction kernel, gives its loop nest: by the recipe for the windows that its operands
are read through, or as a product of matrices (product.py).

    no windows                              product
    3 x 3 taps without strides              winograd ..., where fewer products pay
    windows that mix no channels            depthwise
    gradients of weights, strides           gradients, unfolded
    other windows                           a product for every image, from a copy (images)
"""

from __future__ import annotations

from functools import partial

from ir.loops import Function, Kernel
from nncompiler.codegen.target import Target
from nncompiler.options import Options
from nncompiler.schedule.depthwise import find_depthwise, plan_depthwise
from nncompiler.schedule.gradients import find_image_gradient, plan_image_gradient
from nncompiler.schedule.images import plan_images, plan_whole, spread, windowed
from nncompiler.schedule.product import find_roles, plan_product
from nncompiler.schedule.transforms import BY_RESULTS, Transforms
from nncompiler.schedule.unfolded import plan_unfolded
from nncompiler.schedule.winograd import find_site, not_too_large, pays, plan_winograd
from nncompiler.schedule.winograd_dots import has_rows_of_few, plan_dots
from nncompiler.schedule.winograd_planes import has_few_channels, plan_planes
from nncompiler.schedule.winograd_weights import find_gradient, gradient_pays, plan_gradient


def plan_contraction(kernel: Kernel, target: Target, options: Options) -> tuple[Kernel, Function]:
    """The scheduled kernel and its loops."""
    number = windowed(kernel)
    if number is None:
        number = spread(kernel)
        found = None if number is None else _by_image(kernel, number, target)
        return found or plan_product(kernel, target)
    transforms = BY_RESULTS.get(options.winograd)
    fast = transforms and _by_fewer_products(kernel, number, transforms, target)
    if fast:
        return fast
    depthwise = find_depthwise(kernel, number, target)
    if depthwise is not None:
        return plan_depthwise(kernel, depthwise, target)
    found = _by_image(kernel, number, target)
    if found is not None:
        return found
    operand = kernel.reductions[0].value.args[number]
    roles = find_roles(kernel, target)
    # lanes along a staged image only where they are neighbours
    along = roles is not None and roles[3] is operand and operand.index.coefficient(roles[1]) == 1
    last = roles is not None and not along
    plan = partial(plan_contraction, options=options)
    found = plan_images(kernel, number, last=last, plan=plan, target=target)
    if found is None and operand.guards:
        return plan_whole(kernel, number, plan=plan, target=target)
    return found or plan_product(kernel, target)


def _by_image(kernel: Kernel, number: int, target: Target) -> tuple[Kernel, Function] | None:
    """The gradient of weights, or a convolution with strides, where that is what it is."""
    gradient = find_image_gradient(kernel, number)
    by_image = gradient and plan_image_gradient(kernel, gradient, target)
    return by_image or plan_unfolded(kernel, number, plan=plan_product, target=target)


def _by_fewer_products(
    kernel: Kernel, number: int, transforms: Transforms, target: Target
) -> tuple[Kernel, Function] | None:
    """By Winograd's transforms, where that is possible and pays."""
    site = find_site(kernel, number)
    if site is not None and pays(site, transforms):
        tiling = has_few_channels(kernel, site, transforms, target)
        if tiling is not None:
            return plan_planes(kernel, site, transforms, tiling, target)
        return plan_winograd(kernel, site, not_too_large(site, transforms, target), target)
    gradient = find_gradient(kernel, number)
    if gradient is not None and gradient_pays(gradient, transforms):
        if has_rows_of_few(gradient, transforms, target):
            return plan_dots(kernel, gradient, transforms, target)
        return plan_gradient(kernel, gradient, transforms, target)
    return None
