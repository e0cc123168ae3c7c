"""`palette-jax demo`: a page in the browser for a user's own pictures."""

import argparse
import contextlib
import os
import socket

from palette_jax.errors import UserError
from palette_jax.programs import flag_types


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--checkpoint",
        metavar="DIR|FILE",
        help="folder of a run, or of its checkpoints, or a .safetensors file (default:"
        " the weights of the package)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 lets others on the network in",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host name of a web server in front of the page, e.g. photos.example.org;"
        " names other than this computer's are refused by default",
    )
    parser.add_argument(
        "--port",
        type=flag_types.whole(1, high=65535),
        help="default: the first that is free from 7860 on",
    )
    parser.add_argument(
        "--max-megapixels",
        type=flag_types.number(0.0001, 1e6),
        default=16,
        help="of a picture (default 16)",
    )
    parser.add_argument(
        "--max-seconds",
        type=flag_types.number(0.001, 1e6),
        default=1800,
        help="of a computation (default 1800)",
    )


def run(args: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # Otherwise JAX takes all memory of a GPU that others may use too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        from palette_jax.page import guard, page, sessions
    except ImportError as error:
        raise UserError(
            f"expected the packages of the page, got no {error.name}; run"
            ' pip install "palette-jax[demo]"'
        ) from error

    # Imports the network, and so JAX, which reads the environment.
    from palette_jax.config.build_restorer import load_restorer

    _check_address(args.host, args.port)
    print("Loading the network.", flush=True)
    restorer = load_restorer(args.checkpoint)
    limits = sessions.Limits(
        max_pixels=int(args.max_megapixels * 1e6), max_seconds=args.max_seconds
    )
    sessions.forbid_programs()
    everyone = sessions.Sessions(limits.keep_seconds)
    with guard.temporary_folder() as folder, contextlib.closing(everyone):
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        blocks = page.make_page(restorer, limits, everyone)
        try:
            _, url, _ = blocks.launch(
                server_name=args.host,
                server_port=args.port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                **page.launch_options(limits, host=args.host, allowed=args.allow_host),
            )
        except OSError as error:  # All ports from 7860 on, or taken just now.
            raise _cannot_listen(args.host, args.port, error) from error
        if not guard.is_loopback(args.host):
            wildcard = args.host in ("0.0.0.0", "::")
            reached = guard.lan_address() if wildcard else args.host
            print(
                "warning: everyone on the network can open the page, without a password"
                f" and unencrypted, at http://{reached}:{blocks.server_port}/",
                flush=True,
            )
        print(f"Open {url} in a browser. Ctrl+C ends it.", flush=True)
        blocks.block_thread()
    return 0


def _check_address(host: str, port: int | None) -> None:
    """Raises `UserError` if the server could not listen at an address."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            # Otherwise a port of a server that has just ended is in use for a while.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int | None, error: Exception) -> UserError:
    where = f"{host}:{'a port from 7860 on' if port is None else port}"
    return UserError(
        f"expected to listen at {where}, got an address that is in use or not this"
        f" computer's ({error}); set another --port or --host"
    )
