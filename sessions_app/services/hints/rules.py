"""The rules of hints: each returns a sentence or two when the facts are of its kind, or nothing."""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Callable

from sessions_app.models import Execution
from sessions_app.services.hints.facts import Facts
from sessions_app.services.hints.missing import again_with, missing_library

Status = Execution.Status

NO_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Network is unreachable|No route to host"
    r"|ENETUNREACH|getaddrinfo (?:EAI_AGAIN|ENOTFOUND)|[Cc](?:ould not|ouldn't|annot) resolve host|Failed to resolve"
    r"|dial tcp: lookup|UnknownHostException|Failed to open TCP connection"
)
REFUSED = re.compile(r"ConnectionRefusedError|Connection refused|ECONNREFUSED")
PIP = re.compile(r"No module named '?pip'?$|\bpip3?: (?:command )?not found|'pip3?',", re.MULTILINE)
PIP_INSTALL = re.compile(r"\bpip3? install (?:-\S+ )*[\"'`]?([A-Za-z][\w.-]{0,100})")
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|ENOSPC|File too large|disk is full")
READ_ONLY = re.compile(r"Read-only file system(?:: '([^'\n]+)')?|EROFS")
DENIED = re.compile(
    r"(?:PermissionError: \[Errno 13\] Permission denied|EACCES: permission denied, \w+):? '(/[^'\n]+)'"
)
NO_MEMORY = re.compile(
    r"^MemoryError\b|_ArrayMemoryError|heap out of memory|OutOfMemoryError|NoMemoryError|std::bad_alloc"
    r"|cannot allocate vector of size|fatal error: runtime: (?:cannot allocate|out of) memory|Cannot allocate memory",
    re.MULTILINE,
)
NO_PROCESS = re.compile(
    r"Resource temporarily unavailable|can't start new thread|pthread_create failed|unable to create native thread"
)
END_OF_INPUT = re.compile(r"^EOFError: EOF when reading a line|NoSuchElementException: No line found", re.MULTILINE)
NO_DISPLAY = re.compile(r"no display name and no \$DISPLAY|couldn't connect to display|cannot open display")
NO_COMMAND = re.compile(r"(?:^|: )([\w.+-]{1,60}): (?:command not found|not found)$", re.MULTILINE)
NO_PROGRAM = re.compile(r"^FileNotFoundError: \[Errno 2\] No such file or directory: '([^'\n]{1,200})'", re.MULTILINE)
NO_FILE = re.compile(
    r"No such file or directory: '([^'\n]{1,200})'|ENOENT: no such file or directory, \w+ '([^'\n]{1,200})'"
)

NO_LIBRARIES = "Use what is there, or a session of Python with libraries"
WRITABLE = "Only /sandbox and /tmp can be written to"
SIGNAL_MEANINGS = {
    signals.SIGABRT: "it gave itself up, as native code does after a failed check",
    signals.SIGBUS: "native code used memory that is not there",
    signals.SIGFPE: "an impossible calculation in native code, such as a division by zero",
    signals.SIGILL: "native code that this processor does not know",
    signals.SIGSEGV: "native code used memory that is not its own, or recursion was too deep",
    signals.SIGXCPU: "its processor time was used up",
}


def size(count: int) -> str:
    """Return a size as people write it."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"


def timed_out(facts: Facts, said: str) -> str:
    """Name the limit, and where the code was."""
    line, function, file = (facts.where.get(name) for name in ("line", "function", "file"))
    place = ""
    if isinstance(line, int):
        place = f" It was at line {line}" + (f" of {_quoted(file)}" if file else "")
        place += f", in `{_quoted(function)}`." if function and function != "<module>" else "."
    return (
        f"The code was stopped at its time-out of {facts.timeout_s:g} s.{place}"
        " Make it do less, or give it more time with `timeout`."
    )


def out_of_memory(facts: Facts, said: str) -> str:
    """Name the limit and the peak."""
    peak = facts.max_rss_bytes or 0
    limit = size(facts.memory_bytes)
    if peak > facts.memory_bytes:
        # Where files are kept in memory, the two limits are one.
        limit += f", {size(facts.memory_bytes + facts.disk_bytes)} with its files"
    used = f"; its peak was {size(peak)}" if peak else ""
    return f"The code was killed because it needed too much memory: the limit is {limit}{used}. Work on less at a time."


def lost(facts: Facts, said: str) -> str:
    """Say how to go on."""
    return "The sandbox is gone, and its files with it. Create a new session and run the code again."


def no_pip(facts: Facts, said: str) -> str:
    """Show the way to libraries to code that installs them itself."""
    if facts.lang not in ("python", "bash") or facts.has_network:
        return ""
    named = PIP_INSTALL.search(said)
    if named is None and not PIP.search(said):
        return ""
    how = again_with(named[1]) if named is not None else 'Name them in the request: "libraries": ["…"]'
    return f"Packages cannot be installed from inside this sandbox. {how if facts.lang == 'python' else NO_LIBRARIES}."


def missing(facts: Facts, said: str) -> str:
    """Name the library that is missing."""
    return missing_library(facts.lang, said, libraries=facts.libraries)


def no_network(facts: Facts, said: str) -> str:
    """Say that it is the template that allows no network."""
    if facts.has_network:
        return ""
    if NO_NETWORK.search(said):
        return (
            f"This sandbox has no network: its template `{facts.template}` allows none. Put the data that the code"
            ' needs into files of the session, and packages into "libraries".'
        )
    if REFUSED.search(said):
        return (
            f"Nothing listens at that address. This sandbox has no network but its own loopback (template"
            f" `{facts.template}`): only servers that the code itself has started can be reached."
        )
    return ""


def disk_full(facts: Facts, said: str) -> str:
    """Name the limit."""
    if not DISK_FULL.search(said) and not DISK_FULL.search(facts.message):
        return ""
    return (
        f"The sandbox's disk is full: its files may take {size(facts.disk_bytes)} together."
        " Delete what is no longer needed, or write less."
    )


def not_writable(facts: Facts, said: str) -> str:
    """Say where can be written."""
    read_only = READ_ONLY.search(said)
    if read_only is not None:
        return f"{_subject(read_only[1])} is on a read-only file system. {WRITABLE}."
    denied = DENIED.search(said)
    if denied is not None and not denied[1].startswith(("/sandbox/", "/tmp/")):  # noqa: S108
        return f"{_subject(denied[1])} belongs to the system. {WRITABLE}."
    return ""


def memory_refused(facts: Facts, said: str) -> str:
    """Name the limit to code that was refused memory, and not killed for it."""
    if not NO_MEMORY.search(said):
        return ""
    return (
        f"The code asked for more memory than it can have: the sandbox's limit is {size(facts.memory_bytes)}."
        " Work on less at a time."
    )


def too_many_processes(facts: Facts, said: str) -> str:
    """Name the limit."""
    if not NO_PROCESS.search(said):
        return ""
    return f"The sandbox may have {facts.pids} processes and threads at once. Start fewer workers."


def end_of_input(facts: Facts, said: str) -> str:
    """Say how to give input."""
    if not END_OF_INPUT.search(said):
        return ""
    if facts.has_stdin:
        return "The code reads more lines than `stdin` has. Give all of its input in `stdin`."
    return "The code reads standard input, and there was none. Give its input in `stdin`, or take it out of the code."


def no_display(facts: Facts, said: str) -> str:
    """Say that there is no screen."""
    return "The sandbox has no screen. Save what is to be seen to a file." if NO_DISPLAY.search(said) else ""


def no_command(facts: Facts, said: str) -> str:
    """Name the program that is not there."""
    program = None
    if facts.lang == "python":
        found = NO_PROGRAM.search(said)
        program = found[1] if found is not None and "_execute_child" in said else None
    elif found := NO_COMMAND.search(said):
        program = found[1]
    return f"There is no program `{_quoted(program)}` in this sandbox." if program else ""


def no_file(facts: Facts, said: str) -> str:
    """Say where files are looked for."""
    found = NO_FILE.search(said)
    if found is None:
        return ""
    path = _quoted(found[1] or found[2])
    return (
        f"There is no `{path}` in the sandbox: code sees only what earlier executions of its session left, and what was"
        " put there. It begins in /sandbox."
    )


def by_signal(facts: Facts, said: str) -> str:
    """Name the signal and what it mostly means."""
    number = facts.signal
    if number is None and facts.lang == "bash" and facts.exit_code is not None and 128 < facts.exit_code < 160:
        number = facts.exit_code - 128
    try:
        sent = signals.Signals(number or 0)
    except ValueError:
        return ""
    if sent == signals.SIGXFSZ:
        return disk_full(facts, "File too large")
    meaning = SIGNAL_MEANINGS.get(sent)
    return f"The code was ended by the signal {sent.name}" + (f": {meaning}." if meaning else ".")


def as_told(facts: Facts, said: str) -> str:
    """Repeat what the sandbox says itself."""
    return facts.message


def _subject(path: str | None) -> str:
    return f"`{_quoted(path)}`" if path else "What the code writes to"


def _quoted(text: object) -> str:
    """Return a name that came out of the sandbox, short and on one line."""
    return " ".join(str(text).split()).replace("`", "'")[:100]


Rule = Callable[[Facts, str], str]
RULES: dict[str, tuple[Rule, ...]] = {
    Status.TIMED_OUT: (timed_out,),
    Status.OUT_OF_MEMORY: (out_of_memory,),
    Status.LOST: (lost,),
    # The more a rule knows, the earlier it is asked.
    Status.FAILED: (
        missing,
        no_pip,
        no_network,
        disk_full,
        memory_refused,
        not_writable,
        too_many_processes,
        end_of_input,
        no_display,
        no_command,
        no_file,
        by_signal,
        as_told,
    ),
}
