"""A client: a plain PyTorch training loop, with the algorithm's correction in every step."""

from __future__ import annotations

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from task import Samples, accuracy, load_digits, make_model
from torch.nn import functional as F

import fedopt.flower

app = ClientApp()


def own_samples(context: Context) -> Samples:
    clients, _ = load_digits(int(context.node_config["num-partitions"]), int(context.run_config["seed"]))
    return clients[int(context.node_config["partition-id"])]


@app.query("hello")
def hello(msg: Message, context: Context) -> Message:
    """The strategy asks once how many samples this client has."""
    return fedopt.flower.hello(msg, context, samples=len(own_samples(context)[1]))


@app.train()
def train(msg: Message, context: Context) -> Message:
    config = context.run_config
    x, y = own_samples(context)
    model = make_model()
    local = fedopt.flower.local_work(msg, context, model, samples=len(y))  # loads the global model
    optimizer = local.attach(torch.optim.SGD(model.parameters(), lr=float(config["lr"])))
    model.train()
    losses = []
    for rows in local.batches(batch_size=int(config["batch-size"]), epochs=int(config["epochs"])):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return local.reply(train_loss=sum(losses) / len(losses))


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Called if the strategy's fraction_evaluate is above 0."""
    samples = own_samples(context)
    model = make_model()
    fedopt.flower.load_model(msg, context, model)
    metrics = MetricRecord({"num-examples": len(samples[1]), "accuracy": accuracy(model, samples)})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
