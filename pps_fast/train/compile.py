"""Compiles the kernels of a config's steps before anything needs them: all at once and in parallel, with progress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from tqdm import tqdm

from pps_fast.config import PPSConfig
from pps_fast.model import PPS
from pps_fast.ops.launches import Launches, compile_launches, record_launches
from pps_fast.train.alternating import TRAIN_STEPS
from pps_fast.train.fake_step import fake_batch, make_fake
from pps_fast.types import FeatureSizes

# word columns up to which the kernels are the same; with a token before and one behind them they are 32
_ONE_BLOCK = 30


def step_launches(
    config: PPSConfig, sizes: FeatureSizes, columns: Iterable[int], device: torch.device | str, batch_size: int
) -> Launches:
    """Returns what training and evaluation compile, from steps of fake tensors.

    Args:
        sizes: of the data set.
        columns: numbers of word columns of the batches.
        device: a CUDA device that is there, or the CPU with Triton's interpreter.
        batch_size: B.
    """
    device, is_rounded = torch.device(device), config.inference.precision == "bf16"
    with torch.device("meta"):
        model = PPS(config, sizes).train()
    with FakeTensorMode(), record_launches() as launches:
        make_fake(model, device)
        step = TRAIN_STEPS[config.train.update](model, config)
        for num_columns in columns:
            batch = fake_batch(sizes, num_columns, batch_size, device)
            step(batch)
            with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_rounded):
                # which computes padding, as its batches have hardly any
                model.eval()(replace(batch, total_words=None), with_negatives=False)
            model.train()
    return launches


def compile_steps(config: PPSConfig, sizes: FeatureSizes, num_columns: int, device: torch.device | str) -> int:
    """Compiles what training and evaluation need on a CUDA device, shows progress, and returns how many kernels.

    Triton keeps them on disk, where other processes find them.

    Args:
        sizes: of the data set.
        num_columns: most word columns of its batches. Shorter batches need the same kernels, but that a block of words
            is as large as the next power of two; for up to `_ONE_BLOCK` words there is one.
    """
    columns = [num_columns]
    while columns[-1] > _ONE_BLOCK:
        columns.append(columns[-1] // 2)
    launches = step_launches(config, sizes, columns, device, config.train.batch_size)
    with tqdm(total=len(launches), desc="compiling kernels", unit="kernel") as bar:
        compile_launches(launches, bar.update)
    return len(launches)
