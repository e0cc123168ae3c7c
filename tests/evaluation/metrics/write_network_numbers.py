"""Writes what torchvision, pytorch-fid and lpips compute, for tests without them.

In an environment with PyTorch and these three: python write_network_numbers.py
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).with_name("network_numbers.json")
NETWORKS = ("inception", "resnet50", "inception_v1", "lpips")
Shapes = Mapping[str, tuple[int, ...]]


def draw_state(shapes: Shapes) -> dict[str, np.ndarray]:
    """Returns weights that follow from the names alone and keep the activations' size.

    No batch norm is near the identity, so a wrong one shows.
    """
    rng, state = np.random.default_rng(0), {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        array = rng.standard_normal(shape, np.float32)
        if name.startswith("lin"):
            array = np.abs(array)
        elif len(shape) > 1:
            array *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        elif name.endswith("running_var"):
            array = np.float32(0.5) + array**2
        else:
            array = np.float32(name.endswith("weight")) + np.float32(0.2) * array
        state[name] = array
    return state


def draw_pictures(network: str) -> tuple[np.ndarray, ...]:
    """Returns what the network is given: two pictures, or two pairs of them."""
    rng = np.random.default_rng(1)
    size = (2, 300, 260, 3) if network == "resnet50" else (2, 90, 70, 3)
    noise = rng.integers(0, 256, (2, *size), np.uint8)
    return tuple(noise) if network == "lpips" else (noise[0],)


def make_theirs(network: str) -> Any:
    """Returns a network of theirs, with the weights it was made with."""
    import lpips
    import torchvision
    from pytorch_fid import inception

    if network == "inception":
        inception.load_state_dict_from_url = lambda *_, **__: None
        torchvision.models.Inception3.load_state_dict = lambda *_: None
        made = inception.fid_inception_v3()
        del torchvision.models.Inception3.load_state_dict
        return made
    if network == "resnet50":
        return torchvision.models.resnet50(weights=None)
    if network == "inception_v1":
        return torchvision.models.googlenet(
            weights=None, aux_logits=False, transform_input=True, init_weights=False
        )
    return lpips.LPIPS(pretrained=False, pnet_rand=True, verbose=False)


def run_theirs(
    network: str, model: Any, pictures: tuple[np.ndarray, ...]
) -> dict[str, Any]:
    """Returns the outputs of a network of theirs, prepared as its users prepare it."""
    import torch
    import torchvision
    from pytorch_fid import inception

    x = [torch.from_numpy(some).permute(0, 3, 1, 2) / 255 for some in pictures]
    normalize = torchvision.transforms.Normalize(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    if network == "inception":
        inception.fid_inception_v3 = lambda: model
        features = inception.InceptionV3([0, 1, 2, 3])(x[0])
        names = ("64", "192", "768", "2048")
        out = {n: f.mean((2, 3)) for n, f in zip(names, features, strict=True)}
        out["logits"] = out["2048"] @ model.fc.weight.T
        return out
    if network == "resnet50":
        resize = torchvision.transforms.Resize(256, antialias=True)
        crop = torchvision.transforms.CenterCrop(224)
        return {"logits": model(normalize(crop(resize(x[0]))))}
    if network == "inception_v1":
        model.fc = torch.nn.Identity()
        small = torch.nn.functional.interpolate(
            x[0], (224, 224), mode="bilinear", align_corners=False, antialias=True
        )
        return {"pool": model(normalize(small))}
    return {"lpips": model(2 * x[0] - 1, 2 * x[1] - 1)[:, 0, 0, 0]}


def _some(array: Any) -> list[float]:
    return [
        float(f"{value:.7g}") for value in array.ravel()[:: 7 if array.ndim > 1 else 1]
    ]


def _main() -> None:
    import torch

    numbers = {}
    torch.set_grad_enabled(False)
    for network in NETWORKS:
        model = make_theirs(network).eval()
        renamed = {}  # AlexNet's layers have other names in lpips than in its file.
        for name, array in model.state_dict().items():
            if "num_batches" in name or name.startswith(("scaling", "lins")):
                continue
            parts = name.split(".")
            key = f"features.{'.'.join(parts[2:])}" if parts[0] == "net" else name
            renamed[name] = (key, tuple(array.shape))
        shapes = dict(renamed.values())
        drawn = draw_state(shapes)
        state = {n: torch.from_numpy(drawn[key]) for n, (key, _) in renamed.items()}
        model.load_state_dict(state, strict=False)
        out = run_theirs(network, model, draw_pictures(network))
        numbers[network] = {
            "shapes": shapes,
            "out": {name: _some(array) for name, array in out.items()},
        }
    FILE.write_text(json.dumps(numbers, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    _main()
