"""What an enemy might send as a path, as a member of an archive or as the name of a file."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from urllib.parse import quote

LINKS = """
import os
def link(target, name):
    if os.path.lexists(name):
        os.unlink(name)
    os.symlink(target, name)
link("/", "root"); link("/etc", "etc"); link("/etc/passwd", "passwd"); link("..", "up"); link("/tmp", "tmp")
link("/tmp/canary", "canary"); link("/proc/self", "self"); link("/dev", "dev"); link("loop", "loop")
link("tmp", "chain"); link("../tmp/canary", "relative"); link("/tmp/not-there", "dangling"); link("inner", "good")
os.makedirs("inner/deep", exist_ok=True)
link("../../../tmp", "inner/deep/out")
open("/tmp/canary", "w").write("the canary sings")
"""

# --- Paths: as they stand in an address. Those of the first table lead, or would lead, outside: all are refused.

OUTSIDE = [
    *(
        "..",
        "../",
        "../x",
        "../../etc/passwd",
        "a/..",
        "a/../..",
        "a/../../x",
        "./..",
        "./../x",
        "a/./../..",
        "a//../..",
    ),
    *("%2e%2e", "%2e%2e/x", ".%2e/x", "%2E%2E%2Fx", "..%2fx", "..%2f..%2fetc%2fpasswd", "a%2f..%2f..%2fx", "%2e./x"),
    *("/etc/passwd", "/tmp/canary", "/", "//", "//etc/passwd", "///tmp/canary", "%2fetc%2fpasswd", "%2Ftmp%2Fcanary"),
    *("/sandboxes", "/sandbox/../tmp/canary", "/sandbox/..", "/sandbox%2f..%2ftmp"),
    *("/proc/self/environ", "/dev/zero"),
    *("/sandbox.x/y", "/./tmp/canary", "/..", "/../etc", "x%00", "%00", "a%00/../../x", "a/%00", "..%00", "x%00.txt"),
    *("root/etc/passwd", "root/tmp/canary", "etc/passwd", "etc/hostname", "passwd", "up/x", "up/tmp/canary"),
    *(
        "tmp/canary",
        "tmp/new",
        "canary",
        "self/environ",
        "self/root/etc/passwd",
        "dev/zero",
        "dev/null",
        "chain/canary",
    ),
    *("relative", "dangling", "inner/deep/out/canary", "inner/deep/out/new", "good/deep/out/new"),
    "root/root/root/etc",
    *("x" * 256, "x" * 5000, "a/" * 2500, "%FF" * 256, "a/" + "b" * 300, "%C3%A9" * 128),
]
# These stay inside, whatever they are: any answer but a fault of ours.
INSIDE = [
    *(
        "",
        ".",
        "./",
        "./.",
        "a/.",
        "%2e",
        "...",
        "....",
        "..%20",
        "%20..",
        "..;",
        "..%5c",
        "..%5c..%5cx",
        "%252e%252e%252fx",
    ),
    *("%252e%252e", "%c0%ae%c0%ae/x", "%uff0e%uff0e/x", "%ef%bc%8e%ef%bc%8e", "a/b/c/d/e/f"),
    *("/sandbox/x", "/sandbox"),
    *(
        "loop",
        "loop/x",
        "good",
        "good/x",
        "%FF",
        "%FF%FE/x",
        "%0a",
        "a%0d%0ab",
        "x%0d%0aSet-Cookie:%20a=b",
        "%7f",
        "%1b[2J",
    ),
    *(
        "file:%2f%2f%2fetc%2fpasswd",
        "http:%2f%2flocalhost%2f",
        "C:%5cwindows",
        "%5c%5chost%5cshare",
        "x?y",
        "x%3fy",
        "x%23y",
    ),
    *(
        "%25",
        "%2525",
        "%",
        "%zz",
        "%2",
        "x;y",
        "x&y",
        "x=y",
        "~",
        "~root",
        "$HOME",
        "%24%28id%29",
        "%60id%60",
        "-rf",
        "*",
    ),
    *(
        ".sandboxweb",
        ".sandboxweb/uploads/x",
        ".sandboxweb/lib",
        "%E2%80%AE.txt",
        "%F0%9F%92%A9",
        "%ED%A0%80",
        "con",
        "nul",
    ),
    "a/" * 300 + "x",
]

# --- Names: as bytes, each a file that may well be.

NAMES = [
    *(bytes([number]) + b"x" for number in range(1, 32)),
    *(
        b"\x7f",
        b"a\nb",
        b"\n",
        b"a\r\nContent-Length: 0",
        b"\t",
        b" ",
        b"  x  ",
        b"'",
        b'"',
        b"a\"b'c",
        b"\\",
        b"a\\b",
        b"%00",
    ),
    *(
        b"%2e%2e",
        b"%2f",
        b"-",
        b"--help",
        b"-rf",
        b"*",
        b"?",
        b"#",
        b"&a=b",
        b"+",
        b"~",
        b"$(id)",
        b"`id`",
        b";id",
        b"|",
    ),
    *(
        b"<img src=x onerror=alert(1)>",
        b"{{7*7}}",
        b"..x",
        b"...",
        b".hidden",
        b"x" * 255,
        "é".encode() * 127,
        b"\xff",
        b"\xff\xfe",
    ),
    *(
        b"\xed\xa0\x80",
        b"a\xffb",
        b"\xc3",
        "\u202etxt.exe".encode(),
        "\u200b".encode(),
        "e\u0301".encode(),
        b"CON",
        b"a:b",
    ),
]

# --- Archives: each a function that makes one.


def _tar(*members: tarfile.TarInfo, content: bytes = b"evil") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return data.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, target, mode
    return member


def _through(target: str, inner: str = "x") -> bytes:
    """Return an archive that makes a link and then writes through it."""
    return _tar(_member("l", tarfile.SYMTYPE, target), _member(f"l/{inner}"))


def _claim(size: int) -> bytes:
    member = _member("x")
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT) + b"evil"


def _pax(**headers: str) -> bytes:
    member = _member("x")
    member.pax_headers = headers
    return _tar(member)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    **{
        f"member {name[:30]!r}": lambda name=name: _tar(_member(name))  # type: ignore[misc]
        for name in (
            *(
                "../x",
                "../../tmp/canary",
                "/tmp/canary",
                "//tmp/canary",
                "a/../../x",
                "./../x",
                "..",
                ".",
                "",
                "/",
                "a/..",
            ),
            *(
                "x" * 256,
                "x/" * 300 + "y",
                "é" * 200,
                "a\nb",
                "\x1b[2J",
                "-rf",
                " ",
                "a\\..\\..\\x",
                "\udcff",
                "x/",
                "/sandbox/x",
            ),
            *("/etc/passwd", "a//b", "./a/./b", "..x", "a/...", "x" * 5000),
        )
    },
    **{
        f"link to {target[:30]!r}": lambda target=target: _tar(_member("l", tarfile.SYMTYPE, target))  # type: ignore[misc]
        for target in (
            "/etc/passwd",
            "..",
            "../..",
            "/",
            "/tmp/canary",
            "/sandbox/x",
            ".",
            "l",
            "a/../../..",
            "",
            "x" * 5000,
        )
    },
    **{
        f"hard link to {target!r}": lambda target=target: _tar(_member("h", tarfile.LNKTYPE, target))  # type: ignore[misc]
        for target in ("/etc/passwd", "../x", "/tmp/canary", "not-there", "../../tmp/canary", "", "passwd", "canary")
    },
    **{
        f"write through a link to {target!r}": lambda target=target: _through(target)  # type: ignore[misc]
        for target in ("/tmp", "..", "../..", "/", ".", "l", "/sandbox", "/etc", "/proc/self", "a/../..")
    },
    "write through two links": lambda: _tar(
        _member("a", tarfile.SYMTYPE, "."), _member("a/b", tarfile.SYMTYPE, "../.."), _member("a/b/tmp/x")
    ),
    "a link turned into a way out": lambda: _tar(
        _member("d", tarfile.DIRTYPE), _member("d/l", tarfile.SYMTYPE, ".."), _member("d/l/l", tarfile.SYMTYPE, "../..")
    ),
    "a directory that becomes a link": lambda: _tar(
        _member("d", tarfile.DIRTYPE), _member("d", tarfile.SYMTYPE, "/tmp"), _member("d/x")
    ),
    "a file where a directory is": lambda: _tar(_member("d", tarfile.DIRTYPE), _member("d")),
    "a directory where a file is": lambda: _tar(_member("d"), _member("d", tarfile.DIRTYPE), _member("d/x")),
    "a character device": lambda: _tar(_member("c", tarfile.CHRTYPE)),
    "a block device": lambda: _tar(_member("b", tarfile.BLKTYPE)),
    "a pipe": lambda: _tar(_member("p", tarfile.FIFOTYPE)),
    "an unknown type": lambda: _tar(_member("p", b"Z")),
    "a sparse file": lambda: _member("s", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT) + bytes(1024),
    "set-id bits": lambda: _tar(_member("s", mode=0o7777)),
    "no permission": lambda: _tar(_member("d", tarfile.DIRTYPE, mode=0), _member("d/x", mode=0)),
    "a claim of a terabyte": lambda: _claim(2**40),
    "a claim of 8 exabytes": lambda: _claim(2**63 - 1),
    "a path in extended headers": lambda: _pax(path="../../tmp/canary"),
    "a NUL in extended headers": lambda: _pax(path="x\0y"),
    "a link in extended headers": lambda: _pax(linkpath="/tmp/canary"),
    "a size in extended headers": lambda: _pax(size="99999999999999999999"),
    "a wrong size in extended headers": lambda: _pax(size="x"),
    "a time beyond time": lambda: _pax(mtime="1e400"),
    "half an archive": lambda: _tar(_member("x"), content=bytes(100_000))[:50_000],
    "no archive": lambda: b"PK\x03\x04" + bytes(2000),
    "random text": lambda: b"hello" * 500,
    "nothing": lambda: b"",
    "zeros": lambda: bytes(10240),
    "a compressed archive": lambda: gzip.compress(_tar(_member("x"))),
    "ten thousand members": lambda: _tar(*(_member(f"many/{number}") for number in range(2000)), content=b""),
}


def address(session_id: str, path: str) -> str:
    """Return the address of a path that is encoded already."""
    return f"/sessions/{session_id}/files/{path}"


def encoded(name: bytes) -> str:
    """Return a name as it stands in an address."""
    return quote(name, safe="")
