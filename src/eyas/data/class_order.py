"""Order of the classes, where the base has a head for them already."""

import logging
from collections.abc import Sequence

from eyas.errors import DataError

logger = logging.getLogger(__name__)


def in_order_of_base(labels: list[str], base: Sequence[str], fixed: bool) -> list[str]:
    """Return the class names of the rows in the order of the base's head, where it has the same classes.

    `fixed` says that the recipe lists them. Raises DataError for a list in another order. A head of another size is
    replaced by a new one when the weights load.
    """
    if len(base) != len(labels) or list(base) == labels:
        return labels
    if set(base) != set(labels):
        logger.info("the base's head for %s is trained on as a head for %s", ", ".join(base), ", ".join(labels))
        return labels
    if fixed:
        raise DataError(
            f"data.labels: the base's head has these classes in another order; write [{', '.join(base)}], or leave "
            "data.labels out"
        )
    logger.info("classes in the order of the base's head: %s", ", ".join(base))
    return list(base)
