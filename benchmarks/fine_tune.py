"""Fine-tuning: how good and how fast, beside what a user would write.

    python benchmarks/fine_tune.py                              both sections
    python benchmarks/fine_tune.py --only speed --rounds 1      a quick look at the speed
    python benchmarks/fine_tune.py --only quality --sets digits --methods probe graftline

Sections:
    quality    test accuracy on data unlike ImageNet (scikit-learn's digits, glyphs of this
               machine's fonts, Debian's openclipart-png), each with one split and the same
               pretrained weights: the fitted probe, Graftline's `strategy: fine_tune`, what its
               `strategy: auto` delivers, fastai's `fine_tune` and the plain script of PyTorch's
               tutorial, all with the same number of epochs.
    speed      images a second of training: Graftline with the upper third unfrozen, beside a plain
               torchvision script (ImageFolder, eager fp32, full backward) and beside the same
               training on ready batches. A run is ten epochs, the first of which decodes.

On a CUDA device all of it runs there, with larger batches and more of them; the plain script gets
a worker process for every core, and ready batches lie on the device.

All ways of the speed section run one after another in every round; only their ratios mean anything
on a machine that others use. With --json the last line is one JSON object: `accuracy` by data set
and method, `times_faster_than_plain` and `fraction_of_ready_batches` by backbone.
"""

import argparse
import json

from fine_tuning import quality, speed
from fine_tuning.pictures import SETS

SECTIONS = ("quality", "speed")


def main() -> None:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=SECTIONS, help="one section alone")
    parser.add_argument("--json", action="store_true", help="figures as the last line")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=quality.METHODS, default=quality.METHODS)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="of quality")
    parser.add_argument("--image-size", type=int, default=96, help="of quality, in pixels")
    parser.add_argument("--images", type=int, default=3000, help="of each data set at most")
    parser.add_argument("--epochs", type=int, default=10, help="of quality")
    parser.add_argument("--seeds", type=int, default=1, help="of quality: mean of so many")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of fine_tune")
    parser.add_argument("--backbones", nargs="+", default=list(speed.BACKBONES), help="of speed")
    parser.add_argument("--rounds", type=int, default=3, help="of speed")
    parser.add_argument("--steps", type=int, help="of an epoch of speed")
    parser.add_argument("--plain-steps", type=int, help="of the plain script")
    parser.add_argument("--batch-size", type=int, help="of speed")
    parser.add_argument("--views", type=int, help="fine_tune.views of speed")
    arguments = parser.parse_args()
    figures: dict[str, object] = {}
    if arguments.only != "speed":
        figures["accuracy"] = quality.run(arguments)
    if arguments.only != "quality":
        figures.update(speed.run(arguments))
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
