"""A text classifier with LoRA: a frozen BERT, small trainable matrices in its attention, and a trainable head.

`python text_lora.py` writes texts.npz; `fedopt run experiment.toml` trains.
"""

from __future__ import annotations

import random

import numpy as np
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertModel

LENGTH = 12
"""Words of a text; shorter ones are padded."""

TOPICS = {
    "weather": "rain snow wind cloud storm sun frost fog thunder hail",
    "food": "bread soup cheese apple rice salt pepper lemon butter fish",
    "sport": "goal match team race coach ball medal score runner league",
    "travel": "train hotel map ticket airport road harbor luggage border guide",
}
OTHER = "the a we saw had very good bad new old today again with and then some of in was there"
WORDS = ["[PAD]", *OTHER.split(), *(word for words in TOPICS.values() for word in words.split())]


class Classifier(nn.Module):
    """From word numbers [B, LENGTH] to logits [B, classes]: the mean of BERT's outputs, and a linear head."""

    def __init__(self, classes: int, rank: int) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=len(WORDS),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=LENGTH,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        # In practice: BertModel.from_pretrained(FOLDER). Random weights keep the example small and offline.
        bert = BertModel(config, add_pooling_layer=False)
        self.bert = get_peft_model(bert, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["query", "value"]))
        self.head = nn.Linear(config.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        words = x.long()  # fedopt passes samples as floating-point numbers
        is_word = (words > 0).long()
        outputs = self.bert(input_ids=words, attention_mask=is_word).last_hidden_state
        logits: Tensor = self.head((outputs * is_word[..., None]).sum(1) / is_word.sum(1, keepdim=True))
        return logits


def classifier(classes: int, rank: int = 4) -> nn.Module:
    """What `model.name` names. It is a function of its arguments and of torch's seed."""
    return Classifier(classes, rank)


def write_texts(file: str, samples: int = 2000, test: int = 500) -> None:
    """Texts in which two words of a topic stand among other words."""
    draw, number = random.Random(0), {word: index for index, word in enumerate(WORDS)}
    x, y = np.zeros((samples + test, LENGTH), dtype=np.int64), np.zeros(samples + test, dtype=np.int64)
    for row in range(samples + test):
        y[row] = draw.randrange(len(TOPICS))
        words = draw.choices(list(TOPICS.values())[y[row]].split(), k=2)
        words += draw.choices(OTHER.split(), k=draw.randrange(4, LENGTH - 1))
        draw.shuffle(words)
        x[row, : len(words)] = [number[word] for word in words]
    np.savez(file, x_train=x[:samples], y_train=y[:samples], x_test=x[samples:], y_test=y[samples:])


if __name__ == "__main__":
    write_texts("texts.npz")
