"""Starts the `palette-jax` command, also as `python -m palette_jax`."""

import os
import sys


def main() -> int:
    """Runs the command; returns its exit status."""
    use_huge_pages()
    # After the restart, because these imports take a third of a second.
    from palette_jax import cli

    return cli.main()


def use_huge_pages() -> None:
    """Restarts the process with an allocator that uses huge pages.

    On a CPU, XLA allocates the temporaries of a step again in each step. With pages of
    4 KB, Linux takes a quarter of the CPU-time of a training step to map and to clear
    them (docs/performance.md). glibc reads the setting only when a process starts;
    other C libraries ignore it. `GLIBC_TUNABLES`, if it is set, stays as it is.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    if not sys.executable or len(sys.orig_argv) < 2:
        return  # Embedded, or a script from the standard input, which is read already.
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
