"""One batched mixture fit against one scikit-learn fit per class: 80 classes of 100 scores, one thread.

Both give a threshold per class from the same queues, and must give the same ones. They take turns, each several times;
the last line is the ratio of their medians.

    python benchmarks/speed/gmm.py
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from ssodkit.ops.mixture import mixture_thresholds

Queues = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--scores", type=int, default=100, help="in the queue of each class")
    parser.add_argument("--repeats", type=int, default=11)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # scikit-learn says where a fit stopped before it had converged
    queues = draw_queues(args.classes, args.scores)
    difference = np.abs(fit_together(queues) - fit_one_by_one(queues)).max()
    if difference > 1e-6:
        raise SystemExit(f"the two do not agree: thresholds differ by up to {difference}")
    together, one_by_one = [], []
    for _ in range(args.repeats):
        together.append(seconds(fit_together, queues))
        one_by_one.append(seconds(fit_one_by_one, queues))
    print(f"{args.classes} classes of {args.scores} scores, one thread, medians of {args.repeats}; same thresholds")
    print(f"scikit-learn, class by class  {1000 * statistics.median(one_by_one):8.1f} ms")
    print(f"ssodkit, all classes at once  {1000 * statistics.median(together):8.1f} ms")
    print(f"{statistics.median(one_by_one) / statistics.median(together):.1f} x")


def draw_queues(classes: int, scores: int) -> Queues:
    """A detector's scores: of each class some objects that it is sure of, and more that it is not."""
    random = np.random.RandomState(0)
    sure = random.uniform(size=(classes, scores)) < random.uniform(0.05, 0.6, size=(classes, 1))
    groups = np.where(sure, random.normal(0.7, 0.12, sure.shape), random.normal(0.15, 0.07, sure.shape))
    return groups.clip(0.05, 1.0)


def fit_together(queues: Queues) -> Queues:
    scores = torch.from_numpy(queues)
    thresholds, _ = mixture_thresholds(scores, scores > 0.0)
    return thresholds.numpy()


def fit_one_by_one(queues: Queues) -> Queues:
    return np.array([threshold_of(scores[:, None]) for scores in queues])


def threshold_of(scores: Queues) -> float:
    mixture = GaussianMixture(
        2,
        weights_init=[0.5, 0.5],
        means_init=[[scores.min()], [scores.max()]],
        precisions_init=[[[1.0]], [[1.0]]],
    )
    made = mixture.fit(scores).predict(scores) == 1
    if not made.any():
        return 0.0
    return float(scores[np.where(made, mixture.score_samples(scores), -np.inf).argmax(), 0])


def seconds(fit: Callable[[Queues], Queues], queues: Queues) -> float:
    start = time.perf_counter()
    fit(queues)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
