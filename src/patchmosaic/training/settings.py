"""What decides a trained network."""

from dataclasses import dataclass, field

from patchmosaic.data import DataSettings
from patchmosaic.errors import InputError, check_count
from patchmosaic.nets.build import NETWORKS

PRECISIONS = ("no", "fp16", "bf16")


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a trained network; the defaults are the paper's.

    Attributes:
        data: the training images.
        network: a name in ``NETWORKS``.
        width: channels inside (of the UNets: at the finest scale); None: the network's default.
        layers: residual convolutions (of the UNets: in each block); None: the network's default.
        padding: "zeros" or "circular".
        skip: add the input to the output, which learns faster; the paper's networks do not.
        conditional: condition on the class.
        epochs: passes over the images.
        steps: number of batches instead of ``epochs``.
        batch: images in a batch.
        lr: learning rate of Adam at the first step.
        decay: factor on the learning rate at every step.
        ema: share of the averaged weights that stays at every step; 0 keeps the last weights instead.
        seed: decides initial weights, batches, times and noise.
        precision: "no", "fp16" or "bf16", as accelerate's mixed precision. With fp16 the gradient scaler's state is not
            kept: a resumed training begins with a fresh one, and need not end in the same bytes.
    """

    data: DataSettings = field(default_factory=DataSettings)
    network: str = "resnet"
    width: int | None = None
    layers: int | None = None
    padding: str = "zeros"
    skip: bool = False
    conditional: bool = False
    epochs: int = 300
    steps: int | None = None
    batch: int = 128
    lr: float = 1e-4
    decay: float = 0.999965
    ema: float = 0.0
    seed: int = 0
    precision: str = "no"

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise InputError(f"network must be one of {', '.join(NETWORKS)}, not {self.network!r}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        for name in ("width", "layers", "epochs", "steps", "batch"):
            if (value := getattr(self, name)) is not None:
                check_count(name, value)
        if not (0 < self.lr < 10 and 0 < self.decay <= 1 and 0 <= self.ema < 1):
            raise InputError("need 0 < lr < 10, 0 < decay <= 1 and 0 <= ema < 1")
        if not 0 <= self.seed < 1 << 31:
            raise InputError("seed must be from 0 to 2^31 - 1")

    def total_steps(self, images: int) -> int:
        """Batches in the whole training."""
        return self.steps or self.epochs * -(-images // self.batch)
