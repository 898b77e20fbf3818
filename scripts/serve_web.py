"""Serve the page of `web/` on this machine, with the headers that let it use several threads.

    python scripts/serve_web.py release/asterisk --port 8080

`make web` installs the page's libraries first.
"""

import argparse
from contextlib import suppress
from pathlib import Path

from asterisk.errors import run
from asterisk.web import serve


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", default=Path("release/asterisk"), help="model directory")
    parser.add_argument(
        "--port", type=int, default=8080, help="port on the loopback interface; 0 takes a free one"
    )
    return parser.parse_args()


def main() -> None:
    """Serve until Ctrl-C."""
    arguments = parse_arguments()
    with serve(arguments.model, arguments.port) as server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    run(main)
