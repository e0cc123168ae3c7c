"""`palette-jax import`: weights of another project become a run of ours."""

import argparse

from etils import epath

from palette_jax import atomic
from palette_jax.config import build, imported
from palette_jax.config.limits import MAX_WIDTH
from palette_jax.config.values import from_dict
from palette_jax.errors import UserError
from palette_jax.interop.convert import SUPPORTED, import_weights
from palette_jax.interop.saved_outputs import FORM, compare
from palette_jax.programs import flag_types
from palette_jax.tasks import TASKS

REPORT = "import_report.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.epilog = SUPPORTED
    parser.add_argument(
        "weights", metavar="FILE", help="or the folder of a diffusers model"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder of the new run"
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        help="what the network was trained for (default: inpaint, or the export's own)",
    )
    parser.add_argument(
        "--verify",
        metavar="IO.npz",
        help=f"compares with outputs of its original code: {FORM}",
    )
    unsaid = parser.add_argument_group(
        "settings that the file may lack", "an error names those that are needed"
    )
    unsaid.add_argument(
        "--image-size",
        type=flag_types.whole(1, high=MAX_WIDTH),
        metavar="N",
        help="in pixels; for an export of palette_jax, a new size",
    )
    unsaid.add_argument(
        "--head-features",
        type=flag_types.whole(1, high=MAX_WIDTH),
        metavar="N",
        help="channels of an attention head",
    )
    unsaid.add_argument(
        "--num-heads",
        type=flag_types.whole(1, high=MAX_WIDTH),
        metavar="N",
        help="if it is the same at every level",
    )
    unsaid.add_argument(
        "--new-attention-order",
        action="store_true",
        help="guided-diffusion was run with use_new_attention_order",
    )
    unsaid.add_argument(
        "--noisy-first",
        action="store_true",
        help="the diffusers network takes the noisy picture first, then the source",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the run and the report, and prints the next commands."""
    out = epath.Path(args.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"expected a new or an empty folder, got {out}, which is not empty; set"
            " another --out"
        )
    weights = import_weights(
        args.weights,
        image_size=args.image_size,
        head_features=args.head_features,
        num_heads=args.num_heads,
        new_attention_order=args.new_attention_order,
        noisy_first=args.noisy_first,
    )
    config = imported.make_config(weights.config, args.task)
    if config.task != "paired":  # The user sets its folders later.
        checked = from_dict(config.to_dict())
        checked.data.source = "sample_photos"  # The checks need no other pictures.
        build.check(checked)
    lines = [f"file: {args.weights}", *weights.report.lines()]
    if args.verify:
        lines += compare(weights, args.verify, noisy_first=args.noisy_first)
    imported.save(weights, config, out)
    atomic.write_text(out / REPORT, "\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"this report is saved in {out / REPORT}")
    print(f"restore:  palette-jax restore PHOTO --checkpoint={out}")
    if config.task != "paired":
        atomic.write_text(out / "config.py", imported.config_file(weights, config))
        print(f"train on: python main.py --config={out}/config.py --workdir={out}")
    return 0
