"""The runs: between them they use every algorithm, optimizer, model family, data source, backend and engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Engine = Literal["embedded", "resumed", "ranks", "federation", "ray"]


@dataclass(frozen=True)
class Case:
    name: str
    keys: str
    """section.key=value, separated by spaces. {data} is the folder with MNIST, {files} one that the fence fills."""
    engine: Engine = "embedded"

    def overrides(self, data: str, files: str) -> list[str]:
        given = (BASE + " " + self.keys).format(data=data, files=files).split()
        return list({text.partition("=")[0]: text for text in given}.values())


BASE = (
    "run.rounds=3 run.seed=3 run.device=cpu data.clients=8 run.participation=0.5 local.epochs=2 metrics.clients_every=0"
)
MNIST = "data.name=mnist data.path={data} data.clients=50 run.cohort=4 run.participation= local.steps=6 local.epochs="

CASES = (
    Case("fedavg-sgd", ""),
    Case("scaffold-sgd", "algorithm.name=scaffold"),
    Case("scaffold-momentum", "algorithm.name=scaffold local.momentum=0.9 local.lr=0.01"),
    Case("fedavg-nesterov-decay", "local.momentum=0.9 local.nesterov=true local.weight_decay=0.01"),
    Case("fedavg-decay", "local.weight_decay=0.001"),
    Case("fedavg-adam", "local.optimizer=adam local.lr=0.001"),
    Case("scaffold-adam", "algorithm.name=scaffold local.optimizer=adam local.lr=0.001"),
    Case("scaffold-adamw", "algorithm.name=scaffold local.optimizer=adamw local.lr=0.001 local.weight_decay=0.01"),
    Case("fedavg-sam-2", "local.optimizer=sam"),
    Case("scaffold-sam-1", "algorithm.name=scaffold local.optimizer=sam local.p=1"),
    Case("fedavg-sam-inf-adam", "local.optimizer=sam local.base=adam local.p=inf local.lr=0.001"),
    Case("scaffold-sam-2-momentum", "algorithm.name=scaffold local.optimizer=sam local.momentum=0.9 local.lr=0.01"),
    Case("fedavg-sam-small-batch", "local.optimizer=sam local.batch_size=4 local.rho=0.1"),
    Case("fedavg-clip", "local.clip=0.5"),
    Case("scaffold-clip-uniform", "algorithm.name=scaffold local.clip=0.5 algorithm.weighting=uniform"),
    Case("scaffold-full-gradient", "algorithm.name=scaffold algorithm.variant=full-gradient algorithm.server_lr=0.5"),
    Case("full-batch", "local.batch_size=full local.steps=4 local.epochs= algorithm.name=scaffold"),
    Case("float64", "run.dtype=float64 algorithm.name=scaffold local.momentum=0.5"),
    Case("bf16", "run.products=bf16"),
    Case("each", "run.backend=each algorithm.name=scaffold"),
    Case("vmap", "run.backend=vmap run.lanes=2 run.workers=1"),
    Case("one-worker", "run.workers=1 run.lanes=3 algorithm.name=scaffold local.momentum=0.9"),
    Case("two-workers", "run.workers=2 run.lanes=1 algorithm.name=scaffold local.momentum=0.9"),
    Case("shards", "data.partition=shards data.shards=3"),
    Case("classes", "data.partition=classes data.classes=3"),
    Case("quantity", "data.partition=quantity data.alpha=1.0 data.min_samples=5"),
    Case("power-law", "data.partition=power-law data.classes=3 data.sigma=1.0"),
    Case("similarity", "data.partition=similarity data.similarity=0.2"),
    Case("balanced", "data.partition=dirichlet-balanced data.alpha=0.3"),
    Case("iid-validation", "data.partition=iid data.validation=0.2"),
    Case("synthetic-logistic", "data.name=synthetic data.a=0.5 model.name=logistic local.lr=0.01"),
    Case("npz-mlp", "data.name=npz data.path={files}/blobs.npz model.name=mlp model.hidden=[16,16]"),
    Case("divergence", "metrics.divergence=true metrics.drift_every=1"),
    Case("mnist-mlp", MNIST + " model.hidden=[50] algorithm.name=scaffold"),
    Case("mnist-cnn", MNIST + " model.name=cnn"),
    Case("mnist-cnn-adam-sam", MNIST + " model.name=cnn local.optimizer=sam local.base=adam local.lr=0.001"),
    Case("mnist-cnn-mcmahan", MNIST + " model.name=cnn-mcmahan local.steps=2"),
    Case("mnist-resnet8", MNIST + " model.name=resnet8 local.steps=2 run.rounds=2 run.cohort=2"),
    Case("mnist-resnet18", MNIST + " model.name=resnet18 local.steps=1 run.rounds=1 run.cohort=1 local.batch_size=2"),
    Case("own-model-dropout", "model.name=tests.fence.model:with_dropout"),
    Case("resumed", "algorithm.name=scaffold local.optimizer=adam local.lr=0.001", "resumed"),
    Case("ranks", "algorithm.name=scaffold local.momentum=0.9 metrics.drift_every=1", "ranks"),
    Case("federation", "data.clients=3 run.participation=1.0 algorithm.name=scaffold local.momentum=0.9", "federation"),
    Case("federation-sam", "data.clients=3 run.participation=1.0 local.optimizer=sam", "federation"),
    Case("ray", "data.clients=3 run.participation=1.0 algorithm.name=scaffold local.momentum=0.9", "ray"),
)
