"""Code whose output is known to the last byte before it runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

SOURCE = """\
import hashlib, socket, sys, time
with socket.create_connection(("127.0.0.1", {port}), 30) as witness:
    witness.sendall(b"{mark}\\n")
    assert witness.recv(1) == b"!"
for number in range({lines}):
    digest = hashlib.sha256(b"{mark} %d" % number).hexdigest()
    print(number, digest, "x" * {width}, flush={flush})
    time.sleep({pause_s})
print("complaint of {mark}", file=sys.stderr)
sys.exit({exit_code})
"""


@dataclass(frozen=True)
class Program:
    """A program that says its `mark` to the witness and prints numbered lines with digests of mark and number."""

    mark: str
    port: int
    lines: int = 5
    width: int = 0
    pause_s: float = 0.0
    exit_code: int = 0

    @property
    def code(self) -> str:
        """Return the Python source."""
        return SOURCE.format(**vars(self), flush=self.pause_s > 0)

    @property
    def stdout(self) -> str:
        """Return what it prints when it is left to end."""
        return "".join(self.line(number) for number in range(self.lines))

    @property
    def stderr(self) -> str:
        """Return what it complains when it is left to end."""
        return f"complaint of {self.mark}\n"

    def line(self, number: int) -> str:
        """Return one line of its output."""
        digest = hashlib.sha256(f"{self.mark} {number}".encode()).hexdigest()
        return f"{number} {digest} {'x' * self.width}\n"
