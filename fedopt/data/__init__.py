"""Data sources and partitions by name. A new one is a file in a folder below and an entry here."""

from fedopt.registry import Entry, Registry

_TORCHVISION = "fedopt.data.sources.torchvision_sets:load"

SOURCES = Registry(
    "data set",
    {
        "digits": Entry(
            "fedopt.data.sources.digits:load",
            "1,797 handwritten digits, 8 x 8 pixels; comes with scikit-learn, no download",
            "Alpaydin, Kaynak 1998, UCI",
        ),
        "synthetic": Entry(
            "fedopt.data.sources.synthetic:load",
            "Synthetic(a, b): logistic data with clients of its own, drawn from the seed",
            "Li et al. 2020, arXiv:1812.06127",
        ),
        "mnist": Entry(
            _TORCHVISION, "70,000 handwritten digits, 28 x 28 pixels", "LeCun et al. 1998, doi:10.1109/5.726791"
        ),
        "fashionmnist": Entry(
            _TORCHVISION, "70,000 articles of clothing, 28 x 28 pixels", "Xiao et al. 2017, arXiv:1708.07747"
        ),
        "emnist": Entry(
            _TORCHVISION, "handwritten letters and digits, 28 x 28 pixels", "Cohen et al. 2017, arXiv:1702.05373"
        ),
        "cifar10": Entry(
            _TORCHVISION, "60,000 color images of 10 classes, 32 x 32 pixels", "Krizhevsky 2009, technical report"
        ),
        "cifar100": Entry(
            _TORCHVISION, "60,000 color images of 100 classes, 32 x 32 pixels", "Krizhevsky 2009, technical report"
        ),
        "svhn": Entry(
            _TORCHVISION, "99,289 digits of house numbers, 32 x 32 color pixels", "Netzer et al. 2011, NIPS workshop"
        ),
        "folder": Entry("fedopt.data.sources.folder:load", "your own images, in train/CLASS and test/CLASS"),
        "npz": Entry("fedopt.data.sources.npz:load", "your own arrays: x_train, y_train, x_test, y_test in an .npz"),
    },
)

PARTITIONS = Registry(
    "partition",
    {
        "iid": Entry("fedopt.data.partitions.even:iid", "equal random parts"),
        "dirichlet": Entry(
            "fedopt.data.partitions.dirichlet:dirichlet",
            "each class is cut over the clients by Dirichlet(alpha); small alpha, strong skew",
            "Yurochkin et al. 2019, arXiv:1905.12022; Hsu et al. 2019, arXiv:1909.06335",
        ),
        "dirichlet-balanced": Entry(
            "fedopt.data.partitions.dirichlet:dirichlet_balanced",
            "the same, but a client that holds its fair share gets no more",
            "Yurochkin et al. 2019, arXiv:1905.12022",
        ),
        "shards": Entry(
            "fedopt.data.partitions.by_label:shards",
            "samples sorted by label and cut into pieces, `shards` pieces a client",
            "McMahan et al. 2017, arXiv:1602.05629",
        ),
        "classes": Entry(
            "fedopt.data.partitions.by_label:classes",
            "each client holds exactly `classes` labels",
            "Li et al. 2022, arXiv:2102.02079",
        ),
        "quantity": Entry(
            "fedopt.data.partitions.dirichlet:quantity",
            "sizes by Dirichlet(alpha), labels at random",
            "Li et al. 2022, arXiv:2102.02079",
        ),
        "natural": Entry("fedopt.data.partitions.even:natural", "the clients that the data come with (synthetic)"),
    },
)
