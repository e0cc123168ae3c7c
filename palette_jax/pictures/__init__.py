"""Picture files: the only reader and writer of the package."""

import contextlib

with contextlib.suppress(ImportError):  # The extra `heic`.
    import pillow_heif

    pillow_heif.register_heif_opener()
