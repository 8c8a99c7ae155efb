"""The simulation as a researcher's script: no Kedro, no Lightning, no files.

Run as a process of its own by the benchmarks, on a folder that ``Stage.write_arrays``
prepared: ``python -m tests.benchmarks.bare_loop <folder>``. Pixels are in memory before
the loop starts; nothing is written but one line of JSON at the end.

Network, augmentation, normalization and strategies are the project's own functions, and
every parameter comes from ``conf``. What Lightning does is written out by hand with the
same random numbers in the same order, so that on one machine both reach the same
accuracies to the last digit: what differs in time then is what surrounds the training.

Names of strategies behind the folder take those alone.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel

from active_learning.acquisition import Pool, find_strategy, rank, sampling_keys
from active_learning.imaging import Preprocessing
from active_learning.learning.networks import build_network
from active_learning.learning.recipe import Network, Recipe
from active_learning.learning.transforms import augment, normalize


class BareLoop:
    """Rounds of scoring, selecting, training and evaluating on tensors.

    Args:
        folder: ``settings.json`` and the arrays; rows are in the order of image_id.
    """

    def __init__(self, folder: Path) -> None:
        """Read everything into memory."""
        settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
        self.settings = settings
        self.recipe = Recipe.model_validate(settings["recipe"])
        self.network = Network.model_validate(settings["network"])
        self.preprocessing = Preprocessing.model_validate(settings["preprocessing"])
        if settings["start"] != "previous" or self.network.weights is not None:
            raise SystemExit("The bare loop knows train.init.start 'previous' alone.")
        if self.recipe.balance != "none" or self.recipe.early_stopping is not None:
            raise SystemExit("The bare loop knows neither balance nor early stopping.")
        self.pixels = torch.from_numpy(np.load(folder / "pool_pixels.npy"))
        self.test_pixels = torch.from_numpy(np.load(folder / "test_pixels.npy"))
        arrays = np.load(folder / "arrays.npz")
        self.targets = torch.from_numpy(arrays["targets"])
        self.test_targets = torch.from_numpy(arrays["test_targets"])
        self.rounds = arrays["rounds"]
        self.image_ids = np.array(settings["image_ids"], dtype=object)
        mean = torch.tensor(self.preprocessing.mean)
        self.blank = (mean * 255).round().to(torch.uint8)

    def run(self, strategies: Sequence[str]) -> dict[str, list[float]]:
        """Accuracy after each round, by strategy; all go on from one first model."""
        initial = self.rounds == 0
        first = self.train(np.flatnonzero(initial), None, 1)
        accuracies = {}
        for strategy in strategies:
            champion, labeled = first, initial.copy()
            curve = [self.accuracy(first)]
            for number in range(1, self.settings["rounds"] + 1):
                stream = np.flatnonzero(self.rounds == number)
                labeled[self.choose(strategy, champion, stream, number)] = True
                champion = self.train(np.flatnonzero(labeled), champion, number + 1)
                curve.append(self.accuracy(champion))
            accuracies[strategy] = curve
        return accuracies

    def choose(
        self, strategy: str, champion: nn.Module, stream: Any, version: int
    ) -> Any:
        """Rows of the stream to ask for."""
        ids = tuple(self.image_ids[stream])
        pool = Pool(
            image_ids=ids,
            probabilities=self.probabilities(
                champion, self.pixels[stream], self.settings["score_batch_size"]
            ),
            sampling_keys=sampling_keys(ids, version),
        )
        order, _ = rank(pool, find_strategy(strategy))
        return stream[order[: self.settings["labels_per_round"]]]

    def train(self, rows: Any, champion: nn.Module | None, version: int) -> nn.Module:
        """Fine-tune on every label so far."""
        recipe = self.recipe
        pixels, targets = self.pixels[rows], self.targets[rows]
        sequence = np.random.SeedSequence([self.settings["seed"], version])
        seed = int(sequence.generate_state(1)[0])
        torch.manual_seed(seed)
        model = self.build()
        if champion is not None:
            # Drawn twice, as the project does, so that random numbers stay in step.
            model = self.build()
            model.load_state_dict(champion.state_dict())
        model.train()
        n_batches = math.ceil(len(targets) / recipe.batch_size)
        n_steps = max(recipe.min_steps, recipe.min_epochs * n_batches)
        optimizer, cycle = self.optimizer(model, n_steps)
        loss_of = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        average = None
        if recipe.averaging:
            average = AveragedModel(
                model, multi_avg_fn=self.move_average, use_buffers=True
            )
        step, epoch = 0, 0
        while step < n_steps:
            # A DataLoader draws a number each epoch; see above.
            torch.empty((), dtype=torch.int64).random_()
            generator = torch.Generator().manual_seed(seed + epoch)
            order = torch.randperm(len(targets), generator=generator)
            full = order.repeat(math.ceil(n_batches * recipe.batch_size / len(order)))
            batches = full[: n_batches * recipe.batch_size].view(n_batches, -1)
            for batch in batches[: n_steps - step]:
                seen = augment(pixels[batch], recipe.augmentation, self.blank)
                logits = model(normalize(seen, self.preprocessing))
                loss: Tensor = loss_of(logits, targets[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
                if average is not None:
                    average.update_parameters(model)
                step += 1
            epoch += 1
        return (model if average is None else average.module).eval()

    def build(self) -> nn.Module:
        """A network with random weights."""
        network = build_network(
            self.network, self.settings["n_classes"], self.preprocessing
        )
        return network.to(memory_format=torch.channels_last)

    def optimizer(self, model: nn.Module, n_steps: int) -> tuple[AdamW, OneCycleLR]:
        """AdamW with one learning rate cycle."""
        groups: list[dict[str, Any]] = [
            {"params": [], "weight_decay": self.recipe.weight_decay},
            {"params": [], "weight_decay": 0.0},
        ]
        for weight in model.parameters():
            groups[weight.ndim <= 1]["params"].append(weight)
        rate = self.recipe.learning_rate
        optimizer = AdamW(groups, lr=rate, fused=True)
        cycle = OneCycleLR(
            optimizer, max_lr=rate, total_steps=n_steps, cycle_momentum=False
        )
        return optimizer, cycle

    def move_average(
        self, averages: list[Tensor], currents: list[Tensor], n_averaged: Tensor
    ) -> None:
        """Polyak averaging with a warm-up."""
        n = int(n_averaged)
        share = 1 - min(self.recipe.averaging, (1 + n) / (10 + n))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, share)
        else:
            torch._foreach_copy_(averages, currents)

    @torch.inference_mode()
    def probabilities(self, model: nn.Module, pixels: Tensor, batch_size: int) -> Any:
        """(N, C) float64."""
        parts = [
            model(normalize(batch, self.preprocessing)).double().softmax(dim=1)
            for batch in pixels.split(batch_size)
        ]
        return torch.cat(parts).numpy()

    def accuracy(self, model: nn.Module) -> float:
        """On all test images."""
        batch_size = self.settings["evaluation_batch_size"]
        said = self.probabilities(model, self.test_pixels, batch_size).argmax(axis=1)
        return float((torch.from_numpy(said) == self.test_targets).double().mean())


if __name__ == "__main__":
    loop = BareLoop(Path(sys.argv[1]))
    strategies = sys.argv[2:] or loop.settings["strategies"]
    print(json.dumps(loop.run(strategies)))  # noqa: T201
