"""The public weight files of the metrics, and their folder.

No program downloads them: the user puts each file into the folder.
"""

import dataclasses
import hashlib
import os

from etils import epath

from palette_jax.errors import MetricError

FOLDER_VARIABLE = "PALETTE_JAX_WEIGHTS"
DEFAULT_FOLDER = "~/.cache/palette_jax/weights"

_TORCHVISION = "https://download.pytorch.org/models"
_BSD = "BSD-3-Clause (torchvision); trained on ImageNet, whose terms are its own"


class MissingWeightsError(MetricError):
    """A missing weight file; the message names its source."""


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A public weight file; `sha256` and `licence` are the publisher's."""

    file_name: str
    what: str
    source: str
    sha256: str
    licence: str


WEIGHT_FILES = {
    "inception": WeightFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "Inception-v3 of 2015-12-05 (FID, Inception Score)",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "Apache-2.0 (Google's release, converted by pytorch-fid)",
    ),
    "inception_768": WeightFile(
        "inception_2015_12_05_768.pth",
        "the same Inception-v3, up to Mixed_6e (FID on 768 features and fewer)",
        "not published under this name: the tensors of the whole file up to Mixed_6e,"
        " saved by torch.save",
        "b6cf7dd0e5613986444d8df54412e17dfe9945c883d2c7dc2eefac4f8d2fb3af",
        "Apache-2.0 (Google's release)",
    ),
    "resnet50": WeightFile(
        "resnet50-0676ba61.pth",
        "ResNet-50, IMAGENET1K_V1 (classification accuracy)",
        f"{_TORCHVISION}/resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        _BSD,
    ),
    "inception_v1": WeightFile(
        "googlenet-1378be20.pth",
        "Inception-v1, IMAGENET1K_V1 (perceptual distance)",
        f"{_TORCHVISION}/googlenet-1378be20.pth",
        "1378be20a8e875cf1568b8a71654e704449655e34711a959a38b04fb34905cef",
        _BSD,
    ),
    "alexnet": WeightFile(
        "alexnet-owt-7be5be79.pth",
        "AlexNet, IMAGENET1K_V1 (LPIPS)",
        f"{_TORCHVISION}/alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        _BSD,
    ),
    "lpips": WeightFile(
        "alex.pth",
        "the linear layers of LPIPS 0.1 for AlexNet (LPIPS)",
        "https://github.com/richzhang/PerceptualSimilarity, file"
        " lpips/weights/v0.1/alex.pth, which the Python package lpips 0.1.4 holds too",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        "BSD-2-Clause",
    ),
    "vgg16": WeightFile(
        "vgg16-397923af.pth",
        "VGG-16, IMAGENET1K_V1 (LPIPS-VGG)",
        f"{_TORCHVISION}/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        _BSD,
    ),
    "lpips_vgg": WeightFile(
        "vgg.pth",
        "the linear layers of LPIPS 0.1 for VGG-16 (LPIPS-VGG)",
        "https://github.com/richzhang/PerceptualSimilarity, file"
        " lpips/weights/v0.1/vgg.pth, which the Python package lpips 0.1.4 holds too",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        "BSD-2-Clause",
    ),
}
"""The files by short name. Torchvision's file names contain the first digits of these
hashes; several projects have recorded the full ones."""


def find(name: str, *, folder: epath.PathLike | None = None) -> epath.Path:
    """Returns the path of a weight file.

    Args:
      name: a key of `WEIGHT_FILES`.
      folder: the only folder to search. The default is the environment variable
        PALETTE_JAX_WEIGHTS, else ~/.cache/palette_jax/weights.

    Raises:
      MissingWeightsError: naming the file, its folder, its source and its sha256.
    """
    wanted = WEIGHT_FILES[name]
    folder = folder or os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER
    path = epath.Path(folder).expanduser() / wanted.file_name
    if path.exists():
        return path
    raise MissingWeightsError(
        f"expected {wanted.what} at {path}, got no such file; get it from"
        f" {wanted.source} (sha256 {wanted.sha256}) and put it there, or set"
        f" {FOLDER_VARIABLE} to its folder"
    )


def missing(name: str) -> str:
    """Returns the message of `find` if a weight file is missing, else an empty text."""
    try:
        find(name)
    except MissingWeightsError as error:
        return str(error)
    return ""


def sha256(path: epath.PathLike) -> str:
    """Returns the hash of a file, in 64 hexadecimal digits."""
    with epath.Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def differs(name: str, digest: str) -> str:
    """Returns a warning if a file is not the published one, else an empty text.

    Such a file is allowed, for example a fine-tuned classifier, but its numbers do not
    compare with published ones.
    """
    wanted = WEIGHT_FILES[name]
    if digest == wanted.sha256:
        return ""
    return (
        f"{wanted.file_name} is not the published file: expected sha256"
        f" {wanted.sha256}, got {digest}; do not compare its numbers with others"
    )
