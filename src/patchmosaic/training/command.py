"""``patchmosaic train``."""

import argparse

from patchmosaic.options import (
    Parser,
    add_data_options,
    add_device_option,
    add_output_options,
    check_device,
    describe,
    output_folder,
    settings,
)

_DESCRIPTION = """\
Train a network to predict the noise in pictures, as the paper does: the defaults are its ResNet, learning rate,
batch and number of epochs. The output folder holds network/ (safetensors and configuration, as diffusers reads
them), loss.png, loss.csv, samples/ (pictures drawn on the way), metrics.json and run.json."""

_EXAMPLES = """\
examples:
  patchmosaic train --width 64 --steps 2000 --lr 1e-3 --decay 0.9985 --ema 0.99
      a small network on scikit-learn's digits, in a few minutes on two cores
  patchmosaic train --data cifar10-train.parquet --conditional --device cuda --precision bf16
      the paper's class-conditional ResNet on CIFAR-10

Ctrl-C keeps the state; the same command with --resume goes on with the very next batch."""


def add_options(command: Parser) -> None:
    """The options of ``train``."""
    describe(command, _train, _DESCRIPTION, _EXAMPLES)
    from patchmosaic.nets.build import NETWORKS

    add_data_options(command)
    network = command.add_argument_group("network")
    network.add_argument(
        "--network", default="resnet", metavar="NAME", help=f"{', '.join(NETWORKS)} (default: resnet)"
    )
    network.add_argument(
        "--width",
        type=int,
        metavar="N",
        help="channels (default: 256 for the ResNet, 64 at a UNet's finest scale)",
    )
    network.add_argument(
        "--layers",
        type=int,
        metavar="N",
        help="residual convolutions (default: 6; of a UNet 2 in each block)",
    )
    network.add_argument("--padding", default="zeros", metavar="KIND", help="zeros (default) or circular")
    network.add_argument(
        "--skip", action="store_true", help="add the input to the output: learns faster; the paper's do not"
    )
    network.add_argument("--conditional", action="store_true", help="condition on the class")

    work = command.add_argument_group("training")
    length = work.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=int, default=300, metavar="N", help="passes over the images (default: 300)"
    )
    length.add_argument("--steps", type=int, metavar="N", help="number of batches, instead of --epochs")
    work.add_argument("--batch", type=int, default=128, metavar="N", help="images in a batch (default: 128)")
    work.add_argument(
        "--lr", type=float, default=1e-4, metavar="RATE", help="Adam's learning rate (default: 1e-4)"
    )
    work.add_argument(
        "--decay",
        type=float,
        default=0.999965,
        metavar="F",
        help="factor on it at every step (default: 0.999965)",
    )
    work.add_argument(
        "--ema",
        type=float,
        default=0.0,
        metavar="F",
        help="keep a running average of the weights, F of it at every step (default: 0, the last weights)",
    )
    work.add_argument(
        "--seed", type=int, default=0, metavar="S", help="decides all that is random (default: 0)"
    )
    work.add_argument("--precision", default="no", metavar="KIND", help="no (default, float32), fp16 or bf16")
    add_device_option(work)
    work.add_argument(
        "--pictures-every", type=int, metavar="N", help="steps between two pictures (default: a tenth of all)"
    )
    add_output_options(command)


def _train(args: argparse.Namespace) -> None:
    from dataclasses import fields

    from tqdm import tqdm

    from patchmosaic.data import DataSettings
    from patchmosaic.errors import check_count
    from patchmosaic.training import Training, TrainSettings

    names = [field.name for field in fields(TrainSettings) if field.name != "data"]
    config = TrainSettings(settings(DataSettings, args), **{name: getattr(args, name) for name in names})
    check_device(args.device)
    data = config.data.load()
    folder = output_folder(args, f"{data.name}-{config.network}", config)
    training = Training(folder, config, data, args.device)
    if args.pictures_every is not None:
        check_count("--pictures-every", args.pictures_every)
    say = training.accelerator.print
    if training.open(args.resume, args.overwrite):
        say(f"already complete: {folder / 'network'}")
        return
    say(
        f"{config.network} with {training.parameters:,} numbers to learn from {len(data):,} images of {data.name}"
    )
    hidden = None if training.accelerator.is_main_process else True
    with tqdm(total=training.total, initial=training.step, unit="step", disable=hidden) as bar:

        def show(loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update()

        training.run(show, args.pictures_every or max(1, training.total // 10))
    say(f"loss {training.recent_loss:.4f}: {folder / 'network'}")
