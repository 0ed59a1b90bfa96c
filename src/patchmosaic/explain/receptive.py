"""What the estimate of the centre pixel depends on (Kamb & Ganguli 2025, fig. 4a).

It is the derivative of the clean estimate D that counts, not of the noise estimate: eps = (x - sqrt(ab) D) /
sqrt(1 - ab) holds the pixel itself whatever is looked at, and at high noise little else. The centre of an image is
the pixel (H // 2, W // 2).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.denoiser import PREDICTIONS, FunctionDenoiser, check_images, signal_and_noise
from patchmosaic.engines.windows import Frame, features, local_frame, pad, scaled
from patchmosaic.errors import InputError
from patchmosaic.machine import ScoreMachine
from patchmosaic.nets import Network
from patchmosaic.posterior import empty, finalize, update
from patchmosaic.symmetry import position_blocks

_BYTES_PER_NUMBER = 32  # a float64 with the copies made on its way
_ROUNDING = 1e-12  # covariances below are taken for 0


def network_jacobian(
    network: Network | FunctionDenoiser,
    x: Float[Tensor, "b c h w"],
    alpha_bar: float,
    labels: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b o c h w"]:
    """The derivative of D at the centre pixel, channel o, with respect to each pixel of the noisy images.

    Args:
        network: differentiated by autograd.
        x: noisy images.
        alpha_bar: signal share in (0, 1).
        labels: one class per image, or None.

    Returns:
        In float64, on the CPU.

    Raises:
        InputError: as its ``denoise``; also for another denoiser, or a function that autograd cannot follow.
    """
    if not isinstance(network, Network | FunctionDenoiser):
        raise InputError(
            f"network_jacobian takes a Network or a FunctionDenoiser, not {type(network).__name__}: "
            "machine_jacobian is for a machine"
        )
    check_images(x)
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        output = network.output(x, alpha_bar, labels)
        if not output.requires_grad:
            raise InputError(
                "the network's output has no gradient: let its function run without torch.no_grad()"
            )
        mean = PREDICTIONS[network.predicts](output, x, *signal_and_noise(alpha_bar, x))
        centre = mean[:, :, x.shape[2] // 2, x.shape[3] // 2].sum(0)
        rows = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in centre]
    return torch.stack(rows, 1).double().cpu()


@torch.no_grad()
def machine_jacobian(
    machine: ScoreMachine,
    x: Float[Tensor, "b c h w"],
    alpha_bar: float,
    window: int,
    labels: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b o c h w"]:
    """:func:`network_jacobian` of a machine that sees ``window``, in closed form.

    The logits are -|phi - sqrt(ab) psi|^2 / (2 (1 - ab)), so that for a pixel v of the window
    d D_o / d phi_c(v) = sqrt(ab) / (1 - ab) Cov(psi_o(0), psi_c(v)), under the posterior weights of the patches psi
    that may stand in for the centre. A wrapped window that sees a pixel twice counts it twice.
    """
    jacobian = torch.zeros(x.shape[0], x.shape[1], *x.shape[1:], dtype=torch.float64)
    groups = [None] * len(x) if labels is None else labels.tolist()
    for label in dict.fromkeys(groups):
        rows = [i for i, group in enumerate(groups) if group == label]
        jacobian[rows] = _of_class(machine, x[rows], alpha_bar, window, label)
    return jacobian


def _of_class(
    machine: ScoreMachine, x: Tensor, alpha_bar: float, window: int, label: int | None
) -> Float[Tensor, "b o c h w"]:
    dictionary, rules = machine.dictionary, machine.rules
    channels, height, width = dictionary.shape
    frame = local_frame(height, width, window, rules.padding)
    centre = torch.tensor([[height // 2 * width + width // 2]])
    keys = next(
        block.keys[(block.queries == centre).any(1)]
        for block in position_blocks(height, width, window, rules)
        if bool((block.queries == centre).any())
    )
    phi = features(pad(x.to(dictionary.device).double(), frame), frame, centre)
    queries = scaled(phi, alpha_bar, 1 - alpha_bar)[0]
    size = phi.shape[2]
    middle = torch.arange(channels) * frame.height * frame.width + frame.top * frame.width + frame.left
    numbers = keys.numel() * (1 + channels) * size
    at_once = max(1, machine.engine.memory_budget // (_BYTES_PER_NUMBER * numbers))
    state = empty((len(x),), (1 + channels) * size, phi.device)
    for _, images in dictionary.chunks(dictionary.members(label), at_once, torch.float64):
        psi = features(pad(images, frame), frame, keys)[0]
        products = (psi[:, middle, None] * psi[:, None]).flatten(1)
        logits = queries @ torch.cat([psi, psi.square().sum(1, keepdim=True)], 1).T
        state = update(state, logits, torch.cat([psi, products], 1))
    means = finalize(state).cpu()
    first, second = means[:, :size], means[:, size:].view(-1, channels, size)
    covariance = second - first[:, middle, None] * first[:, None]
    covariance = covariance.masked_fill(covariance.abs() < _ROUNDING, 0.0)
    shape = (len(x), channels, channels, frame.height, frame.width)
    return alpha_bar**0.5 / (1 - alpha_bar) * _onto_image(covariance.view(shape), frame, height, width)


def _onto_image(
    windows: Float[Tensor, "b o c h2 w2"], frame: Frame, height: int, width: int
) -> Float[Tensor, "b o c h w"]:
    """The window around the centre pixel, put where it is in the image."""
    for dim, size, first in ((3, height, frame.top), (4, width, frame.left)):
        places = torch.arange(windows.shape[dim]) - first + size // 2
        inside = ((places >= 0) & (places < size)) | (frame.padding == "circular")
        image = windows.new_zeros(*windows.shape[:dim], size, *windows.shape[dim + 1 :])
        found = windows.index_select(dim, inside.nonzero().flatten())
        windows = image.index_add(dim, places[inside] % size, found)
    return windows


def receptive_field(jacobian: Float[Tensor, "b o c h w"]) -> Float[Tensor, "h w"]:
    """The mean over samples of absolute derivatives, summed over output and input channels."""
    return jacobian.abs().sum((1, 2)).mean(0)


def effective_width(field: Float[Tensor, "h w"]) -> float:
    """The side, in pixels, of the uniform square with the same second moment around the centre pixel.

    For weights w and distances (i, j) from the centre it is sqrt(12 m + 1) with m = sum w (i^2 + j^2) / (2 sum w):
    P for a uniform P x P square, 1 for a single pixel, NaN for a field of zeros.
    """
    height, width = field.shape
    rows = (torch.arange(height) - height // 2).double().square()[:, None]
    columns = (torch.arange(width) - width // 2).double().square()
    moment = (field * (rows + columns)).sum() / (2 * field.sum())
    return float((12 * moment + 1).sqrt())


def rank_correlation(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Spearman's: Pearson's r of the ranks, equals sharing their mean rank; NaN where one does not vary."""
    from scipy.stats import rankdata

    ranks = torch.tensor([rankdata(a).tolist(), rankdata(b).tolist()], dtype=torch.float64)
    return float(torch.corrcoef(ranks)[0, 1])
