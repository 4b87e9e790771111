"""Data sources and partitions by name. A new one is a file in a folder below and an entry here."""

from fedopt.registry import Entry, Registry

_TORCHVISION = "fedopt.data.sources.torchvision_sets"

SOURCES = Registry(
    "data set",
    {
        "digits": Entry(
            "fedopt.data.sources.digits:Digits",
            "1,797 handwritten digits, 8 x 8 pixels; comes with scikit-learn, no download",
            "Alpaydin, Kaynak 1998, UCI",
        ),
        "synthetic": Entry(
            "fedopt.data.sources.synthetic:Synthetic",
            "Synthetic(a, b): logistic data with clients of its own, drawn from the seed",
            "Li et al. 2020, arXiv:1812.06127",
        ),
        "mnist": Entry(
            f"{_TORCHVISION}:Mnist",
            "70,000 handwritten digits, 28 x 28 pixels",
            "LeCun et al. 1998, doi:10.1109/5.726791",
        ),
        "fashionmnist": Entry(
            f"{_TORCHVISION}:FashionMnist",
            "70,000 articles of clothing, 28 x 28 pixels",
            "Xiao et al. 2017, arXiv:1708.07747",
        ),
        "emnist": Entry(
            f"{_TORCHVISION}:Emnist",
            "handwritten letters and digits, 28 x 28 pixels",
            "Cohen et al. 2017, arXiv:1702.05373",
        ),
        "cifar10": Entry(
            f"{_TORCHVISION}:Cifar10",
            "60,000 color images of 10 classes, 32 x 32 pixels",
            "Krizhevsky 2009, technical report",
        ),
        "cifar100": Entry(
            f"{_TORCHVISION}:Cifar100",
            "60,000 color images of 100 classes, 32 x 32 pixels",
            "Krizhevsky 2009, technical report",
        ),
        "svhn": Entry(
            f"{_TORCHVISION}:Svhn",
            "99,289 digits of house numbers, 32 x 32 color pixels",
            "Netzer et al. 2011, NIPS workshop",
        ),
        "folder": Entry("fedopt.data.sources.folder:Folder", "your own images, in train/CLASS and test/CLASS"),
        "npz": Entry("fedopt.data.sources.npz:Npz", "your own arrays: x_train, y_train, x_test, y_test in an .npz"),
        "table": Entry(
            "fedopt.data.sources.table:Table", "your own table: CSV, Parquet or Arrow, with columns label and client"
        ),
        "leaf": Entry(
            "fedopt.data.sources.leaf:Leaf",
            "JSON files of LEAF, as FEMNIST and Shakespeare, with clients of their own",
            "Caldas et al. 2018, arXiv:1812.01097",
        ),
        "shakespeare": Entry(
            "fedopt.data.sources.shakespeare:Shakespeare",
            "plays as a text file: the next character, with speakers as clients",
            "McMahan et al. 2017, arXiv:1602.05629",
        ),
        "memory": Entry(
            "fedopt.data.sources.memory:Memory",
            "your own arrays in Python: fedopt.run(experiment, data=fedopt.Data(...))",
        ),
    },
    base="fedopt.data.sources.base:Source",
    plugins="source",
    prefixes={
        "hf": Entry(
            "fedopt.data.sources.hugging_face:HuggingFace",
            "a data set of the Hugging Face Hub, as hf:ylecun/mnist, or a local one, as hf:./FOLDER",
            "Lhoest et al. 2021, arXiv:2109.02846",
        )
    },
)

PARTITIONS = Registry(
    "partition",
    {
        "iid": Entry("fedopt.data.partitions.iid:Iid", "equal random parts"),
        "dirichlet": Entry(
            "fedopt.data.partitions.dirichlet:Dirichlet",
            "each class is cut over the clients by Dirichlet(alpha); small alpha, strong skew",
            "Yurochkin et al. 2019, arXiv:1905.12022; Hsu et al. 2019, arXiv:1909.06335",
        ),
        "dirichlet-balanced": Entry(
            "fedopt.data.partitions.dirichlet_balanced:DirichletBalanced",
            "the same, but a client that holds its fair share gets no more",
            "Yurochkin et al. 2019, arXiv:1905.12022",
        ),
        "shards": Entry(
            "fedopt.data.partitions.shards:Shards",
            "samples sorted by label and cut into pieces, `shards` pieces a client",
            "McMahan et al. 2017, arXiv:1602.05629",
        ),
        "classes": Entry(
            "fedopt.data.partitions.classes:Classes",
            "each client holds exactly `classes` labels",
            "Li et al. 2022, arXiv:2102.02079",
        ),
        "quantity": Entry(
            "fedopt.data.partitions.quantity:Quantity",
            "sizes by Dirichlet(alpha), labels at random",
            "Li et al. 2022, arXiv:2102.02079",
        ),
        "power-law": Entry(
            "fedopt.data.partitions.power_law:PowerLaw",
            "sizes by a power law, `classes` labels a client",
            "Li et al. 2020, arXiv:1812.06127",
        ),
        "similarity": Entry(
            "fedopt.data.partitions.similarity:Similarity",
            "a share `similarity` of each client's samples is iid, the rest sorted by label",
            "Karimireddy et al. 2020, arXiv:1910.06378",
        ),
        "natural": Entry("fedopt.data.partitions.natural:Natural", "the clients that the data come with"),
    },
    base="fedopt.data.partitions.base:Partition",
    prefixes={
        "flwr": Entry(
            "fedopt.data.partitions.flower:FlowerPartition",
            "a partitioner of Flower Datasets, as flwr:PathologicalPartitioner",
            "Beutel et al. 2020, arXiv:2007.14390",
        )
    },
)
