"""Strategies that look at a batch as a whole, on (N, D) embeddings.

All work on the rows in the order of their image_ids, so that equal pools give equal
picks in whatever order they come.
"""

import numpy as np

from active_learning.acquisition import uncertainty
from active_learning.acquisition.pool import (
    Float32Array,
    FloatArray,
    IntArray,
    Pool,
    picked_first,
)

# Average linkage compares all pairs: 5,000 images are 100 MB of distances.
_MAX_LINKED = 5000
_MARGIN_FACTOR = 10

_MAX_CLUSTERS = 500
_MIN_CLUSTER_SIZE = 5
_N_NEIGHBORS = 20
_MAX_LLOYD_CLUSTERS = 50

_ROWS = 1024
_CENTERS = 1024
_PAIRS = 4096
_NEAR_THE_TOP = 0.995

# Half the distance between 1 and the next float32.
_ROUNDOFF = 2.0**-24


def coreset(pool: Pool) -> FloatArray:
    """Ask for images such that no image is far from a label: k-center greedy.

    Each pick is the image farthest from its nearest center, exactly as if every
    distance were worked out at every pick. Centers are what has a label and the picks
    so far; where nothing has one, the first pick is the image closest to the mean.

    Returns:
        (N,) the picks in their order above 1; the others below, by their distance to
        the nearest center.

    Raises:
        PredictionsError: The pool has no embeddings.

    Source:
        Sener and Savarese, *Active Learning for Convolutional Neural Networks: A
        Core-Set Approach*, 2018, algorithm 1. It differs in that the first center is
        the one closest to the mean and not a random one, and in that the mixed integer
        program after it, which sets outliers aside, is left out. Distances are worked
        out when they can matter: Minoux, *Accelerated Greedy Algorithms for Maximizing
        Submodular Set Functions*, 1978.
    """
    centers = _Centers(
        pool.features("coreset"), pool.order, pool.labeled_embeddings, pool.n_asked
    )
    for number in range(pool.n_asked):
        if number == 0 and centers.n == 0:
            centers.add(centers.closest_to_mean())
            continue
        farthest = centers.farthest()
        if farthest is None:
            # All that is left lies on a center: any order is as good.
            break
        centers.add(farthest)
    rest = np.empty(len(pool))
    rest[pool.order] = centers.distances()
    return picked_first(pool.order[centers.picks], rest)


class _Centers:
    """Distances of N points to their nearest center, worked out when they can matter.

    A distance to the nearest center can only shrink, so that an old one is an upper
    bound; a point whose bound is below the farthest distance known needs no new one.
    Blocks of points meet all centers that are new to them in one matrix product. That
    is float32, about the mean; its rounding error is bounded, and what lies within it
    of the farthest is compared again in float64. Places count in the order given.

    Args:
        vectors: (N, D).
        order: (N,) rows of the vectors in the order in which ties are broken.
        labeled: (L, D) the first centers.
        n_more: How many will be added.
    """

    def __init__(
        self,
        vectors: Float32Array,
        order: IntArray,
        labeled: Float32Array | None,
        n_more: int,
    ) -> None:
        """Take the labeled images as centers; no distance is known yet."""
        self._vectors, self._order = vectors, order
        n, d = vectors.shape
        self._labeled = np.empty((0, d), np.float32) if labeled is None else labeled
        self._n_labeled = self.n = len(self._labeled)
        self._picks = np.empty(n_more, dtype=np.int64)
        self._mean = np.zeros(d)
        for block in _blocks(n):
            self._mean += vectors[order[block]].sum(axis=0, dtype=np.float64) / n
        self._origin = self._mean.astype(np.float32)
        self._centers = np.empty((self.n + n_more, d), dtype=np.float32)
        np.subtract(self._labeled, self._origin, out=self._centers[: self.n])
        self._center_squares = np.empty(self.n + n_more, dtype=np.float32)
        self._center_squares[: self.n] = _squares(self._centers[: self.n])
        self._point_squares = np.empty(n)
        for block in _blocks(n):
            self._point_squares[block] = _squares(self._points(block))
        # Of |x|^2 + |c|^2 - 2 x c, with D roundings in the product and a few around it.
        largest = max(
            self._point_squares.max(initial=0),
            float(self._center_squares[: self.n].max(initial=0)),
        )
        reach = np.sqrt(self._point_squares) + np.sqrt(largest)
        self._error = (d / 2 + 8) * _ROUNDOFF * reach**2
        self._bound = np.full(n, np.inf)
        self._n_met = np.zeros(n, dtype=np.int64)
        self._free = np.ones(n, dtype=bool)

    @property
    def picks(self) -> IntArray:
        """Places of the added centers, the first added first."""
        return self._picks[: self.n - self._n_labeled]

    def add(self, place: int) -> None:
        """Make a point a center."""
        self._centers[self.n] = self._points(np.array([place]))[0]
        self._center_squares[self.n] = self._point_squares[place]
        self._picks[self.n - self._n_labeled] = place
        self.n += 1
        self._free[place] = False
        self._bound[place] = -np.inf

    def closest_to_mean(self) -> int:
        """The first point as close to the mean as any."""
        squares = np.empty(len(self._order))
        for block in _blocks(len(squares)):
            squares[block] = _squares(self._vectors[self._order[block]] - self._mean)
        return int(squares.argmin())

    def farthest(self) -> int | None:
        """The first point as far from its nearest center as any; none at all at 0."""
        least = 0.0
        while True:
            old = np.where(self._n_met < self.n, self._bound, -np.inf)
            top = old.max()
            if top < least:
                break
            # The best of those near the top will spare most others the look.
            places = np.flatnonzero(old >= max(least, _NEAR_THE_TOP * top))
            self._meet(places)
            sure = self._bound[places] - 2 * self._error[places]
            least = max(least, float(sure.max()))
        contenders = np.flatnonzero(self._bound >= least)
        if len(contenders) == 1:
            return int(contenders[0])
        exact = self._exact(contenders)
        best = int(exact.argmax())
        return int(contenders[best]) if exact[best] > 0 else None

    def distances(self) -> FloatArray:
        """(N,) squared distances to the nearest center, to float32; 0 for a center."""
        self._meet(np.flatnonzero(self._free & (self._n_met < self.n)))
        # What may be rounding alone is none, so that copies of a center tie.
        known = self._free & (self._bound > 2 * self._error)
        nearest: FloatArray = np.where(known, self._bound - self._error, 0.0)
        return nearest

    def _meet(self, places: IntArray) -> None:
        # Those that have met as many centers lie together, so that few meet one twice.
        places = places[np.argsort(self._n_met[places], kind="stable")]
        for start in range(0, len(places), _ROWS):
            block = places[start : start + _ROWS]
            points = self._points(block)
            for since in range(int(self._n_met[block[0]]), self.n, _CENTERS):
                new = slice(since, min(since + _CENTERS, self.n))
                nearest = self._products(points, new).min(axis=1)
                bound = nearest + self._point_squares[block] + self._error[block]
                self._bound[block] = np.minimum(self._bound[block], bound)
            self._n_met[block] = self.n

    def _exact(self, places: IntArray) -> FloatArray:
        nearest = np.empty(len(places))
        size = max(1, _ROWS * _CENTERS // self.n)
        for start in range(0, len(places), size):
            block = places[start : start + size]
            near = self._products(self._points(block), slice(0, self.n))
            within = near.min(axis=1) + 2 * self._error[block]
            point, center = np.nonzero(near <= within[:, None])
            squares = np.empty(len(point))
            for pairs in _blocks(len(point), _PAIRS):
                one = self._vectors[self._order[block[point[pairs]]]]
                other = self._raw_centers(center[pairs])
                squares[pairs] = _squares(one.astype(np.float64) - other)
            starts = np.flatnonzero(np.diff(point, prepend=-1))
            nearest[start : start + size] = np.minimum.reduceat(squares, starts)
        return nearest

    def _products(self, points: Float32Array, which: slice) -> Float32Array:
        # |c|^2 - 2 x c, in place: |x|^2 is one number for all centers.
        products: Float32Array = points @ self._centers[which].T
        products *= -2
        products += self._center_squares[which]
        return products

    def _points(self, places: IntArray | slice) -> Float32Array:
        points: Float32Array = self._vectors[self._order[places]]
        points -= self._origin
        return points

    def _raw_centers(self, numbers: IntArray) -> Float32Array:
        vectors = np.empty((len(numbers), self._vectors.shape[1]), dtype=np.float32)
        old = numbers < self._n_labeled
        picks = self._picks[numbers[~old] - self._n_labeled]
        vectors[old] = self._labeled[numbers[old]]
        vectors[~old] = self._vectors[self._order[picks]]
        return vectors


def typiclust(pool: Pool) -> FloatArray:
    """Ask for the most typical image of each cluster that holds no label yet.

    All images, labeled ones too, fall into as many clusters as there will be labels,
    up to 500. Those without a label come first, of these the largest; each gives its
    most typical image in turn, then all give their second. Clusters of fewer than 5
    images are left to the end. Typicality is one over the mean distance to the 20
    nearest neighbors among the cluster's images without a label.

    Returns:
        (N,) N for the first pick down to 1 for the last.

    Raises:
        PredictionsError: The pool has no embeddings.

    Source:
        Hacohen, Dekel and Weinshall, *Active Learning on a Budget: Opposite Strategies
        Suit High and Low Budgets*, 2022. It differs in that the embeddings are the
        classifier's and not a self-supervised network's, in that typicality is worked
        out once and not again after each pick, and in that small clusters come last
        and are not left out.
    """
    vectors = pool.features("typiclust")[pool.order]
    if not len(pool):
        return np.empty(0)
    clusters, held = _cluster(vectors, pool)
    atypical = np.empty(len(pool))
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        atypical[members] = _mean_distance(vectors[members])
    sizes = np.bincount(clusters, minlength=len(held))
    turn = _place_within(clusters, np.argsort(atypical, kind="stable"))
    small = sizes < _MIN_CLUSTER_SIZE
    # Of clusters alike in all else, the one with the first image comes first.
    present, first = np.unique(clusters, return_index=True)
    leads = np.zeros(len(held), dtype=np.int64)
    leads[present] = first
    picks = np.lexsort(
        (
            leads[clusters],
            -sizes[clusters],
            held[clusters],
            turn,
            small[clusters],
        )
    )
    return picked_first(pool.order[picks], np.zeros(len(pool)))


def _cluster(vectors: Float32Array, pool: Pool) -> tuple[IntArray, IntArray]:
    """(N,) clusters of the vectors, and for each cluster how many labels it holds."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    labeled = pool.labeled_embeddings
    n_labeled = 0 if labeled is None else len(labeled)
    together = vectors if labeled is None else np.concatenate([vectors, labeled])
    n_clusters = min(n_labeled + pool.n_asked, _MAX_CLUSTERS, len(together))
    few = n_clusters <= _MAX_LLOYD_CLUSTERS
    make = KMeans if few else MiniBatchKMeans
    # One thread, as several add up their parts in the order in which they are done.
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        # Copies of an image leave fewer different points than clusters, which is fine.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = make(n_clusters, n_init=1, random_state=pool.seed).fit_predict(together)
    clusters = np.asarray(found, dtype=np.int64)
    held = np.bincount(clusters[len(vectors) :], minlength=n_clusters)
    return clusters[: len(vectors)], held.astype(np.int64)


def _mean_distance(vectors: Float32Array) -> FloatArray:
    """(n,) mean distance to the nearest neighbors; 0 for a vector on its own."""
    from sklearn.neighbors import NearestNeighbors

    n_neighbors = min(_N_NEIGHBORS, len(vectors) - 1)
    if n_neighbors < 1:
        return np.zeros(len(vectors))
    # Brute force is exact and, in hundreds of dimensions, faster than any tree.
    near = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(vectors)
    distances, _ = near.kneighbors()
    means: FloatArray = distances.mean(axis=1, dtype=np.float64)
    return means


def cluster_margin(pool: Pool) -> FloatArray:
    """Ask where the two best classes are closest, but in all corners of the space.

    The 10 x budget images of least margin, at most 5,000, fall into as many clusters
    as images are asked for. Rounds go over the clusters, the smallest first; each
    gives its image of least margin.

    Returns:
        (N,) the clustered images in the order of the rounds above 1; the others below,
        by one minus the lead.

    Raises:
        PredictionsError: The pool has no embeddings.

    Source:
        Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh and Kumar, *Batch
        Active Learning at Scale*, 2021. It differs in that the candidates are clustered
        and not the whole pool once, in that the tree is cut into as many clusters as
        images are asked for and not at a distance to be tuned, and in that a cluster
        gives its least margin and not a random image.
    """
    vectors = pool.features("cluster_margin")
    doubt = 1.0 - uncertainty.margin(pool.probabilities)
    by_doubt = pool.order[np.argsort(-doubt[pool.order], kind="stable")]
    candidates = by_doubt[: min(_MARGIN_FACTOR * pool.n_asked, _MAX_LINKED)]
    clusters = _link(vectors[candidates], pool.n_asked)
    turn = _place_within(clusters, np.arange(len(candidates)))
    sizes = np.bincount(clusters)
    _, first = np.unique(clusters, return_index=True)
    picks = np.lexsort((first[clusters], sizes[clusters], turn))
    return picked_first(candidates[picks], doubt)


def _link(vectors: Float32Array, n_clusters: int) -> IntArray:
    """(n,) clusters, numbered from 0, by average linkage of Euclidean distances."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(vectors) < 2:
        return np.zeros(len(vectors), dtype=np.int64)
    tree = linkage(vectors.astype(np.float64), method="average")
    numbers = fcluster(tree, n_clusters, criterion="maxclust")
    _, clusters = np.unique(numbers, return_inverse=True)
    return clusters.astype(np.int64)


def badge(pool: Pool) -> FloatArray:
    """Ask where a label would move the last layer far, and each in another direction.

    The gradient of the loss in the last layer, were the prediction true, is the outer
    product of (p - onehot(argmax p)) and the embedding. Picks are k-means++ seeds among
    these: the longest first, then each in proportion to its squared distance to the
    nearest seed. A distance between outer products needs only the inner products of
    their factors, so that the (N, C x D) gradients are never built.

    Returns:
        (N,) the picks in their order above 1; the others below, by one minus the lead.
        Picks are fewer than the budget when no other gradient is left.

    Raises:
        PredictionsError: The pool has no embeddings.

    Source:
        Ash, Zhang, Krishnamurthy, Langford and Agarwal, *Deep Batch Active Learning by
        Diverse, Uncertain Gradient Lower Bounds*, 2020. It differs in the source of
        randomness alone, which belongs to the pool; products are float32, and what
        they cannot tell from a seed counts as one.
    """
    vectors = pool.features("badge")[pool.order]
    errors = pool.probabilities[pool.order]
    if len(pool):
        errors[np.arange(len(pool)), errors.argmax(axis=1)] -= 1.0
    picks = _seeds(errors, vectors, pool.n_asked, np.random.default_rng(pool.seed))
    return picked_first(pool.order[picks], 1.0 - uncertainty.margin(pool.probabilities))


def _seeds(
    errors: FloatArray, vectors: Float32Array, n: int, generator: np.random.Generator
) -> IntArray:
    """k-means++ seeds among the outer products of the rows of two arrays."""
    squares = _squares(errors) * _squares(vectors)
    nearest = np.full(len(squares), np.inf)
    picks: list[int] = []
    while len(picks) < n:
        if not picks:
            pick = int(squares.argmax())
        else:
            below = np.cumsum(nearest)
            if below[-1] <= 0:
                break
            drawn = np.searchsorted(below, generator.random() * below[-1], "right")
            pick = min(int(drawn), int(np.flatnonzero(nearest)[-1]))
        picks.append(pick)
        distances = _gradient_distances(errors, vectors, squares, pick)
        np.minimum(nearest, distances, out=nearest)
        nearest[pick] = 0.0
    return np.array(picks, dtype=np.int64)


def _gradient_distances(
    errors: FloatArray, vectors: Float32Array, squares: FloatArray, one: int
) -> FloatArray:
    """(N,) squared distances of the outer products to one of them."""
    both = squares + squares[one]
    distances = both - 2 * (errors @ errors[one]) * (vectors @ vectors[one])
    # Less than what float32 tells apart is rounding, and may be negative.
    nowhere: FloatArray = np.where(distances > 1e-5 * both, distances, 0.0)
    return nowhere


def _place_within(clusters: IntArray, ranking: IntArray) -> IntArray:
    """(n,) how many of its own cluster stand before each in a ranking of all."""
    by_cluster = ranking[np.argsort(clusters[ranking], kind="stable")]
    sizes = np.bincount(clusters)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.empty(len(clusters), dtype=np.int64)
    places[by_cluster] = np.arange(len(clusters)) - starts
    return places


def _squares(vectors: Float32Array | FloatArray) -> FloatArray:
    """(n,) squared lengths, in float64; a row's does not depend on the others."""
    lengths = np.empty(len(vectors))
    for block in _blocks(len(vectors)):
        rows = vectors[block].astype(np.float64)
        lengths[block] = np.square(rows).sum(axis=1)
    return lengths


def _blocks(n: int, size: int = _ROWS) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
