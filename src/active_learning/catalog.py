"""Kedro's catalog, for a pipeline of thousands of datasets."""

from functools import cache
from typing import Any, Self

import parse
from kedro.io import AbstractDataset, CatalogConfigResolver, DataCatalog


class FactoryPatterns(CatalogConfigResolver):
    """Dataset factories that look each name up once.

    Kedro compiles every pattern again for every name, and asks several times for each:
    250,000 times before the first node of a simulation runs.
    """

    @classmethod
    def of(cls, resolver: CatalogConfigResolver) -> Self:
        """The same configuration."""
        patterns = cls()
        vars(patterns).update(vars(resolver))
        return patterns

    def match_dataset_pattern(self, ds_name: str) -> str | None:
        """The first pattern that fits the name, the most specific first."""
        return _first_match(tuple(self._dataset_patterns), ds_name)


class Catalog(DataCatalog):
    """A ``DataCatalog`` whose factories are ``FactoryPatterns``."""

    def __init__(
        self,
        datasets: dict[str, AbstractDataset[Any, Any]] | None = None,
        config_resolver: CatalogConfigResolver | None = None,
        **options: Any,
    ) -> None:
        """Take what ``DataCatalog`` takes."""
        if config_resolver is not None:
            config_resolver = FactoryPatterns.of(config_resolver)
        super().__init__(datasets, config_resolver, **options)


@cache
def _first_match(patterns: tuple[str, ...], name: str) -> str | None:
    for pattern in patterns:
        if _compiled(pattern).parse(name):
            return pattern
    return None


@cache
def _compiled(pattern: str) -> Any:
    return parse.compile(pattern)
