"""From stored pixels to the network's input, a batch at a time."""

import torch
from torch import Tensor

from active_learning.imaging import Preprocessing
from active_learning.learning.recipe import Augmentation


def normalize(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Scale stored pixels to what the network was built for.

    Args:
        pixels: (B, H, W, C) uint8.
        preprocessing: Gives mean and standard deviation per channel, on [0, 1].

    Returns:
        (B, C, H, W) float32 in channels-last memory, the layout that convolutions on a
        CPU work in.
    """
    mean = torch.tensor(preprocessing.mean, device=pixels.device)
    std = torch.tensor(preprocessing.std, device=pixels.device)
    scaled = pixels.to(torch.float32).sub_(mean * 255).div_(std * 255)
    return scaled.permute(0, 3, 1, 2)  # (B, C, H, W)


def augment(pixels: Tensor, augmentation: Augmentation, blank: Tensor) -> Tensor:
    """Flip, shift and partly cover each image at random.

    Args:
        pixels: (B, H, W, C) uint8.
        augmentation: ``flip`` mirrors half of them left to right; ``crop`` shifts each
            by up to so many pixels, and repeats the border where nothing is left;
            ``erase`` paints a rectangle with sides of half that to all of it over
            half of them, in the color ``blank``.
        blank: (C,) uint8.

    Returns:
        (B, H, W, C) uint8; random numbers come from torch's global generator.

    Source:
        ``erase``: Zhong et al., *Random Erasing Data Augmentation*, 2020; DeVries and
        Taylor, *Improved Regularization of Convolutional Neural Networks with
        Cutout*, 2017.
    """
    n, height, width, _ = pixels.shape
    device = pixels.device
    rows = torch.arange(height, device=device).expand(n, height)
    columns = torch.arange(width, device=device).expand(n, width)
    if augmentation.flip:
        mirrored = torch.rand(n, 1, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if augmentation.crop:
        reach = augmentation.crop
        shift = torch.randint(-reach, reach + 1, (2, n, 1), device=device)
        rows = (rows + shift[0]).clamp_(0, height - 1)
        columns = (columns + shift[1]).clamp_(0, width - 1)
    image = torch.arange(n, device=device)[:, None, None]
    moved = pixels[image, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    if augmentation.erase:
        side = augmentation.erase
        sides = torch.randint((side + 1) // 2, side + 1, (2, n, 1), device=device) / 2
        row = torch.randint(height, (n, 1), device=device)
        column = torch.randint(width, (n, 1), device=device)
        chosen = torch.rand(n, 1, device=device) < 0.5
        inside = (torch.arange(height, device=device) - row).abs() < sides[0]
        across = (torch.arange(width, device=device) - column).abs() < sides[1]
        covered = (inside & chosen)[:, :, None] & across[:, None, :]  # (B, H, W)
        moved = torch.where(covered[..., None], blank, moved)
    return moved
