"""What the paper reports, row by row, and how much of it to do."""

from dataclasses import dataclass

SIZE = 32  # pixels to a side, in all rows


@dataclass(frozen=True)
class Images:
    """A data set of the paper.

    Attributes:
        source: where to get it, as ``--data`` takes it; None: the user must say.
        needs: what it is, in words.
    """

    source: str | None
    needs: str


IMAGES = {
    "mnist": Images("hub:ylecun/mnist", "the 60,000 training images of MNIST"),
    "fashionmnist": Images(
        "hub:zalando-datasets/fashion_mnist", "the 60,000 training images of Fashion-MNIST"
    ),
    "cifar10": Images("hub:uoft-cs/cifar10", "the 50,000 training images of CIFAR-10"),
    "celeba": Images(
        None, "CelebA's 202,599 aligned faces (img_align_celeba), as a folder of images or a parquet"
    ),
}


@dataclass(frozen=True)
class Row:
    """A row of the table of Kamb & Ganguli (2025): medians of r over 100 seeds, theory in 20 steps.

    Attributes:
        images: a key of ``IMAGES``.
        network: as ``patchmosaic train --network`` takes it.
        padding: "zeros" or "circular".
        conditional: whether network and theory draw a class.
        paper: the paper's figures for "ELS" (boundary-broken for zeros), "LS" and "IS", each with the network in
            150 and in 20 steps.
    """

    images: str
    network: str
    padding: str
    conditional: bool
    paper: dict[str, tuple[float, float]]

    @property
    def machines(self) -> dict[str, str]:
        """Our name of each machine in the paper's columns."""
        return {"ELS": "bbels" if self.padding == "zeros" else "els", "LS": "ls", "IS": "is"}


def _row(images: str, network: str, padding: str, conditional: bool, *figures: float) -> Row:
    names = ("ELS", "LS", "IS")
    paper = {name: (figures[2 * i], figures[2 * i + 1]) for i, name in enumerate(names)}
    return Row(images, network, padding, conditional, paper)


ROWS: dict[str, Row] = {
    "mnist-unet-zeros": _row("mnist", "unet", "zeros", False, 0.89, 0.84, 0.88, 0.83, 0.70, 0.69),
    "cifar10-unet-zeros": _row("cifar10", "unet", "zeros", True, 0.90, 0.82, 0.87, 0.80, 0.41, 0.39),
    "fashionmnist-unet-zeros": _row(
        "fashionmnist", "unet", "zeros", True, 0.93, 0.91, 0.93, 0.91, 0.80, 0.80
    ),
    "celeba-unet-zeros": _row("celeba", "unet", "zeros", False, 0.85, 0.75, 0.90, 0.81, 0.55, 0.51),
    "mnist-resnet-zeros": _row("mnist", "resnet", "zeros", False, 0.94, 0.94, 0.82, 0.84, 0.61, 0.62),
    "mnist-resnet-circular": _row("mnist", "resnet", "circular", False, 0.77, 0.73, 0.36, 0.33, 0.15, 0.14),
    "cifar10-resnet-zeros": _row("cifar10", "resnet", "zeros", True, 0.95, 0.90, 0.90, 0.86, 0.42, 0.43),
    "cifar10-resnet-circular": _row(
        "cifar10", "resnet", "circular", True, 0.94, 0.90, 0.83, 0.80, 0.35, 0.36
    ),
    "fashionmnist-resnet-zeros": _row(
        "fashionmnist", "resnet", "zeros", True, 0.94, 0.90, 0.88, 0.88, 0.68, 0.74
    ),
    "celeba-resnet-zeros": _row("celeba", "resnet", "zeros", False, 0.96, 0.92, 0.90, 0.88, 0.47, 0.48),
    "cifar10-attention-zeros": _row(
        "cifar10", "attention-unet", "zeros", True, 0.77, 0.75, 0.77, 0.74, 0.48, 0.47
    ),
}


@dataclass(frozen=True)
class Budget:
    """How much of a row to do.

    Attributes:
        time: about how long it takes, on what; or that it was not timed.
        limit: training images; None for all.
        training: options of ``patchmosaic train`` beside those that the row decides.
        skip: whether networks of ours add their input to their output, which the paper's do not.
        width: channels of a ResNet, and twice those of a UNet at its finest scale; None as published.
        trajectories: how many the scales are calibrated on.
        seeds: how many pictures are compared.
    """

    time: str
    limit: int | None
    training: tuple[str, ...]
    skip: bool
    width: int | None
    trajectories: int
    seeds: int

    def skips(self, network: str) -> bool:
        """Whether this network adds its input to its output."""
        return self.skip and network != "attention-unet"

    def width_of(self, network: str) -> int | None:
        """Channels of a network, at its finest scale."""
        if self.width is None or network == "resnet":
            return self.width
        return self.width // 2


BUDGETS: dict[str, Budget] = {
    "smoke": Budget(
        "a quarter to half an hour on two CPU cores",
        1000,
        ("--steps", "2500", "--batch", "32", "--lr", "2e-3", "--decay", "0.9985", "--ema", "0.995"),
        True,
        32,
        5,
        24,
    ),
    "short": Budget(
        "30 epochs at full width, for one GPU; not timed",
        None,
        ("--epochs", "30", "--lr", "4e-4", "--decay", "0.9997", "--ema", "0.999", "--precision", "bf16"),
        False,
        None,
        10,
        100,
    ),
    "paper": Budget("as published, for one GPU; not timed", None, ("--epochs", "300"), False, None, 20, 100),
}
