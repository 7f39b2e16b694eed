"""Networks as users write them, in PyTorch alone: one with residual blocks, one with attention."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions, added to their input, which a third one adapts."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """A convolution, two residual blocks, global pooling, a dense layer."""

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


class AttentionNetwork(nn.Module):
    """Patches as tokens, with a token for the class, through a transformer; as in a vision transformer."""

    def __init__(self, channels: int = 1, classes: int = 10, side: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, 16, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // 2) ** 2 + 1, 16))
        self.attention = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.positions
        return self.head(self.norm(self.attention(tokens))[:, 0])
