"""The hash of pictures covers all that changes what a network sees of them."""

from palette_jax.evaluation.references import pictures_hash
from palette_jax.evaluation.suite import MetricSuite


def _suite(protocol: str = "paper", weights: str = "6726") -> MetricSuite:
    """Returns a suite of known weights, without their networks."""
    suite = object.__new__(MetricSuite)
    suite.protocol, suite.weights = protocol, {"inception": weights}
    return suite


def test_the_hash_of_pictures_knows_what_made_them() -> None:
    files, suite = {"a.png": 10, "b.png": 20}, _suite()
    first = pictures_hash(suite, files, 256)
    assert first == pictures_hash(suite, dict(reversed(files.items())), 256)
    others = [
        pictures_hash(suite, {**files, "b.png": 21}, 256),
        pictures_hash(suite, {**files, "c.png": 5}, 256),
        pictures_hash(suite, files, 128),
        pictures_hash(suite, files, None),
        pictures_hash(_suite("i2sb"), files, 256),
        pictures_hash(suite, files, 256, seen=True),
        pictures_hash(_suite(weights="0"), files, 256, seen=True),
    ]
    assert len({first, *others}) == 8 and len(first) == 16
