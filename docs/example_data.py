"""Two networks that are not fed images, and data for them, in a module of your own.

They are named by ``--layer docs.example_data:mlp --data docs.example_data:digits`` and
``--layer docs.example_data:encoder --data docs.example_data:texts``. A factory takes no
arguments and gives the same every time.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

KEYS, VALUES, LONGEST, WIDTH, HEADS = 8, 8, 9, 32, 4


@dataclass(frozen=True)
class Examples:
    """Batches for calibration and, with what is right for them, for evaluation."""

    calibration: list
    evaluation: list
    name: str = "accuracy"

    def score(self, outputs, targets):
        """1 for each example that is classified as it should be, else 0."""
        return outputs.argmax(1) == targets


class Texts(Examples):
    """Examples whose batches are padded to the length of the longest text."""

    def mask(self, batch):
        """Which positions hold a token."""
        return ~batch["padding"]


def trained(network, batches, epochs, rate):
    """The network after some epochs of Adam with a falling rate."""
    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * len(batches)
    )
    for _ in range(epochs):
        for batch, targets in batches:
            outputs = network(**batch) if isinstance(batch, dict) else network(batch)
            optimizer.zero_grad()
            F.cross_entropy(outputs, targets).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def digit_batches():
    """Handwritten digits of 8 x 8 pixels in batches: for training, for evaluation."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    batches = list(zip(x.split(100), y.split(100), strict=True))
    return batches[:12], batches[12:]


def digits():
    """Data for `mlp`."""
    training, evaluation = digit_batches()
    return Examples([batch for batch, _ in training], evaluation)


def mlp():
    """A multilayer perceptron, trained in a second."""
    torch.manual_seed(0)
    layers = (nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
    return trained(
        nn.Sequential(*layers, nn.Linear(32, 10)), digit_batches()[0], 40, 0.01
    )


def text_batches(count, seed):
    """Texts of a key and tokens that stand for pairs of key and value, 0 for padding.

    What is asked for is the value of the key.
    """
    generator = torch.Generator().manual_seed(seed)

    def text(batch):
        keys = torch.rand(batch, KEYS, generator=generator).argsort(1)
        values = torch.randint(VALUES, (batch, KEYS), generator=generator)
        length = torch.randint(2, LONGEST, (batch, 1), generator=generator)
        wanted = (torch.rand(batch, 1, generator=generator) * length).long()
        tokens = torch.cat(
            [keys.gather(1, wanted) + 1, 1 + KEYS + keys * VALUES + values], 1
        )
        padding = torch.arange(LONGEST) > length
        tokens = tokens.masked_fill(padding, 0)
        return {"tokens": tokens, "padding": padding}, values.gather(1, wanted)[:, 0]

    return [text(128) for _ in range(count)]


def texts():
    """Data for `encoder`."""
    training = [batch for batch, _ in text_batches(8, seed=1)]
    return Texts(training, text_batches(8, seed=2))


class Block(nn.Module):
    """A block of a transformer: attention, then two linear layers."""

    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x, padding):
        """From ``[B, T, WIDTH]`` to the same."""
        y = self.norm1(x)
        q, k, v = (
            layer(y).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = ~padding[:, None, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """A transformer that reads a text and says what is asked for in its first token."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1 + KEYS + KEYS * VALUES, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(WIDTH, VALUES)

    def forward(self, tokens, padding):
        """Logits ``[B, VALUES]`` for tokens and padding ``[B, T]``."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, padding)
        return self.head(x[:, 0])


def encoder():
    """A small text encoder, trained in seconds."""
    torch.manual_seed(0)
    return trained(Encoder(), text_batches(100, seed=0), 3, 0.003)
