"""The catalog of named data sets, one entry each."""

import string

from foveola.datasets.entry import Entry, File

_DIGITS = tuple(string.digits)
# 15 letters look the same in upper and lower case and share the upper-case class.
_MERGED = tuple(string.digits + string.ascii_uppercase + "abdefghnqrt")
_KMNIST_LICENCE = (
    'CC BY-SA 4.0; attribution: "KMNIST Dataset" (created by CODH), adapted from "Kuzushiji Dataset" (created by NIJL '
    "and others), doi:10.20676/00000341"
)
_KMNIST_CITATION = "T. Clanuwat et al., Deep Learning for Classical Japanese Literature, arXiv:1812.01718, 2018"


def _emnist(name: str, class_names: tuple[str, ...], train: int, test: int, first_label: int = 0) -> Entry:
    """Entry of one of the six data sets in EMNIST's archive, which NIST published in 2017."""
    split = name.lower()
    prefix = f"emnist-{split}-"
    return Entry(
        name=f"emnist-{split}",
        title=f"EMNIST {name}",
        class_names=class_names,
        image_shape=(28, 28, 1),
        train_images=train,
        test_images=test,
        licence="none stated; derived from NIST Special Database 19, a work of the US government",
        citation="G. Cohen et al., EMNIST: an extension of MNIST to handwritten letters, arXiv:1702.05373, 2017",
        reader="idx",
        folder="emnist",
        files=(
            File(
                "gzip.zip",
                md5="58c8d27c78d21e728a6bc7b3cc06412e",
                sha256="fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
            ),
        ),
        sources=(
            "https://biometrics.nist.gov/cs_links/EMNIST/",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
        ),
        # No checksums are published for the files inside the archive.
        members=tuple(
            File(f"{prefix}{part}-{kind}-ubyte.gz")
            for part in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        ),
        prefix=prefix,
        first_label=first_label,
        transposed=True,
    )


# Checksums of the published files: MD5 as in torchvision and on the authors' pages, SHA-256 as in TensorFlow Datasets.
_ENTRIES = (
    Entry(
        name="digits",
        title="Optical Recognition of Handwritten Digits",
        class_names=_DIGITS,
        image_shape=(8, 8, 1),
        train_images=1797,
        test_images=0,
        licence="CC BY 4.0",
        citation="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49, 1998",
        reader="digits",  # part of Foveola: nothing to download
        folder="digits",
    ),
    Entry(
        name="mnist",
        title="MNIST",
        class_names=_DIGITS,
        image_shape=(28, 28, 1),
        train_images=60_000,
        test_images=10_000,
        licence="CC BY-SA 3.0",
        citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, "
        "Proceedings of the IEEE 86(11), 1998",
        reader="idx",
        folder="mnist",
        files=(
            File(
                "train-images-idx3-ubyte.gz",
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            File(
                "train-labels-idx1-ubyte.gz",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            File(
                "t10k-images-idx3-ubyte.gz",
                "9fb629c4189551a2d022fa330f9573f3",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            File(
                "t10k-labels-idx1-ubyte.gz",
                "ec29112dd5afa0611ce80d1b7f02629c",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
        sources=(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
    ),
    Entry(
        name="fashion-mnist",
        title="Fashion-MNIST",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        image_shape=(28, 28, 1),
        train_images=60_000,
        test_images=10_000,
        licence="MIT",
        citation="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, arXiv:1708.07747, 2017",
        reader="idx",
        folder="fashion-mnist",
        files=(
            File(
                "train-images-idx3-ubyte.gz",
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            File(
                "train-labels-idx1-ubyte.gz",
                "25c81989df183df01b3e8a0aad5dffbe",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            File(
                "t10k-images-idx3-ubyte.gz",
                "bef4ecab320f06d8554ea6380940ec79",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            File(
                "t10k-labels-idx1-ubyte.gz",
                "bb300cfdad3c16e7a12a480ee83cd310",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        sources=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        flip_safe=True,
    ),
    Entry(
        name="kmnist",
        title="Kuzushiji-MNIST",
        class_names=tuple("おきすつなはまやれを"),
        image_shape=(28, 28, 1),
        train_images=60_000,
        test_images=10_000,
        licence=_KMNIST_LICENCE,
        citation=_KMNIST_CITATION,
        reader="idx",
        folder="kmnist",
        files=(  # no published checksum of the decompressed content is known
            File(
                "train-images-idx3-ubyte.gz",
                "bdb82020997e1d708af4cf47b453dcf7",
                "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            ),
            File(
                "train-labels-idx1-ubyte.gz",
                "e144d726b3acfaa3e44228e80efcd344",
                "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            ),
            File(
                "t10k-images-idx3-ubyte.gz",
                "5c965bf0a639b31b8f53240b1b52f4d7",
                "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            ),
            File(
                "t10k-labels-idx1-ubyte.gz",
                "7320c461ea6c1c855c0b718fb2a4b134",
                "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
            ),
        ),
        sources=(
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ),
    ),
    Entry(
        name="kuzushiji-49",
        title="Kuzushiji-49",
        class_names=tuple(
            "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわゐゑをんゝ"
        ),
        image_shape=(28, 28, 1),
        train_images=232_365,
        test_images=38_547,
        licence=_KMNIST_LICENCE,
        citation=_KMNIST_CITATION,
        reader="npz",
        folder="kuzushiji-49",
        files=(  # no published SHA-256 is known
            File("k49-train-imgs.npz", "7ac088b20481cf51dcd01ceaab89d821"),
            File("k49-train-labels.npz", "44a8e1b893f81e63ff38d73cad420f7a"),
            File("k49-test-imgs.npz", "d352e201d846ce6b94f42c990966f374"),
            File("k49-test-labels.npz", "4da6f7a62e67a832d5eb1bd85c5ee448"),
        ),
        sources=(
            "https://codh.rois.ac.jp/kmnist/dataset/k49/",
            "http://codh.rois.ac.jp/kmnist/dataset/k49/",
        ),
    ),
    _emnist("Letters", tuple(string.ascii_lowercase), 124_800, 20_800, first_label=1),
    _emnist("Balanced", _MERGED, 112_800, 18_800),
    _emnist("Digits", _DIGITS, 240_000, 40_000),
    _emnist("MNIST", _DIGITS, 60_000, 10_000),
    _emnist("ByClass", tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase), 697_932, 116_323),
    _emnist("ByMerge", _MERGED, 697_932, 116_323),
    Entry(
        name="cifar-10",
        title="CIFAR-10",
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        image_shape=(32, 32, 3),
        train_images=50_000,
        test_images=10_000,
        licence="none stated; cite the report",
        citation="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, 2009",
        reader="cifar",
        folder="cifar-10",
        files=(
            File(
                "cifar-10-binary.tar.gz",  # the Python version would need pickle
                md5="c32a1d4ab5d03f1284b67883e8d87530",
                sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        sources=(
            "https://www.cs.toronto.edu/~kriz/",
            "https://cave.cs.toronto.edu/kriz/",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
        ),
        # No checksums are published for the files inside the archive.
        members=(*(File(f"data_batch_{number}.bin") for number in range(1, 6)), File("test_batch.bin")),
        flip_safe=True,
    ),
)

CATALOG: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def identify_by_checksum(*label_digests: str) -> Entry | None:
    """The data set whose published training labels have one of these checksums, or None."""
    for entry in CATALOG.values():
        for file in entry.files:
            known = {file.md5, file.sha256, file.content_sha256}
            if "train-labels" in file.name and not known.isdisjoint(label_digests):
                return entry
    return None
