"""Run inside a sandbox as its main process: start code, stream its output, and keep it until it is asked for.

One file, the standard library alone, Python 3.8 and newer. Frames come in on stdin and go out on stdout:

    b"\\xf5S" | header length, u32 | body length, u32 | header, JSON | body

Processes:

    agent ─┬─ zygote ── code (Python: a fork of an interpreter that has imported what the template names)
           ├─ contexts (interpreters that stay: forks of the zygote's, handed to the agent)
           ├─ code (shell commands, or Python whose environment asks for an interpreter of its own)
           └─ workers (file operations, as the code's user)

The journal of each execution is the truth: what is sent is read from it, so output waits for nobody and a new proxy
can have all of it again. Everything that code may influence is bounded.

The modules imported here are few and low (`_json`, not `json`): an idle agent is most of what an idle sandbox costs.
"""

# Wanted here: no contextlib (SIM105, it brings collections), marshal between our own processes (S302), exec (S606).
# ruff: noqa: SIM105, S302, S606

from __future__ import annotations

import sys

FRESH_MODULES = frozenset(sys.modules) - {"__future__"}
HAS_ANNOTATIONS = "__annotations__" in globals()

import errno  # noqa: E402
import fcntl  # noqa: E402
import gc  # noqa: E402
import marshal  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import select  # noqa: E402
import time  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _ctypes
    import signal as _signal
    from collections import deque
    from collections.abc import Callable, Iterator
    from typing import Any

    _json: Any
else:
    import _signal
    from _collections import deque

    try:
        import _ctypes
    except ImportError:  # an interpreter without libffi: no undumpable agent, and no fork of a warm interpreter
        _ctypes = None
    try:
        import _json
    except ImportError:
        _json = None

PROTOCOL = 1
CONFIG_VARIABLE = "SBX_AGENT"
RESTARTED_VARIABLE = "SBX_AGENT_RESTARTED"

MAGIC = b"\xf5S"
RESYNC = b"\xf5R"
SECRET_BYTES = 16
MARKER_BYTES = len(RESYNC) + SECRET_BYTES
PREFIX_BYTES = 10
MAX_HEADER_BYTES = 64 * 1024
MAX_REQUEST_BODY_BYTES = 4 * 1024 * 1024
MAX_BODY_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
SEND_AHEAD_BYTES = 1024 * 1024
MAX_QUEUE_BYTES = 16 * 1024 * 1024
MAX_STDIN_BYTES = 16 * 1024 * 1024
MAX_EXECUTIONS = 32
MAX_EVENTS = 65536
EVENT_OVERHEAD_BYTES = 300
DEFAULT_JOURNAL_BYTES = 32 * 1024 * 1024
DEFAULT_OUTPUT_BYTES = 1024 * 1024
MAX_SINKS = 64
MAX_TIMEOUT_S = 366 * 24 * 3600.0
MAX_WORKERS = 16
MAX_PACKINGS = 4
MAX_CONTEXTS = 8
DEFAULT_CONTEXT = "default"
F_SETPIPE_SZ = 1031

DRAIN_IDLE_S = 0.1
DRAIN_TOTAL_S = 1.0
KILL_STEP_S = 0.002
KILL_TOTAL_S = 10.0
STOP_STEP_S = 0.0005
STOP_TOTAL_S = 0.02
ZYGOTE_GRACE_S = 0.5
CONTEXT_GRACE_S = 1.0
ZYGOTE_IDLE_S = 10.0
ASSIGNED_IDLE_S = 3.0
# Where hundreds of sandboxes share a processor, an interpreter that is well may need long for its next step.
BUSY_GRACE_S = 30.0
WATCH_S = 0.5
WORKER_TIMEOUT_S = 60.0
SHARED_LIBRARIES = "/opt/sandboxweb/libraries/"  # read-only, and the same for every sandbox
UNTAR_TIMEOUT_S = 900.0
PACK_IDLE_S = 60.0
PRELOAD_TIMEOUT_S = 120.0

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
CAPABILITY_VERSION_3 = 0x20080522
CODE_OOM_SCORE = b"500"
SHELL = "/bin/sh"

clock = time.monotonic


# --- JSON, without the package of that name: it brings `re` and `enum`, a megabyte


class BadRequest(Exception):
    """A request that cannot be done as it stands; `code` is for programs, the text for people."""

    def __init__(self, code: str, message: str = "") -> None:
        Exception.__init__(self, message)
        self.code = code


class _ScanRules:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def parse_json(data: bytes) -> Any:
    """Return what a JSON text says. Raises ValueError."""
    text = data.decode("utf-8")
    try:
        if _json is None:
            import json

            return json.loads(text)
        value, end = _json.make_scanner(_ScanRules)(text, 0)
    except (StopIteration, RecursionError, MemoryError, SystemError) as error:
        # SystemError: the scanner wants to raise an error of the package `json`, which is not there.
        raise ValueError("no JSON") from error
    if text[end:].strip():
        raise ValueError("something follows the JSON")
    return value


def quote_json(text: str) -> str:
    """Return a JSON string in ASCII."""
    if _json is not None:
        quoted: str = _json.encode_basestring_ascii(text)
        return quoted
    import json

    return json.dumps(text)


def to_json(value: Any) -> str:
    """Return a value of dicts, lists, strings, numbers, booleans and None as JSON in ASCII."""
    if isinstance(value, str):
        return quote_json(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join([quote_json(key) + ":" + to_json(item) for key, item in value.items()]) + "}"
    return "[" + ",".join([to_json(item) for item in value]) + "]"


# --- the C library and the interpreter's own C interface


if _ctypes is not None:

    class Pointer(_ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "P"

    class Word(_ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "Q"

    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "i"

    class IntFunction(_ctypes.CFuncPtr):
        """A C function that returns an int and is called with the interpreter's lock held."""

        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
        _restype_ = Int

    class PointerFunction(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
        _restype_ = Pointer

    _library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]


def c_function(name: str) -> Any:
    """Return a C function of this process that gives an int."""
    return IntFunction(_ctypes.dlsym(_library, name))


def c_pointer_function(name: str) -> Any:
    """Return a C function of this process that gives an address."""
    return PointerFunction(_ctypes.dlsym(_library, name))


def prctl(option: int, value: int) -> None:
    """Set a property of this process, where that is possible."""
    if _ctypes is not None:
        c_function("prctl")(option, value, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up every capability of this process."""
    if _ctypes is not None:
        header = CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4)
        c_function("capset")(header, bytes(24))


def wipe_variable(name: str) -> None:
    """Take a variable out of the environment, its long text in this process's memory included."""
    raw = os.environ._data.pop(os.fsencode(name), None)  # type: ignore[attr-defined]
    address = 0
    if raw is not None and _ctypes is not None:
        address = c_pointer_function("getenv")(os.fsencode(name))
    os.unsetenv(name)
    if address:
        before = len(os.fsencode(name)) + 1
        memset = c_pointer_function("memset")
        memset(Pointer(address - before), 0, before + len(raw))
        if len(raw) > 1:  # the interpreter shares bytes of one character
            memset(Pointer(id(raw) + bytes.__basicsize__ - 1), 0, len(raw))


# --- processes


def read_small(path: str) -> bytes:
    """Return the content of a small file of the kernel, empty when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, CHUNK_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of some data to a descriptor that blocks."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def process_stat(pid: int) -> list[bytes]:
    """Return state, parent and what follows in /proc/PID/stat; empty when there is no such process."""
    return read_small("/proc/%d/stat" % pid).rpartition(b") ")[2].split()


def proportional_memory(pid: int) -> int:
    """Return a process's share of memory in bytes; 0 where the kernel does not tell."""
    for line in read_small("/proc/%d/smaps_rollup" % pid).splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def children_of(pid: int) -> list[int]:
    """Return the children of all threads of a process."""
    try:
        threads = os.listdir("/proc/%d/task" % pid)
    except OSError:
        return []
    return [
        int(child) for thread in threads for child in read_small("/proc/%d/task/%s/children" % (pid, thread)).split()
    ]


class ProcessTree:
    """The descendants of the agent, and of nobody else."""

    def __init__(self) -> None:
        own = os.getpid()
        self._listed = os.path.exists("/proc/%d/task/%d/children" % (own, own))

    def walk(self, roots: list[int], stop: set[int], before: set[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return (pid, start time) of live descendants of `roots`, without the trees of those in `before`.

        Those in `stop` are looked through but not counted.
        """
        children = children_of if self._listed else self._scan()
        found, todo, seen = [], [child for root in roots for child in children(root)], set(roots)
        while todo:
            pid = todo.pop()
            if pid in seen:
                continue
            seen.add(pid)
            fields = process_stat(pid)
            if len(fields) < 20:
                continue
            key = (pid, int(fields[19]))
            if key in before:
                continue
            if pid not in stop and fields[0] not in (b"Z", b"X"):
                found.append(key)
            todo.extend(children(pid))
        return found

    def _scan(self) -> Callable[[int], list[int]]:
        """Read all of /proc once, for kernels that do not list a thread's children."""
        by_parent: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                fields = process_stat(int(name))
                if len(fields) > 1:
                    by_parent.setdefault(int(fields[1]), []).append(int(name))
        return lambda pid: by_parent.get(pid, [])


def send_signal(pid: int, number: int) -> None:
    """Signal a process that may have gone."""
    try:
        os.kill(pid, number)
    except OSError:
        pass


def set_signals_to_default(*, python: bool) -> None:
    """Give this process the signal dispositions of a program that was just started."""
    _signal.set_wakeup_fd(-1)
    kept = (_signal.SIGKILL, _signal.SIGSTOP)
    for number in range(1, _signal.NSIG):
        if number not in kept:
            try:
                _signal.signal(number, _signal.SIG_DFL)
            except (OSError, ValueError):
                pass
    if python:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
        _signal.signal(_signal.SIGXFSZ, _signal.SIG_IGN)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def set_streams(fds: list[int]) -> None:
    """Make descriptors 0, 1, 2, … of those given, and close all others."""
    # Above all that could be overwritten while they are put in their places.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]
    for number, fd in enumerate(high):
        os.dup2(fd, number, inheritable=number < 3)
    os.closerange(len(fds), 1024)
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= 1024:
            try:
                os.close(int(name))
            except OSError:
                pass


class Identity:
    """Whom code runs as, and within which limits."""

    LIMITS = {
        "as": resource.RLIMIT_AS,
        "nproc": resource.RLIMIT_NPROC,
        "fsize": resource.RLIMIT_FSIZE,
        "nofile": resource.RLIMIT_NOFILE,
        "cpu": resource.RLIMIT_CPU,
        "stack": resource.RLIMIT_STACK,
    }

    def __init__(self, uid: int | None, gid: int | None, rlimits: dict[str, int | None]) -> None:
        self.uid, self.gid = uid, gid
        self.rlimits = [(self.LIMITS[name], value) for name, value in rlimits.items() if value is not None]
        self.rlimits.append((resource.RLIMIT_CORE, 0))

    def become(self) -> None:
        """Become the code's user for good, without groups, capabilities or ways to get any."""
        if self.uid is not None and os.getuid() != self.uid:
            gid = self.uid if self.gid is None else self.gid
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(self.uid, self.uid, self.uid)
        drop_capabilities()
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        os.umask(0o022)

    def limit(self) -> None:
        """Set the limits of code, and be as open to its own user as a program that was just started."""
        prctl(PR_SET_DUMPABLE, 1)
        try:
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(fd, CODE_OOM_SCORE)
            os.close(fd)
        except OSError:
            pass
        for kind, value in self.rlimits:
            hard = resource.getrlimit(kind)[1]
            if hard != resource.RLIM_INFINITY:
                value = min(value, hard)
            resource.setrlimit(kind, (value, value))

    def pipe(self) -> tuple[int, int]:
        """Return a pipe that code may open again by /dev/stdout or its like."""
        if self.uid is None or os.geteuid() == self.uid:
            return os.pipe()
        try:
            os.setegid(self.uid if self.gid is None else self.gid)
            os.seteuid(self.uid)
            return os.pipe()
        finally:
            os.seteuid(0)
            os.setegid(0)


# --- becoming code: what happens in a child after the fork


def say_and_exit(message: str, code: int) -> None:
    """Write a line on stderr and end the process without another word."""
    try:
        os.write(2, os.fsencode(message + "\n"))
    finally:
        os._exit(code)


def explain(error: OSError) -> str:
    """Return an error as Python words it."""
    return "[Errno %s] %s" % (error.errno, error.strerror)


def place(workdir: str, path: Any, *, follow: bool = True) -> str:
    """Return the real path of something beneath the work directory, whose last parts may not exist.

    Without `follow`, a link at the end of the path stands for itself.

    Raises:
        BadRequest: when it would be elsewhere.
    """
    if not isinstance(path, str) or "\0" in path:
        raise BadRequest("bad_path", "A path is a text without NUL.")
    if ".." in path.split("/"):
        raise BadRequest("bad_path", "A path may not contain '..'.")
    root = os.path.realpath(workdir)
    full = os.path.normpath(os.path.join(workdir, path))
    if full in (workdir, root):
        return root
    if follow:
        real = os.path.realpath(full)
    else:
        real = os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
    if real != root and not real.startswith(root.rstrip("/") + "/"):
        raise BadRequest("bad_path", "The path leads out of the workspace.")
    return real


def write_source(spec: dict[str, Any]) -> None:
    """Write the file of an execution."""
    path = os.path.join(spec["workdir"], spec["filename"])
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
        if spec.get("temporary"):
            fd = os.open(path, flags | os.O_NOFOLLOW, 0o666)
        else:
            real = place(spec["workdir"], spec["filename"])
            os.makedirs(os.path.dirname(real), exist_ok=True)
            fd = os.open(real, flags, 0o666)
        write_all(fd, spec["source"])
        os.close(fd)
    except OSError as error:
        say_and_exit("%s: can't write file '%s': %s" % (spec["program"], path, explain(error)), 2)
    except BadRequest as error:
        say_and_exit("%s: can't write file '%s': %s" % (spec["program"], path, error), 2)


def enter_directory(spec: dict[str, Any]) -> None:
    """Go where the code is to run."""
    try:
        os.chdir(spec["cwd"])
    except OSError as error:
        say_and_exit("%s: can't enter '%s': %s" % (spec["program"], spec["cwd"], explain(error)), 2)


def run_program(spec: dict[str, Any], identity: Identity, fds: list[int]) -> None:
    """Become another program; the caller has just forked. Never returns."""
    try:
        os.setsid()
        set_streams(fds)
        set_signals_to_default(python=False)
        identity.become()
        identity.limit()
        if spec["source"] is not None:
            write_source(spec)
        enter_directory(spec)
        os.execve(spec["argv"][0], spec["argv"], spec["env"])
    except OSError as error:
        say_and_exit("%s: %s: %s" % (spec["program"], spec["argv"][0], explain(error)), 127)
    finally:
        os._exit(127)


# --- the zygote: an interpreter that is warm, and a child of it that is as good as new


class Frames:
    """Where the interpreter keeps the running frame and the depth of recursion.

    Code that runs in a fork must see the same stack as in a program of its own: an empty one. The places are those
    of CPython's releases; they are used only when they hold what they should, else code sees the agent's frames too.
    """

    HOLDER = {(3, 8): 24, (3, 9): 24, (3, 10): 24, (3, 11): 56, (3, 12): 56, (3, 13): 72}
    WITHIN_HOLDER = {(3, 11): 8, (3, 12): 0}
    DEPTH = {(3, 8): (32,), (3, 9): (32,), (3, 10): (32,), (3, 11): (32,), (3, 12): (28, 32), (3, 13): (44,)}

    @staticmethod
    def address(frame: Any) -> int:
        """Return what the interpreter's own pointer to a frame holds."""
        if sys.version_info < (3, 11):
            return id(frame)
        return Word.from_address(id(frame) + 24).value  # type: ignore[no-any-return]

    @classmethod
    def find(cls) -> tuple[Any, Any, int]:
        """Return the holder of the running frame, the counter of recursion, and its value for an empty stack."""
        version = sys.version_info[:2]
        nowhere = (Word(), Int(), 0)
        if sys.implementation.name != "cpython" or version not in cls.HOLDER:
            return nowhere
        thread = c_pointer_function("PyThreadState_Get")()
        frame = cls.address(sys._getframe())
        holder = thread + cls.HOLDER[version]
        if version in cls.WITHIN_HOLDER:
            holder = Word.from_address(holder).value + cls.WITHIN_HOLDER[version]
        if Word.from_address(holder).value != frame:
            return nowhere
        if version < (3, 11):
            # The call into C by which code starts is counted; in a program of its own there is none.
            return Word.from_address(holder), Int.from_address(thread + cls.DEPTH[version][0]), -1
        limit = sys.getrecursionlimit()
        for offset in cls.DEPTH[version]:
            left = Int.from_address(thread + offset)
            if 0 <= limit - left.value < 100 and Int.from_address(thread + offset + 4).value == limit:
                return Word.from_address(holder), left, limit + (version == (3, 11))
        return Word.from_address(holder), Int(), 0


def run_file(path: str) -> None:
    """Run a file as `python3 FILE` does, by the same function of the interpreter, and exit as it does."""
    run = c_function("PyRun_SimpleFileExFlags")
    leave = c_function("Py_Exit")
    end = c_pointer_function("PyObject_CallNoArgs") if sys.version_info >= (3, 9) else None
    endings = Pointer(id(end_well)), Pointer(id(end_badly))
    at_exit = c_function("__cxa_atexit")
    kill_self = Pointer(_ctypes.dlsym(_library, "raise"))
    name = os.fsencode(path)
    file = c_pointer_function("fopen")(name, b"rbe")
    if not file:
        say_and_exit("%s: can't open file '%s'" % (sys.executable, path), 2)
    stream, none, sigint = Pointer(file), Pointer(None), Pointer(_signal.SIGINT)
    holder, depth, empty = Frames.find()
    if holder.value != Frames.address(sys._getframe()):
        holder, depth = Word(), Int()
    # Until the code has run no Python function may be called: this frame is about to be forgotten.
    depth.value = empty
    holder.value = 0
    failed = run(stream, name, 1, none)
    if failed and sys.__dict__.get("last_type") is KeyboardInterrupt:
        at_exit(kill_self, sigint, none)
    elif end is not None:
        end(endings[1 if failed else 0])
    leave(1 if failed else 0)


# What an interpreter takes from `sys` before it ends; its own list.
ENDING_SYS = (
    *("path", "argv", "ps1", "ps2", "last_type", "last_value", "last_traceback"),
    *("path_hooks", "path_importer_cache", "meta_path", "__interactivehook__"),
)
WARM_MODULES: dict[str, Any] = {}


def end_well() -> None:
    """End this process as an interpreter does whose file came to its end."""
    end_interpreter(0)


def end_badly() -> None:
    """End this process as an interpreter does whose file raised an exception."""
    end_interpreter(1)


def end_interpreter(status: int) -> None:
    """Do what code can see of an interpreter's end, in its order, then exit; return where something is wrong.

    The real one also takes every warm module apart, which touches, and so copies, most of what is shared with the
    zygote: two thirds of the time that a short program takes.
    """
    import _weakref
    import atexit

    modules = sys.modules
    try:
        if "threading" in modules:
            modules["threading"]._shutdown()
        atexit._run_exitfuncs()
        flush_streams()
    except BaseException:
        # The real end finds the same, and has its own words for it.
        return
    own = [module for name, module in modules.items() if WARM_MODULES.get(name) is not module]
    watched = [_weakref.ref(module) for module in own if type(module) is type(sys) and module is not sys]
    del own
    for name in ENDING_SYS:
        sys.__dict__[name] = None
    for name in ("stdin", "stdout", "stderr"):
        sys.__dict__[name] = sys.__dict__.get("__%s__" % name)
    modules.clear()
    gc.collect()
    for reference in reversed(watched):
        module = reference()
        if module is not None:
            clear_module(module.__dict__)
            del module
    try:
        flush_streams()
    except BaseException:
        status = 120
    c_function("exit")(status)


def flush_streams() -> None:
    """Write what code printed and what has not left this process yet."""
    for name in ("stdout", "stderr"):
        stream = sys.__dict__.get(name)
        if stream is not None and not stream.closed:
            stream.flush()


def clear_module(names: dict[str, Any]) -> None:
    """Let go of what a module holds, its private names first."""
    for private in (True, False):
        for name in list(names):
            is_private = name[:1] == "_" and name[1:2] != "_"
            if is_private is private and name != "__builtins__":
                names[name] = None


def open_streams() -> None:
    """Make `sys.stdin` and its like anew, with the properties that this interpreter's own start gave them."""
    import io

    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        old = getattr(sys, name)
        if old is None:
            continue
        unbuffered = mode == "w" and old.write_through
        binary = io.open(fd, mode + "b", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
        raw: Any = binary if unbuffered else binary.raw  # type: ignore[attr-defined]
        raw.name = "<%s>" % name
        text = io.TextIOWrapper(binary, old.encoding, old.errors, "\n", old.line_buffering, old.write_through)
        text.mode = mode  # type: ignore[misc]
        setattr(sys, name, text)
        setattr(sys, "__%s__" % name, text)


def new_main() -> None:
    """Replace the module `__main__` by one like that of an interpreter which was just started."""
    import builtins

    main = type(sys)("__main__")
    main.__loader__ = sys.modules["_frozen_importlib"].BuiltinImporter
    if HAS_ANNOTATIONS:
        main.__annotations__ = {}
    main.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = main


def set_environment(env: dict[str, str]) -> None:
    """Make `env` this process's environment."""
    if dict(os.environ) == env:
        return
    zone = os.environ.get("TZ")
    for name in list(os.environ):
        if name not in env:
            del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if env.get("TZ") != zone:
        time.tzset()


def holds_module(directory: str, names: set[str]) -> bool:
    """Tell whether a directory has a module or package of one of these names."""
    try:
        entries = os.listdir(directory) if names else []
    except OSError:
        return False
    for entry in entries:
        if entry.partition(".")[0] in names and (
            entry.endswith((".py", ".pyc", ".so")) or os.path.exists(os.path.join(directory, entry, "__init__.py"))
        ):
            return True
    return False


def shadows_warm_module(directory: str, python_path: list[str]) -> bool:
    """Tell whether code would find other modules than the warm interpreter has: a fresh one searches these first."""
    warm = {name for name in WARM_MODULES if "." not in name}
    # The directory of the code is searched from when the code begins, the path from when the interpreter does.
    return holds_module(directory, warm - FRESH_MODULES) or any(holds_module(part, warm) for part in python_path)


def run_in_own_interpreter(spec: dict[str, Any]) -> None:
    """Become a fresh interpreter, for code to which the warm one would be wrong. Never returns."""
    set_signals_to_default(python=False)
    os.execve(sys.executable, [sys.executable, *spec["argv"][1:]], spec["env"])


def search_path(env: dict[str, str], base_path: list[str]) -> list[str]:
    """Return where an interpreter with this environment looks for modules."""
    search = list(base_path)
    for part in reversed(env.get("PYTHONPATH", "").split(":") if env.get("PYTHONPATH") else []):
        part = os.path.abspath(part)
        if part in search:
            search.remove(part)
        search.insert(0, part)
    return search


def run_python(spec: dict[str, Any], base_path: list[str]) -> None:
    """Run the file of an execution in this process, which is a fresh fork of the zygote. Never returns."""
    if spec["source"] is not None:
        write_source(spec)
    enter_directory(spec)
    set_environment(spec["env"])
    path = os.path.join(spec["workdir"], spec["filename"])
    shown = path if sys.version_info >= (3, 9) else spec["argv"][1]
    if os.path.islink(path):
        path = os.path.realpath(path)
    search = search_path(spec["env"], base_path)
    directory = os.path.realpath(os.path.dirname(path))
    if shadows_warm_module(directory, search[: len(search) - len(base_path)]):
        run_in_own_interpreter(spec)
    sys.path[:] = [directory, *search]
    sys.argv[:] = spec["argv"][1:]
    if sys.version_info >= (3, 10):
        sys.orig_argv[:] = spec["argv"]
    open_streams()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    new_main()
    for name in AGENT_MODULES:
        sys.modules.pop(name, None)
    run_file(shown)


AGENT_MODULES: list[str] = []


class Zygote:
    """The zygote's side: import what is to be warm, then fork whenever the agent asks for it."""

    def __init__(self, channel: int, identity: Identity, workdir: str, env: dict[str, str]) -> None:
        import _socket

        self._channel = _socket.socket(fileno=channel)
        self._identity = identity
        self._workdir = workdir
        self._base_path = sys.path[1:]
        self._env = env

    def run(self, preload: list[str]) -> None:
        """Serve until the agent is gone. Never returns."""
        parent = os.getppid()
        self._identity.become()
        prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        try:
            os.chdir(self._workdir)
        except OSError:
            pass
        AGENT_MODULES[:] = [name for name in sys.modules if name not in FRESH_MODULES and name != "__main__"]
        for name in AGENT_MODULES:
            del sys.modules[name]
        sys.path[:] = self._base_path
        set_environment(self._env)
        errors = self._import(preload)
        AGENT_MODULES[:] = [name for name in ("resource",) if name not in sys.modules]
        WARM_MODULES.update(sys.modules)
        gc.collect()
        gc.freeze()
        self._send("R" + to_json(errors))
        while True:
            self._serve()

    @staticmethod
    def _import(preload: list[str]) -> dict[str, str]:
        errors = {}
        for name in preload:
            try:
                __import__(name)
            except BaseException as error:
                errors[name] = ("%s: %s" % (type(error).__name__, error))[:500]
        return errors

    def _send(self, message: str) -> None:
        try:
            self._channel.send(message.encode())
        except OSError:
            os._exit(0)

    def _serve(self) -> None:
        data, ancillary, _, _ = self._channel.recvmsg(8192, 64)
        if not data:
            os._exit(0)
        if data[:1] == b"U":
            try:
                os.unlink(data[1:])
            except OSError:
                pass
            return
        packed = ancillary[0][2]
        fds = [int.from_bytes(packed[start : start + 4], sys.byteorder) for start in range(0, len(packed), 4)]
        if data[:1] == b"C":
            self._fork_context(data[1:].decode(), fds)
            return
        try:
            pid = os.fork()
        except OSError as error:
            self._send("E" + explain(error))
            pid = -1
        if pid == 0:
            self._become_code(fds)
        for fd in fds:
            os.close(fd)
        if pid > 0:
            self._send("P%d" % pid)
            _, status, usage = os.wait4(pid, 0)
            self._send("X%d %d %r %d" % (pid, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss))

    def _fork_context(self, number: str, fds: list[int]) -> None:
        """Fork twice, so that the interpreter is the agent's child: nobody has to wait for it here."""
        try:
            pid = os.fork()
        except OSError:
            pid = -1  # the agent sees that the other end of the socket is gone
        if pid == 0:
            try:
                child = os.fork()
                if child == 0:
                    self._become_context(fds)
                self._send("K%s %d" % (number, child))
            finally:
                os._exit(0)
        for fd in fds:
            os.close(fd)
        if pid > 0:
            os.waitpid(pid, 0)

    def _become_context(self, fds: list[int]) -> None:
        try:
            os.close(self._channel.detach())
            os.setsid()
            spec = read_spec(fds[1])
            channel = fcntl.fcntl(fds[0], fcntl.F_DUPFD_CLOEXEC, CONTEXT_FD)
            os.close(fds[0])
            self._identity.limit()
            Kernel(channel).serve(spec, self._base_path)
        finally:
            os._exit(70)

    def _become_code(self, fds: list[int]) -> None:
        try:
            os.close(self._channel.detach())
            os.setsid()
            for number, fd in enumerate(fds[:3]):
                os.dup2(fd, number, inheritable=True)
                os.close(fd)
            spec = read_spec(fds[3])
            self._identity.limit()
            run_python(spec, self._base_path)
        except BaseException as error:
            say_and_exit("%s: %s: %s" % (sys.executable, type(error).__name__, error), 70)
        finally:
            os._exit(70)


# --- a context: an interpreter that stays, in a process of its own


RESULT_KEYS = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "text/javascript": "javascript",
}
RESULT_PARTS = frozenset(RESULT_KEYS.values())
ERROR_PARTS = frozenset(("name", "value", "traceback"))
BINARY_KEYS = ("png", "jpeg", "pdf")
REPRESENTATIONS = ("html", "markdown", "svg", "png", "jpeg", "pdf", "latex", "json", "javascript")
TOKEN_BYTES = 8
PART_BYTES = 32 * 1024
MAX_RESULT_BYTES = 8 * 1024 * 1024
MAX_RESULTS_BYTES = 32 * 1024 * 1024
MAX_RESULTS = 500
MAX_RESULT_TEXT_BYTES = 1024 * 1024
MAX_TRACEBACK_BYTES = 256 * 1024
MAX_ERROR_VALUE_BYTES = 64 * 1024
MAX_SOURCES = 500
CONTEXT_FD = 100
CO_COROUTINE = 0x80


def pack_parts(parts: list[tuple[str, bytes]]) -> bytes:
    """Return named pieces of data as one: length of the name, name, length, data."""
    packed = []
    for name, data in parts:
        packed += [bytes([len(name)]), name.encode("ascii"), len(data).to_bytes(4, "big"), data]
    return b"".join(packed)


def unpack_parts(packed: bytes, known: frozenset[str]) -> list[tuple[str, bytes]]:
    """Return what `pack_parts` was given. Raises ValueError for anything else, and for names that are not known."""
    parts: list[tuple[str, bytes]] = []
    start = 0
    while start < len(packed):
        middle = start + 1 + packed[start]
        end = middle + 4 + int.from_bytes(packed[middle : middle + 4], "big")
        name = packed[start + 1 : middle].decode("ascii")
        if end > len(packed) or middle + 4 > len(packed) or name not in known or name in [seen for seen, _ in parts]:
            raise ValueError("this is no result")
        parts.append((name, packed[middle + 4 : end]))
        start = end
    return parts


def cut_middle(data: bytes, limit: int) -> bytes:
    """Return text without its middle where it is too long."""
    if len(data) <= limit:
        return data
    half = limit // 2
    return data[:half] + b"\n[... %d bytes omitted ...]\n" % (len(data) - 2 * half) + data[-half:]


def encoded(text: str) -> bytes:
    """Return text as UTF-8, whatever it holds."""
    return text.encode("utf-8", "replace")


def result_data(key: str, data: Any) -> bytes | None:
    """Return one representation of a value as it is sent; None for what cannot be one."""
    if isinstance(data, tuple):
        data = data[0] if data else None
    if data is None:
        return None
    if key in BINARY_KEYS:
        if isinstance(data, str):
            import binascii

            try:
                return binascii.a2b_base64(data)
            except ValueError:
                return None
        return bytes(data) if isinstance(data, (bytes, bytearray, memoryview)) else None
    if key == "json" and not isinstance(data, (str, bytes)):
        import json

        return encoded(json.dumps(data, default=str))
    if isinstance(data, bytes):
        return data
    return encoded(data if isinstance(data, str) else str(data))


def method_of(value: Any, name: str) -> Any:
    """Return a method by which a value shows itself, unless it claims to have methods of any name."""
    if isinstance(value, type) or hasattr(value, "_ipython_canary_method_should_not_exist_"):
        return None
    method = getattr(value, name, None)
    return method if callable(method) else None


def from_bundle(bundle: Any) -> dict[str, bytes]:
    """Return the representations in a dictionary by MIME type, those that have a key here."""
    parts: dict[str, bytes] = {}
    if isinstance(bundle, tuple):
        bundle = bundle[0]
    for mime, data in bundle.items() if isinstance(bundle, dict) else ():
        key = RESULT_KEYS.get(mime) or ("json" if str(mime).endswith("+json") else None)
        packed = result_data(key, data) if key else None
        if key and packed is not None and key not in parts:
            parts[key] = packed
    return parts


def is_figure(value: Any) -> bool:
    """Tell whether a value is a figure of matplotlib, without importing it."""
    module = sys.modules.get("matplotlib.figure")
    return module is not None and isinstance(value, module.__dict__.get("Figure", ()))


def drawn(figure: Any) -> bytes:
    """Return a figure as PNG."""
    import io

    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return file.getvalue()


def represent(value: Any) -> dict[str, bytes]:
    """Return a value as it shows itself: its text, and whatever else it has methods for."""
    parts: dict[str, bytes] = {"text": cut_middle(encoded(repr(value)), MAX_RESULT_TEXT_BYTES)}
    if is_figure(value):
        return dict(parts, png=drawn(value))
    try:
        method = method_of(value, "_repr_mimebundle_")
        if method is not None:
            parts.update(from_bundle(method()))
        if type(value).__module__.startswith("plotly.") and method_of(value, "to_json"):
            parts["json"] = encoded(value.to_json())
    except Exception:
        pass  # as a value without it: its text is there
    for key in REPRESENTATIONS:
        if key in parts:
            continue
        try:
            method = method_of(value, "_repr_%s_" % key)
            data = None if method is None else result_data(key, method())
        except Exception:
            data = None
        if data is not None:
            parts[key] = data
    return parts


def shortened(parts: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out the largest representations of a result that has too many bytes, and say so in its text."""
    left_out = []
    while sum([len(data) for data in parts.values()]) > MAX_RESULT_BYTES:
        key = max(parts, key=lambda name: len(parts[name]))
        left_out.append("%s of %d bytes" % (key, len(parts.pop(key))))
    if left_out:
        note = "[left out: %s; a result has at most %d bytes]" % (", ".join(left_out), MAX_RESULT_BYTES)
        text = parts.get("text", b"")
        parts["text"] = text + b"\n" + note.encode() if text else note.encode()
    return parts


class PatchedLoader:
    """Load a module as its own loader does, then change something in it."""

    def __init__(self, loader: Any, patch: Callable[[Any], None]) -> None:
        self._loader = loader
        self._patch = patch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        """Leave it to the module's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Run the module, then the patch, whose failure leaves the module as it is."""
        self._loader.exec_module(module)
        try:
            self._patch(module)
        except Exception:
            pass


class PatchFinder:
    """Find modules that show things as other finders do, so that they show them here."""

    def __init__(self, patches: dict[str, Callable[[Any], None]]) -> None:
        self._patches = patches

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec of a module that is to be patched; None for all others."""
        if name not in self._patches:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = PatchedLoader(spec.loader, self._patches[name])  # type: ignore[assignment]
                return spec
        return None

    def install(self) -> None:
        """Patch what is there already, and what will be imported."""
        for name, patch in self._patches.items():
            if name in sys.modules:
                try:
                    patch(sys.modules[name])
                except Exception:
                    pass
        sys.meta_path.insert(0, self)


class Kernel:
    """The context's side: run one source after another in the same module, and tell what they show.

    Everything goes over one socket that keeps messages apart; each bears the token of its execution, so what code
    writes there by mistake is no message. A result is acknowledged before code goes on: output keeps its place.
    """

    def __init__(self, channel: int) -> None:
        import _socket
        import _thread

        self._channel = _socket.socket(fileno=channel)
        self._pid = os.getpid()
        self._lock = _thread.RLock()
        self._token = b""
        self._number = 0
        self._sent = 0
        self._results = 0
        self._results_bytes = 0
        self._names: dict[str, Any] = {}
        self._stdin: Any = None
        self._loop: Any = None
        self._future_flags = 0
        self._sources: deque[str] = deque()
        self._shown: list[Any] = []

    def serve(self, spec: dict[str, Any], base_path: list[str]) -> None:
        """Run whatever comes until the agent is gone. Never returns."""
        self._quiet()
        self._prepare(spec, base_path)
        while True:
            data, ancillary, _, _ = self._channel.recvmsg(256, 256)
            if not data:
                os._exit(0)
            if data[:1] == b"X" and ancillary:
                packed = ancillary[0][2]
                self._run(data[1:], [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, 16, 4)])

    def _prepare(self, spec: dict[str, Any], base_path: list[str]) -> None:
        import ast  # noqa: F401
        import builtins
        import linecache  # noqa: F401
        import traceback  # noqa: F401

        enter_directory(spec)
        set_environment(spec["env"])
        os.environ.setdefault("MPLBACKEND", "Agg")
        sys.path[:] = ["", *search_path(spec["env"], base_path)]
        sys.argv[:] = [""]
        if sys.version_info >= (3, 10):
            sys.orig_argv[:] = [sys.orig_argv[0]]
        open_streams()
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            numpy_random.seed()
        new_main()
        for name in AGENT_MODULES:
            sys.modules.pop(name, None)
        self._names = sys.modules["__main__"].__dict__
        builtins.display = self.display  # type: ignore[attr-defined]
        PatchFinder(
            {
                "matplotlib.pyplot": self._patch_pyplot,
                "matplotlib.figure": self._patch_figure,
                "IPython.core.display_functions": self._patch_ipython,
                "IPython.core.display": self._patch_ipython,
                "plotly.io": self._patch_plotly,
            }
        ).install()

    # --- libraries that show things

    def _patch_pyplot(self, module: Any) -> None:
        def show(*args: Any, **kwargs: Any) -> None:
            """Show all open figures, and close them."""
            self._show_figures()

        module.show = show

    def _patch_figure(self, module: Any) -> None:
        def show(figure: Any, warn: bool = True) -> None:
            """Show this figure."""
            self.display(figure)

        module.Figure.show = show

    def _patch_ipython(self, module: Any) -> None:
        if hasattr(module, "display"):
            module.display = self.display
        if hasattr(module, "publish_display_data"):
            module.publish_display_data = lambda data, metadata=None, **options: self.display(data, raw=True)

    def _patch_plotly(self, module: Any) -> None:
        module.show = lambda figure, *args, **options: self.display(figure)

    def display(self, *values: Any, raw: bool = False, **options: Any) -> None:
        """Show values as rich results; with `raw`, dictionaries of representations by MIME type."""
        for value in values:
            if is_figure(value):
                self._shown.append(value)
            self._show(from_bundle(value) if raw else represent(value))

    def _show_figures(self) -> None:
        """Show each open figure that was not shown yet, and close it; the first that cannot be drawn says why."""
        helpers, pyplot = (sys.modules.get("matplotlib." + name) for name in ("_pylab_helpers", "pyplot"))
        if helpers is None or pyplot is None:
            return
        troubles = []
        for manager in helpers.Gcf.get_all_fig_managers():
            figure = manager.canvas.figure
            try:
                if not any(figure is shown for shown in self._shown):
                    self._show(represent(figure))
            except Exception as trouble:
                troubles.append(trouble)
            finally:
                # Also what cannot be drawn: it would be in the way of all that comes later.
                pyplot.close(figure)
        del self._shown[:]
        if troubles:
            raise troubles[0]

    # --- one execution

    def _run(self, token: bytes, fds: list[int]) -> None:
        for number, fd in enumerate(fds[:3]):
            os.dup2(fd, number, inheritable=True)
            os.close(fd)
        spec = read_spec(fds[3])
        self._number += 1
        self._results = self._results_bytes = 0
        self._token = token
        code = 1
        try:
            self._open_streams()
            before = self._enter(spec)
            try:
                code = self._attempt(spec["source"])
            finally:
                self._quiet()
                for name, value in before.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value
        except BaseException as error:
            # Only an interrupt at an awkward moment, or code that has changed what all code needs.
            self._complain(error)
        if os.getpid() != self._pid:
            self._leave_fork(code)
        self._leave(code)

    def _enter(self, spec: dict[str, Any]) -> dict[str, str | None]:
        """Set what is for this execution alone; return what was there before."""
        before: dict[str, str | None] = {name: os.environ.get(name) for name in spec["env"]}
        os.environ.update(spec["env"])
        added = [path for path in map(os.path.abspath, spec["python_path"]) if path not in sys.path]
        if added:
            sys.path[1:1] = added
            sys.path_importer_cache.clear()
        return before

    def _attempt(self, source: bytes) -> int:
        """Run code and tell what came of it; return its exit code."""
        code = 0
        try:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
            self._channel.send(self._token + b"B" + bytes(4) + b"<>")
            self._execute(source)
        except SystemExit as end:
            code = self._exit_code(end)
        except BaseException as error:
            self._tell_error(error)
            code = 1
        try:
            self._show_figures()
        except Exception as error:
            self._complain(error)
        return code

    def _execute(self, source: bytes) -> None:
        import ast
        import builtins

        name = "<input %d>" % self._number
        text = source.decode("utf-8", "replace")
        self._remember(name, text)
        flags = self._future_flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        tree = compile(text, name, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not text.rstrip().endswith(";"):
            last = compile(ast.Expression(tree.body.pop().value), name, "eval", flags, dont_inherit=True)
        code = compile(tree, name, "exec", flags, dont_inherit=True)
        self._future_flags |= code.co_flags & self._all_future_flags()
        self._evaluate(code)
        value = None if last is None else self._evaluate(last)
        if value is not None:
            builtins._ = value  # type: ignore[attr-defined]
            if is_figure(value):
                self._shown.append(value)
            self._show(represent(value), main=True)

    def _evaluate(self, code: Any) -> Any:
        value = eval(code, self._names)  # noqa: S307
        return self._await(value) if code.co_flags & CO_COROUTINE else value

    def _await(self, coroutine: Any) -> Any:
        """Wait for code that awaits at its top; its loop stays, with whatever it left running, for the next one."""
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            if not task.done():
                task.cancel()
                self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise

    @staticmethod
    def _all_future_flags() -> int:
        import __future__

        flags = 0
        for name in __future__.all_feature_names:
            flags |= getattr(__future__, name).compiler_flag
        return flags

    def _remember(self, name: str, text: str) -> None:
        """Keep a source where tracebacks look for it."""
        import linecache

        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        self._sources.append(name)
        if len(self._sources) > MAX_SOURCES:
            linecache.cache.pop(self._sources.popleft(), None)

    @staticmethod
    def _exit_code(end: SystemExit) -> int:
        if end.code is None or isinstance(end.code, int):
            return int(end.code or 0) & 0xFF
        os.write(2, encoded(str(end.code)) + b"\n")
        return 1

    def _tell_error(self, error: BaseException) -> None:
        import traceback

        trace = error.__traceback__
        while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<input "):
            trace = trace.tb_next
        try:
            value = str(error)
        except Exception:
            value = "<it cannot be shown>"
        lines = traceback.format_exception(type(error), error, trace)
        parts = [
            ("name", encoded(type(error).__name__)[:200]),
            ("value", cut_middle(encoded(value), MAX_ERROR_VALUE_BYTES)),
            ("traceback", cut_middle(encoded("".join(lines)), MAX_TRACEBACK_BYTES)),
        ]
        self._send(b"E", pack_parts(parts))

    @staticmethod
    def _complain(error: BaseException) -> None:
        os.write(2, encoded("%s: %s\n" % (type(error).__name__, error))[:4096])

    # --- the way to the agent

    def _show(self, parts: dict[str, bytes], *, main: bool = False) -> None:
        parts = shortened(parts)
        size = sum([len(data) for data in parts.values()])
        self._results += 1
        if self._results > MAX_RESULTS:
            return
        if self._results == MAX_RESULTS:
            parts = {"text": b"[left out: an execution shows at most %d results]" % MAX_RESULTS}
        elif self._results_bytes + size > MAX_RESULTS_BYTES:
            note = "[left out: a result of %d bytes; those of an execution have at most %d together]"
            parts = {"text": (note % (size, MAX_RESULTS_BYTES)).encode()}
        else:
            self._results_bytes += size
        if parts:
            self._send(b"M" if main else b"R", pack_parts(list(parts.items())))

    def _send(self, kind: bytes, payload: bytes) -> None:
        """Send a message in parts, and wait until it has been taken."""
        self._flush()
        with self._lock:
            if not self._token or os.getpid() != self._pid:
                return
            self._sent += 1
            number = self._sent.to_bytes(4, "big")
            for start in range(0, max(len(payload), 1), PART_BYTES):
                place = (b"<" if start == 0 else b"-") + (b">" if start + PART_BYTES >= len(payload) else b"-")
                self._channel.send(self._token + kind + number + place + payload[start : start + PART_BYTES])
            while self._channel.recv(256) not in (b"A" + number, b""):
                pass

    @staticmethod
    def _flush() -> None:
        try:
            flush_streams()
        except (OSError, ValueError, AttributeError):
            pass

    def _open_streams(self) -> None:
        """Give code its standard input, and outputs if it has closed them."""
        old_input = sys.stdin
        outputs = {name: getattr(sys, name) for name in ("stdout", "stderr")}
        open_streams()
        for name, stream in outputs.items():
            if stream is not None and not stream.closed:
                setattr(sys, name, stream)
                setattr(sys, "__%s__" % name, stream)
        if self._stdin is None or old_input is self._stdin:
            self._stdin = sys.stdin
        else:
            sys.stdin = old_input

    @staticmethod
    def _quiet() -> None:
        """Let an interrupt that comes too late do nothing."""
        while True:
            try:
                _signal.signal(_signal.SIGINT, lambda number, frame: None)
                return
            except KeyboardInterrupt:
                continue

    def _leave(self, code: int) -> None:
        """Let go of the execution's streams, and tell that it is over."""
        self._flush()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd, inheritable=True)
        os.close(null)
        with self._lock:
            self._channel.send(self._token + b"D" + bytes(4) + b"<>" + b"%d" % code)
            self._token = b""

    def _leave_fork(self, code: int) -> None:
        """End a process that code has forked and that came to the end of the code."""
        try:
            flush_streams()
        finally:
            os._exit(code)


def write_spec(spec: dict[str, Any]) -> int:
    """Return a file in memory that holds what a child is to do."""
    fd = os.memfd_create("execution")
    write_all(fd, marshal.dumps(spec))
    return fd


def read_spec(fd: int) -> dict[str, Any]:
    """Return what `write_spec` wrote, and close its file."""
    size = os.fstat(fd).st_size
    data, offset = b"", 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        data, offset = data + part, offset + len(part)
    os.close(fd)
    spec: dict[str, Any] = marshal.loads(data)
    return spec


# --- where code is, read from the memory of a process that is about to be killed


class OwnMemory:
    """The memory of this process."""

    def read(self, address: int, size: int) -> bytes:
        """Return some bytes; there must be some."""
        words = [Word.from_address(at).value for at in range(address, address + size, 8)]
        return b"".join([word.to_bytes(8, sys.byteorder) for word in words])[:size]


class ProcessMemory:
    """The memory of a process of the code's user; wherever nothing is, reading raises OSError."""

    def __init__(self, pid: int, identity: Identity) -> None:
        gid, uid = identity.gid if identity.gid is not None else identity.uid, identity.uid
        as_group, as_user = c_function("setfsgid"), c_function("setfsuid")
        # Only the identity for files: who may signal this process must not change for a moment.
        if uid is not None and os.getuid() != uid:
            as_group(gid)
            as_user(uid)
        try:
            self.fd = os.open("/proc/%d/mem" % pid, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            if uid is not None and os.getuid() != uid:
                as_user(os.getuid())
                as_group(os.getgid())

    def read(self, address: int, size: int) -> bytes:
        """Return some bytes."""
        data = os.pread(self.fd, size, address) if 0 < address < 1 << 62 else b""
        if len(data) < size:
            raise OSError(errno.EIO, "There is no such memory.")
        return data


class StackReader:
    """Find the line at which a fork of this interpreter is, without a trace of that in the fork.

    The places are those of CPython's releases, and are tried on this process first: where they do not lead to what runs
    here, nothing is ever said. What is read is the code's to forge, so nothing of it is trusted or executed.
    """

    # Where a frame has its code, the frame below it, and the instruction that it has come to.
    PLACES = {(3, 11): (32, 48, 56), (3, 12): (0, 8, 56), (3, 13): (0, 8, 56)}
    MAX_FRAMES = 500
    MAX_NAME_BYTES = 300
    MAX_TABLE_BYTES = 256 * 1024

    def __init__(self) -> None:
        self.works = False
        version = sys.version_info[:2]
        if _ctypes is None or sys.implementation.name != "cpython" or version not in self.PLACES:
            return
        self._code, self._below, self._instruction = self.PLACES[version]
        self._thread = c_pointer_function("PyThreadState_Get")() + Frames.HOLDER[version]
        self._within = Frames.WITHIN_HOLDER.get(version)
        self._text_header = sys.getsizeof("") - 1
        own = sys._getframe()
        code = own.f_code.replace(co_firstlineno=0x51A7E)
        self._header = type(code).__basicsize__
        layout = OwnMemory().read(id(code), self._header)
        try:
            parts = (code.co_filename, code.co_name, code.co_linetable)
            self._parts = [layout.index(id(part).to_bytes(8, sys.byteorder)) for part in parts]
            self._first = layout.index((0x51A7E).to_bytes(4, sys.byteorder))
            told, line = next(self.frames(OwnMemory(), Frames.address(own))), own.f_lineno
        except (ValueError, IndexError, StopIteration):
            return
        finds_itself = Frames.find()[0].value == Frames.address(own)
        self.works = finds_itself and told == (code.co_filename, code.co_name, line)

    def frames(self, memory: Any, frame: int = 0) -> Iterator[tuple[str, str, int]]:
        """Yield (file, function, line) of a frame and those below it, by default of all of the main thread."""

        def word(address: int) -> int:
            return int.from_bytes(memory.read(address, 8), sys.byteorder)

        if not frame:
            frame = word(self._thread)
            if self._within is not None:
                frame = word(frame + self._within)
        for _ in range(self.MAX_FRAMES):
            if not frame:
                return
            code = word(frame + self._code)
            offset = word(frame + self._instruction) - code - self._header
            path, name, table = (word(code + part) for part in self._parts)
            size = word(table + 16)
            if offset >= 0 and 0 < size <= self.MAX_TABLE_BYTES:
                first = int.from_bytes(memory.read(code + self._first, 4), sys.byteorder)
                # What the bytes of an object hold begins where the object's own size, less a closing NUL, ends.
                line = line_at(memory.read(table + bytes.__basicsize__ - 1, size), first, offset // 2)
                yield self._text(memory, path), self._text(memory, name), line
            frame = word(frame + self._below)

    def _text(self, memory: Any, address: int) -> str:
        """Return a short text of ASCII; empty for any other."""
        length = int.from_bytes(memory.read(address + 16, 8), sys.byteorder)
        raw = memory.read(address + self._text_header, length) if 0 < length <= self.MAX_NAME_BYTES else b""
        return raw.decode() if all(32 <= byte < 127 for byte in raw) else ""

    def where(self, pid: int, identity: Identity, workdir: str, source_path: str) -> dict[str, Any]:
        """Return `line`, `function` and, unless it is the execution's own, `file` of the innermost frame of the code.

        Libraries and the interpreter's own modules are not the code. Empty when it cannot be said.
        """
        memory = None
        try:
            memory = ProcessMemory(pid, identity)
            for path, name, line in self.frames(memory):
                if path.startswith(workdir + "/") and not path.startswith(workdir + "/.sandboxweb/") and line > 0:
                    found = {"line": line, "function": name}
                    return found if path == source_path else {**found, "file": path[len(workdir) + 1 :]}
        except (OSError, IndexError):
            pass
        finally:
            if memory is not None:
                os.close(memory.fd)
        return {}


def line_at(table: bytes, first: int, unit: int) -> int:
    """Return the line of a unit of bytecode by its code's location table (Python 3.11's and newer); 0 when it has none.

    Raises:
        IndexError: when the table is none.
    """
    line, position, reached = first, 0, 0
    while position < len(table):
        head = table[position]
        position += 1
        kind, reached = head >> 3 & 15, reached + (head & 7) + 1
        if kind in (13, 14):
            value, shift = 0, 0
            while True:
                byte = table[position]
                position += 1
                value, shift = value | (byte & 63) << shift, shift + 6
                if not byte & 64 or shift > 30:
                    break
            line += -(value >> 1) if value & 1 else value >> 1
        elif 10 <= kind <= 12:
            line += kind - 10
        if reached > unit:
            return line if kind != 15 and 0 < line < 1 << 31 else 0
        while position < len(table) and not table[position] & 128:  # columns
            position += 1
    return 0


# --- files: what workers do as the code's user


ERROR_CODES = {
    errno.ENOENT: "not_found",
    errno.EEXIST: "exists",
    errno.ENOTEMPTY: "not_empty",
    errno.ENOTDIR: "not_a_directory",
    errno.EISDIR: "is_a_directory",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "no_space",
    errno.ELOOP: "bad_path",
    errno.ENAMETOOLONG: "bad_path",
    errno.EINVAL: "bad_path",
}


def open_regular(path: str, flags: int) -> int:
    """Open a regular file, never waiting for the other end of a pipe. Raises BadRequest for anything else."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
    kind = os.fstat(fd).st_mode
    if (kind & 0o170000) == 0o040000:
        raise BadRequest("is_a_directory", "The path is a directory.")
    if (kind & 0o170000) != 0o100000:
        raise BadRequest("not_a_file", "The path is no regular file.")
    return fd


def file_write(workdir: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Write one chunk at an offset; the first one empties the file."""
    path = place(workdir, header["path"])
    offset = header.get("offset") or 0
    if offset == 0:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = open_regular(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if offset == 0 else 0))
    rest = memoryview(body)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
    if header.get("mode") is not None and not header.get("more"):
        os.fchmod(fd, header["mode"] & 0o777)
    return {"size": os.fstat(fd).st_size}, b""


def file_read(workdir: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Read one chunk."""
    fd = open_regular(place(workdir, header["path"]), os.O_RDONLY)
    size, offset = os.fstat(fd).st_size, header.get("offset") or 0
    wanted = min(header.get("length", MAX_BODY_BYTES), MAX_BODY_BYTES)
    data = b""
    while len(data) < wanted:
        part = os.pread(fd, wanted - len(data), offset + len(data))
        if not part:
            break
        data += part
    return {"size": size, "eof": offset + len(data) >= size}, data


def describe(path: str, name: str) -> dict[str, Any]:
    """Return what there is to say about a directory entry."""
    found = os.lstat(path)
    kinds = {0o100000: "file", 0o040000: "directory", 0o120000: "link"}
    entry: dict[str, Any] = {
        "name": name,
        "type": kinds.get(found.st_mode & 0o170000, "other"),
        "size": found.st_size,
        "mode": found.st_mode & 0o7777,
        "mtime": found.st_mtime,
    }
    if entry["type"] == "link":
        entry["target"] = os.readlink(path)
    return entry


def file_stat(workdir: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Describe one path; a link is described, not followed, unless `follow` asks for what it leads to."""
    path = place(workdir, header["path"], follow=bool(header.get("follow")))
    found = os.lstat(path)
    version = "%x-%x-%x" % (found.st_mtime_ns, found.st_size, found.st_ino)
    return {"entry": describe(path, os.path.basename(path)), "version": version}, b""


def file_list(workdir: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """List a directory as a JSON array in the body, as much as fits, from entry number `offset`."""
    path = place(workdir, header["path"])
    names = sorted(os.listdir(path))
    number = offset = header.get("offset") or 0
    parts: list[str] = []
    size = 2
    while number < len(names):
        try:
            part = to_json(describe(os.path.join(path, names[number]), names[number]))
        except FileNotFoundError:
            part = ""
        if size + len(part) + 1 > MAX_BODY_BYTES or number - offset >= header.get("limit", 10000):
            break
        number += 1
        if part:
            parts.append(part)
            size += len(part) + 1
    fields = {"count": len(names), "next": number if number < len(names) else None}
    return fields, ("[" + ",".join(parts) + "]").encode()


def file_mkdir(workdir: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Make a directory, with `parents` also those above it."""
    path = place(workdir, header["path"])
    if header.get("parents"):
        os.makedirs(path, exist_ok=True)
    else:
        os.mkdir(path)
    return {}, b""


def file_move(workdir: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Rename a file, directory or link; with `keep`, not over something that is there already."""
    source, target = (place(workdir, header[key], follow=False) for key in ("src", "dst"))
    root = os.path.realpath(workdir)
    if root in (source, target):
        raise BadRequest("forbidden", "The workspace itself stays.")
    if header.get("keep") and os.path.lexists(target):
        raise BadRequest("exists", "There is something at the new path.")
    if header.get("parents"):
        os.makedirs(os.path.dirname(target), exist_ok=True)
    os.rename(source, target)
    return {"entry": describe(target, os.path.basename(target))}, b""


def file_commit(workdir: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Put a file that was written aside in its place, whole, making the directories above it.

    A link in the place is followed, so that what it leads to is replaced and not the link.
    """
    source, target = place(workdir, header["src"], follow=False), place(workdir, header["dst"])
    if os.path.isdir(target):
        raise BadRequest("is_a_directory", "The path is a directory.")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    created = not os.path.lexists(target)
    os.chmod(source, header.get("mode", 0o644) & 0o777)
    os.rename(source, target)
    return {"created": created, "entry": describe(target, os.path.basename(target))}, b""


def file_remove(workdir: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Remove a file, link or directory; a directory that is not empty only with `recursive`."""
    path = place(workdir, header["path"], follow=False)
    if path == os.path.realpath(workdir):
        raise BadRequest("forbidden", "The workspace itself stays.")
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
    elif header.get("recursive"):
        import shutil

        shutil.rmtree(path)
    else:
        os.rmdir(path)
    return {}, b""


def disk_usage(workdir: str, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Add up the blocks of all that lies in the workspace."""
    total, todo = 0, [workdir]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except OSError:
            pass
    return {"disk_bytes": total}, b""


FILE_OPERATIONS = {
    "file_write": file_write,
    "file_read": file_read,
    "file_stat": file_stat,
    "file_list": file_list,
    "file_mkdir": file_mkdir,
    "file_move": file_move,
    "file_commit": file_commit,
    "file_remove": file_remove,
}
CHANGING_OPERATIONS = (file_write, file_move, file_commit)


class Unpacker:
    """Unpack a tar stream beneath a directory: no link out of it, no devices, no foreign owners or set-id bits."""

    MAX_MEMBERS = 500_000

    def __init__(self, workdir: str, path: str, max_members: int = MAX_MEMBERS) -> None:
        self._root = place(workdir, path)
        self._max_members = max_members
        self._safe: dict[str, str] = {}

    def run(self) -> tuple[dict[str, Any], bytes]:
        """Unpack what comes on descriptor 0."""
        import tarfile

        os.makedirs(self._root, exist_ok=True)
        count = 0
        try:
            with tarfile.open(fileobj=os.fdopen(0, "rb", 1024 * 1024), mode="r|") as archive:
                for member in archive:
                    count += 1
                    if count > self._max_members:
                        raise BadRequest("bad_archive", "The archive has more than %d members." % self._max_members)
                    self._unpack(archive, member)
                    archive.members = []  # type: ignore[attr-defined]
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise BadRequest("bad_archive", str(error)) from error
        while os.read(0, CHUNK_BYTES):
            pass
        return {"members": count}, b""

    def _unpack(self, archive: Any, member: Any) -> None:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in member.name:
            raise BadRequest("bad_archive", "The archive has a member outside: %r" % member.name[:200])
        if not parts:
            return
        parent = self._directory("/".join([self._root, *parts[:-1]]))
        path = parent + "/" + parts[-1]
        if member.isdir():
            if os.path.islink(path) or not os.path.isdir(path):
                self._make_room(path)
                os.mkdir(path)
        elif member.issparse():
            # A few bytes of it could stand for any number of zeros.
            raise BadRequest("bad_archive", "The archive has a sparse file: %r" % member.name[:200])
        elif member.isreg():
            self._make_room(path)
            self._write(archive.extractfile(member), path, member.mode)
        elif member.issym():
            target = os.path.realpath(os.path.join(parent, member.linkname))
            if not target.startswith(SHARED_LIBRARIES) or not os.path.exists(target):
                self._check_inside(target, member)
            self._make_room(path)
            os.symlink(member.linkname, path)
            self._safe.clear()
        elif member.islnk():
            source = self._root + "/" + member.linkname
            self._check_inside(os.path.realpath(source), member)
            self._make_room(path)
            os.link(source, path, follow_symlinks=False)
        else:
            raise BadRequest("bad_archive", "The archive has a device or a pipe: %r" % member.name[:200])

    def _check_inside(self, real: str, member: Any) -> None:
        if real != self._root and not real.startswith(self._root + "/"):
            raise BadRequest("bad_archive", "The archive has a link that leads out: %r" % member.name[:200])

    def _directory(self, path: str) -> str:
        """Return a directory's real path, made if need be, after seeing that no link leads out on the way to it.

        The real one, since what a relative link means depends on where it really lies.
        """
        if path not in self._safe:
            real = os.path.realpath(path)
            if real != self._root and not real.startswith(self._root + "/"):
                raise BadRequest("bad_archive", "A link leads out of the directory: %r" % path[:200])
            os.makedirs(real, exist_ok=True)
            self._safe[path] = real
        return self._safe[path]

    @staticmethod
    def _make_room(path: str) -> None:
        if os.path.islink(path) or not os.path.isdir(path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    @staticmethod
    def _write(content: Any, path: str, mode: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            while True:
                data = content.read(1024 * 1024)
                if not data:
                    break
                write_all(fd, data)
            os.fchmod(fd, (mode | 0o600) & 0o755)
        finally:
            os.close(fd)


class Packer:
    """Pack a directory as it is read: files, directories and, in a tar, links; what is none of these is left out."""

    MAX_MEMBERS = 200_000

    def __init__(self, workdir: str, path: str, kind: str) -> None:
        self._root = place(workdir, path)
        self._kind = kind
        self._hidden = ".sandboxweb" if self._root == os.path.realpath(workdir) else ""
        if not os.path.isdir(self._root):
            raise BadRequest("not_a_directory", "Only a directory is packed.")

    def run(self) -> tuple[dict[str, Any], bytes]:
        """Write the archive to descriptor 1."""
        with os.fdopen(1, "wb", 1024 * 1024) as output:
            count = self._zip(output) if self._kind == "zip" else self._tar(output)
        return {"members": count}, b""

    def _entries(self) -> Any:
        """Yield what there is beneath the directory: its name in the archive, its path and its lstat."""
        todo, count = [""], 0
        while todo:
            above = todo.pop()
            try:
                names = sorted(os.listdir(os.path.join(self._root, above)))
            except OSError:
                continue
            for name in names:
                inner = above + name
                path = os.path.join(self._root, inner)
                try:
                    found = os.lstat(path)
                except OSError:
                    continue
                kind = found.st_mode & 0o170000
                count += 1
                if count > self.MAX_MEMBERS:
                    raise BadRequest("bad_archive", "The directory has more than %d entries." % self.MAX_MEMBERS)
                if inner == self._hidden:
                    continue
                if kind == 0o040000:
                    todo.append(inner + "/")
                yield inner, path, found, kind

    def _tar(self, output: Any) -> int:
        import tarfile

        count = 0
        with tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for name, path, found, kind in self._entries():
                member = tarfile.TarInfo(name)
                member.mode, member.mtime = found.st_mode & 0o777, int(found.st_mtime)
                fd = -1
                if kind == 0o040000:
                    member.type = tarfile.DIRTYPE
                elif kind == 0o120000:
                    member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
                elif kind == 0o100000:
                    try:
                        fd = open_regular(path, os.O_RDONLY)
                    except (OSError, BadRequest):
                        continue
                    member.size = os.fstat(fd).st_size
                else:
                    continue
                with Exactly(fd, member.size) as content:
                    archive.addfile(member, content)
                archive.members = []  # type: ignore[attr-defined]
                count += 1
        return count

    def _zip(self, output: Any) -> int:
        import zipfile

        count = 0
        with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, path, found, kind in self._entries():
                shown = os.fsencode(name).decode("utf-8", "replace")
                changed = time.gmtime(min(max(found.st_mtime, 315532800), 4354819199))[:6]
                if kind == 0o040000:
                    member = zipfile.ZipInfo(shown + "/", changed)
                    member.external_attr = (found.st_mode & 0xFFFF) << 16 | 0x10
                    archive.writestr(member, b"")
                elif kind == 0o100000:
                    try:
                        fd = open_regular(path, os.O_RDONLY)
                    except (OSError, BadRequest):
                        continue
                    member = zipfile.ZipInfo(shown, changed)
                    member.external_attr = (found.st_mode & 0xFFFF) << 16
                    member.compress_type = zipfile.ZIP_DEFLATED
                    with os.fdopen(fd, "rb", 0) as source, archive.open(member, "w", force_zip64=True) as target:
                        while True:
                            data = source.read(CHUNK_BYTES)
                            if not data:
                                break
                            target.write(data)
                else:
                    continue
                count += 1
        return count


class Exactly:
    """Read as many bytes of a file as it had when it was opened, zeros in place of those that are gone."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._left = size

    def __enter__(self) -> Exactly:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read(self, size: int = 0) -> bytes:
        """Return the next bytes."""
        size = min(size or self._left, self._left)
        self._left -= size
        data = b""
        while len(data) < size:
            data += os.read(self._fd, size - len(data)) or bytes(size - len(data))
        return data


def work(task: Callable[[], tuple[dict[str, Any], bytes]], fd: int) -> None:
    """Do a task and write its answer: header length, header, body."""
    body = b""
    try:
        fields, body = task()
        answer: dict[str, Any] = {"ok": True}
        answer.update(fields)
    except BadRequest as error:
        answer = {"ok": False, "error": error.code, "message": str(error)[:2000]}
    except OSError as error:
        code = ERROR_CODES.get(error.errno or 0, "os_error")
        answer = {"ok": False, "error": code, "message": explain(error)}
    except BaseException as error:
        answer = {"ok": False, "error": "bad_request", "message": "%s: %s" % (type(error).__name__, error)}
    packed = to_json(answer).encode("ascii")
    write_all(fd, len(packed).to_bytes(4, "big") + packed + body)


# --- what executions change


class Workspace:
    """Know the files of the workspace, so as to tell which of them an execution made or changed.

    Looked at once an execution, for a bounded time and number of entries, and never into hidden directories: what an
    execution costs is a few microseconds. Its times are the kernel's own of a change, which code cannot forge.
    """

    MAX_ENTRIES = 2000
    MAX_S = 0.005
    MAX_TOLD = 100
    MAX_TOLD_CHARS = 24 * 1024
    LEFT_OUT = ("__pycache__", "node_modules")
    CLOCK_REALTIME_COARSE = 5  # what the kernel stamps files with

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._changes: list[tuple[str, Any]] = []
        self._is_whole = True
        self._began_ns = 0
        self.is_stale = True

    def begin(self) -> None:
        """Note the time; look first if something else has changed files since the last look."""
        self._began_ns = time.clock_gettime_ns(self.CLOCK_REALTIME_COARSE)
        if self.is_stale:
            self._look()
            self.is_stale = False

    def end(self, hidden: str) -> dict[str, Any]:
        """Return what has changed since `begin`, as fields of the last event; `hidden` is the execution's own file."""
        before = self._seen
        self._look()
        told: list[dict[str, Any]] = []
        room = self.MAX_TOLD_CHARS
        is_whole = self._is_whole
        for name, found in self._changes:
            if name == hidden or before.get(name) == (found.st_ino, found.st_mtime_ns, found.st_size):
                continue
            room -= len(to_json(name)) + 80
            if len(told) >= self.MAX_TOLD or room < 0:
                is_whole = False
                break
            change = "modified" if name in before else "created"
            told.append({"path": name, "size": found.st_size, "mode": found.st_mode & 0o7777, "change": change})
        self._changes = []
        told.sort(key=lambda entry: entry["path"])
        fields: dict[str, Any] = {"files": told} if told else {}
        return fields if is_whole else {**fields, "files_truncated": True}

    def _look(self) -> None:
        """Remember what there is, and what of it is new."""
        self._seen, self._changes, self._is_whole = {}, [], True
        seen, changes, since, left = self._seen, self._changes, self._began_ns, self.MAX_ENTRIES
        until = clock() + self.MAX_S
        todo = deque([("", self._path)])
        while todo:
            above, path = todo.popleft()
            try:
                entries = os.scandir(path)
            except OSError:
                continue
            with entries:
                for entry in entries:
                    left -= 1
                    if left < 0 or (left % 64 == 0 and clock() > until):
                        self._is_whole = False
                        return
                    name = entry.name
                    if name[0] == "." or name in self.LEFT_OUT:
                        continue
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            todo.append((above + name + "/", entry.path))
                        elif entry.is_file(follow_symlinks=False):
                            found = entry.stat(follow_symlinks=False)
                            seen[above + name] = (found.st_ino, found.st_mtime_ns, found.st_size)
                            if found.st_ctime_ns >= since:
                                changes.append((above + name, found))
                    except OSError:
                        continue


# --- an execution and its journal


class Stream:
    """The standard output or error of an execution: its head is told at once, its tail at the end."""

    def __init__(self, name: str, fd: int, limit_bytes: int) -> None:
        self.name = name
        self.fd = fd
        self.total_bytes = 0
        self.quick = 0
        self.head_left = limit_bytes // 2
        self._tail_limit = limit_bytes - limit_bytes // 2
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.omitted_bytes = 0

    def take(self, data: bytes) -> bytes:
        """Return what of new output belongs to the head; keep the rest."""
        self.total_bytes += len(data)
        head, rest = data[: self.head_left], data[self.head_left :]
        self.head_left -= len(head)
        if rest:
            self.keep(rest)
        return head

    def keep(self, data: bytes) -> None:
        """Keep output as part of the tail, letting the oldest go when it is full."""
        if self._tail and len(self._tail[-1]) + len(data) <= CHUNK_BYTES // 4:
            self._tail[-1] += data
        else:
            self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes > self._tail_limit:
            over = self._tail_bytes - self._tail_limit
            first = self._tail.popleft()
            if len(first) > over:
                self._tail.appendleft(first[over:])
            dropped = min(over, len(first))
            self._tail_bytes -= dropped
            self.omitted_bytes += dropped

    def tail(self) -> list[bytes]:
        """Return the tail in chunks, and let go of it."""
        whole = b"".join(self._tail)
        self._tail.clear()
        return [whole[start : start + CHUNK_BYTES] for start in range(0, len(whole), CHUNK_BYTES)]


class Execution:
    """One run of code, and the journal of what happened in it."""

    def __init__(self, execution_id: str, limit_bytes: int, timeout_s: float | None) -> None:
        self.execution_id = execution_id
        self.limit_bytes = limit_bytes
        self.timeout_s = timeout_s
        self.events: list[tuple[str, bytes]] = []
        self.size_bytes = 0
        self.finished = False
        self.followed = False
        self.sent = 0
        # what is below matters only while it runs
        self.streams: list[Stream] = []
        self.specs: deque[dict[str, Any]] = deque()
        self.code_fds: list[int] = []
        self.stdin_fd = -1
        self.stdin_queue: deque[bytes] = deque()
        self.stdin_bytes = 0
        self.stdin_eof = False
        self.pid = 0
        self.awaits_pid = False
        self.in_zygote = False
        self.ended = False
        self.status: int | None = None
        self.programs_left = 0
        self.cpu_s = 0.0
        self.max_rss_bytes = 0
        self.reason = ""
        self.message = ""
        self.where: dict[str, Any] = {}
        self.killing = False
        self.kill_until = 0.0
        self.clean_passes = 0
        self.before: set[tuple[int, int]] = set()
        self.oom_kills = 0
        self.source_path = ""
        self.filename = ""
        self.started_at = 0.0
        self.drain_until = 0.0
        self.silent_since = 0.0
        self.context: Context | None = None
        self.context_restarted = False

    def add(self, event: str, body: bytes = b"", **fields: Any) -> None:
        """Write an event into the journal."""
        header = {"ev": event, "execution_id": self.execution_id, "seq": len(self.events) + 1, "at": time.time()}
        header.update(fields)
        text = to_json(header)
        self.events.append((text, body))
        self.size_bytes += len(body) + EVENT_OVERHEAD_BYTES


# --- the agent


class Children:
    """Direct children of the agent and what is to happen when they end; orphans that it adopts are just reaped."""

    def __init__(self) -> None:
        self.waiting: dict[int, Callable[[int, Any], None]] = {}

    def reap(self) -> list[tuple[int, int, Any]]:
        """Reap all that ended; return those that nobody waits for."""
        orphans = []
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except OSError:
                break
            if pid == 0:
                break
            callback = self.waiting.pop(pid, None)
            if callback is None:
                orphans.append((pid, status, usage))
            else:
                callback(status, usage)
        return orphans


class OutOfMemoryCount:
    """How many processes the kernel has killed in this memory cgroup."""

    def __init__(self) -> None:
        self._path = ""
        own = {}
        for line in read_small("/proc/self/cgroup").decode("utf-8", "replace").splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            own[controllers] = path
        for path in ("/sys/fs/cgroup/memory%s/memory.oom_control" % own.get("memory", ""), *self._others(own)):
            if b"oom_kill " in read_small(path):
                self._path = path
                return

    @staticmethod
    def _others(own: dict[str, str]) -> tuple[str, ...]:
        return (
            "/sys/fs/cgroup%s/memory.events" % own.get("", ""),
            "/sys/fs/cgroup/memory/memory.oom_control",
            "/sys/fs/cgroup/memory.events",
        )

    def read(self) -> int:
        """Return the count; 0 where it cannot be read."""
        if not self._path:
            return 0
        for line in read_small(self._path).splitlines():
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
        return 0


class Unpacking:
    """An archive on its way to the worker that unpacks it."""

    def __init__(self, path: str, fd: int, generation: int) -> None:
        self.path = path
        self.fd = fd
        self.generation = generation
        self.pid = 0
        self.number: int | None = None
        self.last = False
        self.rest = memoryview(b"")
        self.answer: dict[str, Any] | None = None


class Packing:
    """An archive on its way out of the worker that packs it; it goes no faster than it is asked for."""

    def __init__(self, fd: int, generation: int) -> None:
        self.fd = fd
        self.generation = generation
        self.pid = 0
        self.number: int | None = None
        self.answer: dict[str, Any] | None = None


class Context:
    """One interpreter that stays between executions, as the agent knows it."""

    def __init__(self, context_id: str) -> None:
        self.context_id = context_id
        self.created_at = time.time()
        self.executions = 0
        self.restarts = 0
        self.lost = False
        self.deleted = False
        # the process that it is now; another number is another process
        self.number = 0
        self.pid = 0
        self.key = (0, 0)
        self.channel: Any = None
        # the execution that runs in it
        self.execution: Execution | None = None
        self.token = b""
        self.message = bytearray()
        self.receiving = False
        self.cpu_s = 0.0
        self.results = 0
        self.results_bytes = 0
        self.has_error = False
        self.has_begun = False
        self.is_wanted = False

    def describe(self) -> dict[str, Any]:
        """Return what there is to say about it."""
        if self.execution is not None:
            state = "busy"
        elif self.channel is None:
            state = "ended"
        else:
            state = "idle" if self.pid else "starting"
        return {
            "context_id": self.context_id,
            "lang": "python",
            "state": state,
            "created_at": self.created_at,
            "executions": self.executions,
            "restarts": self.restarts,
        }


class Contexts:
    """The contexts of the session: start them, hand code to them, hear what they say, end them."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._contexts: dict[str, Context] = {}
        self._numbers = 0

    # --- what the agent asks

    def pids(self) -> set[int]:
        """Return the processes that are interpreters."""
        return {context.pid for context in self._contexts.values() if context.pid}

    def keys(self, but: Context | None = None) -> set[tuple[int, int]]:
        """Return the processes that are interpreters of other contexts than one."""
        return {context.key for context in self._contexts.values() if context.pid and context is not but}

    def tree(self, context: Context) -> list[tuple[int, int]]:
        """Return the process of a context and all beneath it."""
        if not context.pid:
            return []
        return [context.key, *self._agent._tree.walk([context.pid], set(), set())]

    def describe(self) -> list[dict[str, Any]]:
        """Return what there is to say about all of them."""
        return [context.describe() for context in self._contexts.values()]

    # --- requests

    def create(self, header: dict[str, Any]) -> dict[str, Any]:
        """Make a context, or find the one of that id again."""
        context = self._contexts.get(header["context_id"])
        made = context is None
        if context is None:
            context = self._add(header["context_id"])
            self._start(context)
        return {"context": context.describe(), "made": made}

    def list_all(self, header: dict[str, Any]) -> dict[str, Any]:
        """Tell of all contexts."""
        return {"contexts": self.describe()}

    def restart(self, header: dict[str, Any]) -> dict[str, Any]:
        """Give a context a new interpreter; what ran in the old one ends."""
        context = self._find(header)
        self._abandon(context, "The context was restarted.")
        context.restarts += 1
        context.lost = False
        self._start(context)
        return {"context": context.describe()}

    def interrupt(self, header: dict[str, Any]) -> dict[str, Any]:
        """Interrupt what runs in a context, as Ctrl-C does."""
        context = self._find(header)
        execution = context.execution
        if execution is None or execution.ended:
            return {"context": context.describe(), "interrupted": False}
        self._signal(context, execution)
        return {"context": context.describe(), "interrupted": True}

    def delete(self, header: dict[str, Any]) -> dict[str, Any]:
        """End a context; what ran in it ends."""
        context = self._find(header)
        context.deleted = True
        del self._contexts[context.context_id]
        self._abandon(context, "The context was deleted.")
        return {}

    def _find(self, header: dict[str, Any]) -> Context:
        context = self._contexts.get(header["context_id"])
        if context is None:
            raise BadRequest("unknown_context", str(header["context_id"])[:200])
        return context

    def _add(self, context_id: Any) -> Context:
        if not isinstance(context_id, str) or not 0 < len(context_id) <= 200:
            raise BadRequest("bad_request", "The context_id is a text of 1 to 200 characters.")
        if len(self._contexts) >= MAX_CONTEXTS:
            raise BadRequest("too_many_contexts", "A session has at most %d contexts." % MAX_CONTEXTS)
        context = self._contexts[context_id] = Context(context_id)
        return context

    # --- starting and ending interpreters

    def _start(self, context: Context) -> None:
        """Ask the zygote for an interpreter; it is spoken to at once, and answers when it is there."""
        import _socket

        agent = self._agent
        if not agent._zygote_pid:
            agent._start_zygote()
            agent._after("idle", ZYGOTE_IDLE_S, agent._rest)
        agent._wake_zygote()
        own, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        spec_fd = write_spec(
            {"program": "python3", "workdir": agent._workdir, "cwd": agent._workdir, "env": agent._session_env()}
        )
        self._numbers += 1
        context.number = self._numbers
        try:
            packed = b"".join([fd.to_bytes(4, sys.byteorder) for fd in (other.fileno(), spec_fd)])
            request = b"C%d" % context.number
            agent._channel.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
        except OSError:
            own.close()
            raise
        finally:
            other.close()
            os.close(spec_fd)
        own.setblocking(False)
        context.channel = own
        agent._watch(own.fileno(), lambda events: self._hear(context))

    def forked(self, text: str) -> None:
        """Take the zygote's word that an interpreter was forked."""
        number, pid = (int(part) for part in text.split())
        agent = self._agent
        context = next((context for context in self._contexts.values() if context.number == number), None)
        if context is None or context.channel is None:
            send_signal(pid, _signal.SIGKILL)
            return
        fields = process_stat(pid)
        if len(fields) < 20:
            self._ended(context, number, None)
            return
        context.pid, context.key = pid, (pid, int(fields[19]))
        agent._children.waiting[pid] = lambda status, usage: self._ended(context, number, status, usage)
        execution = context.execution
        if execution is not None:
            execution.awaits_pid = False
            execution.pid = pid

    def _forget_process(self, context: Context) -> None:
        if context.channel is not None:
            self._agent._unwatch(context.channel.fileno())
            context.channel.close()
        context.channel = None
        context.number = context.pid = 0
        context.token = b""

    def _abandon(self, context: Context, message: str) -> None:
        """Kill a context's interpreter with all beneath it, and end what ran in it."""
        stopped: set[tuple[int, int]] = set()
        for _ in range(30):
            fresh = [key for key in self.tree(context) if key not in stopped]
            if not fresh:
                break
            for pid, start in fresh:
                send_signal(pid, _signal.SIGSTOP)
                stopped.add((pid, start))
        for pid, _ in stopped:
            send_signal(pid, _signal.SIGKILL)
        execution = context.execution
        self._forget_process(context)
        if execution is not None and not execution.ended:
            execution.reason = execution.reason or "killed"
            execution.message = message
            execution.context_restarted = True
            self._agent._program_ended(execution, _signal.SIGKILL, None)

    def _ended(self, context: Context, number: int, status: int | None, usage: Any = None) -> None:
        """Note that an interpreter ended which nobody wanted to end, or that was killed at a time-out."""
        if context.number != number:
            return
        while context.channel is not None and self._hear_once(context):
            pass
        execution = context.execution
        self._forget_process(context)
        context.restarts += 1
        if execution is None or execution.ended:
            context.lost = True
            return
        execution.context_restarted = True
        if usage is not None:
            execution.cpu_s = max(0.0, usage.ru_utime + usage.ru_stime - context.cpu_s)
            execution.max_rss_bytes = usage.ru_maxrss * 1024
        if status is None:
            execution.reason = execution.reason or "killed"
            execution.message = "The interpreter could not be started."
        self._agent._program_ended(execution, status, None)

    # --- executions

    def open(self, header: dict[str, Any]) -> Context:
        """Return the context that an execution is for; the one called default is made when it is first wanted."""
        context_id = header["context_id"]
        if context_id == DEFAULT_CONTEXT and context_id not in self._contexts:
            return self._add(context_id)
        return self._find(header)

    def run(self, execution: Execution, spec: dict[str, Any]) -> None:
        """Hand an execution's code to its context's interpreter, started again if it has ended."""
        context: Context = spec["context"]
        if context.channel is not None and not self._sent(context, execution, spec):
            # It is about to be reaped.
            self._kill(context)
            self._forget_process(context)
            context.lost = True
        if context.channel is None:
            execution.context_restarted, context.lost = context.lost, False
            self._start(context)
            if not self._sent(context, execution, spec):
                raise OSError(errno.EPIPE, "The interpreter does not listen")
        context.execution = execution
        context.executions += 1
        context.results = context.results_bytes = 0
        context.has_error = context.has_begun = context.is_wanted = False
        execution.pid = context.pid
        execution.awaits_pid = not context.pid
        context.cpu_s = self._cpu_s(context)

    @staticmethod
    def _sent(context: Context, execution: Execution, spec: dict[str, Any]) -> bool:
        """Send an execution to an interpreter; False when nobody is there to take it."""
        import _socket

        spec_fd = write_spec({key: spec[key] for key in ("source", "env", "python_path")})
        token = os.urandom(TOKEN_BYTES)
        try:
            packed = b"".join([fd.to_bytes(4, sys.byteorder) for fd in [*execution.code_fds, spec_fd]])
            context.channel.sendmsg([b"X" + token], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
        except OSError:
            return False
        finally:
            os.close(spec_fd)
        context.token = token
        return True

    @staticmethod
    def _cpu_s(context: Context) -> float:
        fields = process_stat(context.pid) if context.pid else []
        ticks = os.sysconf("SC_CLK_TCK")
        return sum([int(field) for field in fields[11:15]]) / ticks if len(fields) > 15 else 0.0

    def measure(self, execution: Execution) -> None:
        """Note what an execution has used."""
        context = execution.context
        if context is None or not context.pid:
            return
        execution.cpu_s = max(0.0, self._cpu_s(context) - context.cpu_s)
        for line in read_small("/proc/%d/status" % context.pid).splitlines():
            if line.startswith(b"VmHWM:"):
                execution.max_rss_bytes = int(line.split()[1]) * 1024

    def interrupt_first(self, execution: Execution, reason: str) -> bool:
        """Interrupt an execution that is to end; False when it has had its chance, or is beyond hearing."""
        context = execution.context
        if context is None or not context.pid or execution.reason or execution.ended:
            return False
        execution.reason = reason
        self._signal(context, execution)
        self._agent._after("grace", CONTEXT_GRACE_S / 2, lambda: self._insist(context, execution, reason))
        return True

    def _insist(self, context: Context, execution: Execution, reason: str) -> None:
        """Interrupt again: who waits for a shell ignores what interrupts the shell."""
        self._signal(context, execution)
        self._agent._after("grace", CONTEXT_GRACE_S / 2, lambda: self._agent._end(execution, reason))

    def _signal(self, context: Context, execution: Execution) -> None:
        """Interrupt the interpreter, and the processes of this execution, for which it may wait.

        One that has not begun with the code yet would not know what to interrupt: it is, as soon as it has.
        """
        context.is_wanted = not context.has_begun
        if context.is_wanted:
            return
        for pid in [context.pid, *[pid for pid, _ in self._agent._processes(execution.before)]]:
            send_signal(pid, _signal.SIGINT)
        send_signal(context.pid, _signal.SIGCONT)

    @staticmethod
    def _kill(context: Context) -> None:
        if context.pid:
            send_signal(context.pid, _signal.SIGKILL)

    def leave(self, execution: Execution) -> None:
        """Let go of an execution that is over."""
        context = execution.context
        self._agent._timers.pop("grace", None)
        if context is not None and context.execution is execution:
            context.execution = None
            context.token = b""

    # --- what interpreters say

    def _hear(self, context: Context) -> None:
        for _ in range(64):
            if context.channel is None or not self._hear_once(context):
                return

    def _hear_once(self, context: Context) -> bool:
        """Take one message; False when there is none."""
        try:
            data = context.channel.recv(2 * PART_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            # Code has closed the socket, or the interpreter has gone, or there will never be one.
            self._agent._unwatch(context.channel.fileno())
            if context.pid:
                self._kill(context)
            else:
                self._ended_unborn(context)
            return False
        start = TOKEN_BYTES + 7
        if context.execution is None or not context.token or data[:TOKEN_BYTES] != context.token or len(data) < start:
            return True
        kind, number, place = data[8:9], data[9:13], data[13:start]
        if place[:1] == b"<":
            context.message.clear()
            context.receiving = True
        context.receiving = (
            context.receiving and len(context.message) + len(data) <= MAX_RESULT_BYTES + MAX_HEADER_BYTES
        )
        if context.receiving:
            context.message += data[start:]
        if place[1:] == b">":
            if context.receiving:
                self._take(context, context.execution, kind, bytes(context.message))
            context.message.clear()
            context.receiving = False
            if kind in (b"R", b"M", b"E") and context.channel is not None:
                try:
                    context.channel.send(b"A" + number)
                except OSError:
                    pass
        return True

    def _ended_unborn(self, context: Context) -> None:
        """The zygote was killed before it forked the interpreter."""
        self._ended(context, context.number, None)

    def _take(self, context: Context, execution: Execution, kind: bytes, payload: bytes) -> None:
        if execution.ended:
            return
        if kind == b"B":
            context.has_begun = True
            if context.is_wanted:
                self._signal(context, execution)
            return
        if kind == b"D":
            try:
                code = int(payload[:4])
            except ValueError:
                code = 1
            self._done(execution, code & 0xFF)
            return
        known = ERROR_PARTS if kind == b"E" else RESULT_PARTS
        try:
            parts = unpack_parts(payload, known)
        except (ValueError, IndexError):
            return
        self._agent._read_now(execution)
        body = b"".join([data for _, data in parts])
        sizes = [[name, len(data)] for name, data in parts]
        if kind == b"E":
            if not context.has_error:
                context.has_error = True
                execution.add("error", body, parts=sizes)
            return
        context.results += 1
        context.results_bytes += len(body)
        if parts and context.results <= MAX_RESULTS and context.results_bytes <= MAX_RESULTS_BYTES + MAX_RESULT_BYTES:
            execution.add("result", body, parts=sizes, is_main_result=kind == b"M")

    def _done(self, execution: Execution, code: int) -> None:
        """End an execution whose code has come to its end; one that was interrupted leaves no process behind."""
        agent = self._agent
        self.measure(execution)
        agent._timers.pop("grace", None)
        if not execution.reason:
            agent._program_ended(execution, code << 8, None)
            return
        execution.killing = True
        execution.kill_until = clock() + KILL_TOTAL_S
        agent._program_ended(execution, _signal.SIGINT, None)
        agent._kill_step(execution)


class Agent:
    """The main process: frames in, frames out, one execution at a time, and the journals of the last ones."""

    def __init__(self, config: dict[str, Any], marker: bytearray) -> None:
        self._marker = marker
        self._workdir: str = config.get("workdir") or os.getcwd()
        self._identity = Identity(config.get("uid"), config.get("gid"), config.get("rlimits") or {})
        self._preload: list[str] = config.get("preload") or []
        self._base_env = base_environment(config, self._workdir)
        self._max_journal_bytes: int = config.get("max_journal_bytes") or DEFAULT_JOURNAL_BYTES
        self._memory_limit_bytes: int = config.get("memory_limit_bytes") or 0
        self._disk_limit_bytes: int = config.get("disk_limit_bytes") or 0
        self._preload_timeout_s: float = config.get("preload_timeout_s") or PRELOAD_TIMEOUT_S
        self._exit_on_eof = bool(config.get("exit_on_eof"))
        self._greet_within_s: float = config.get("greet_within_s") or 0
        self._poll = select.poll()
        self._readers: dict[int, Callable[[int], None]] = {}
        self._timers: dict[Any, tuple[float, Callable[[], None]]] = {}
        self._children = Children()
        self._tree = ProcessTree()
        self._oom = OutOfMemoryCount()
        # the link
        self._input = bytearray()
        self._synced = False
        self._greeted = False
        self._generation = 0
        self._queue: deque[bytes | memoryview] = deque()
        self._queue_bytes = 0
        self._output_waits = False
        # the session
        self._assigned: dict[str, Any] | None = None
        self._executions: dict[str, Execution] = {}
        self._current: Execution | None = None
        self._background: set[tuple[int, int]] = set()
        self._sinks: deque[int] = deque()
        # the zygote
        self._zygote_pid = 0
        self._channel: Any = None
        self._ready = not self._preload
        self._preload_errors: dict[str, str] = {}
        self._workspace = Workspace(self._workdir)
        self._unpacking: Unpacking | None = None
        self._workers: set[int] = set()
        self._packings: dict[int, Packing] = {}
        self._packing_ids = 0
        self._contexts = Contexts(self)

    # --- the loop

    def run(self) -> None:
        """Serve for ever."""
        wake_read, wake_write = os.pipe()
        for fd in (wake_read, wake_write, 1):
            os.set_blocking(fd, False)
        _signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda number, frame: None)
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        self._watch(wake_read, lambda events: self._child_ended(wake_read))
        self._watch(0, self._read_input)
        if self._preload:
            self._start_zygote()
        if self._greet_within_s:
            # An engine that is killed while it starts a container may forget it: nobody could ever remove it.
            self._after("greeting", self._greet_within_s, self._die)
        gc.collect()
        gc.freeze()
        while True:
            self._turn()

    def _turn(self) -> None:
        timeout_ms = None
        if self._timers:
            due = min([when for when, _ in self._timers.values()])
            timeout_ms = max(0, int((due - clock()) * 1000) + 1)
        for fd, events in self._poll.poll(timeout_ms):
            reader = self._readers.get(fd)
            if reader is not None:
                self._guard(reader, events)
        if self._timers:
            now = clock()
            for key in [key for key, (when, _) in self._timers.items() if when <= now]:
                timer = self._timers.pop(key, None)
                if timer is not None:
                    self._guard(timer[1])
        self._guard(self._pump)

    @staticmethod
    def _guard(action: Callable[..., None], *arguments: Any) -> None:
        """Do something whose failure must not end the agent, and with it the sandbox."""
        try:
            action(*arguments)
        except Exception as error:
            time.sleep(0.005)
            try:
                os.write(2, ("agent: %s: %s\n" % (type(error).__name__, error)).encode("utf-8", "replace"))
            except OSError:
                pass  # nobody listens there any more

    def _watch(self, fd: int, reader: Callable[[int], None], events: int = select.POLLIN) -> None:
        self._readers[fd] = reader
        self._poll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _after(self, key: Any, seconds: float, action: Callable[[], None]) -> None:
        self._timers[key] = (clock() + seconds, action)

    # --- frames out

    def _send(self, header: str, body: bytes = b"") -> None:
        packed = header.encode("ascii")
        frame = MAGIC + len(packed).to_bytes(4, "big") + len(body).to_bytes(4, "big") + packed + body
        if self._queue_bytes + len(frame) <= MAX_QUEUE_BYTES:
            self._queue.append(frame)
            self._queue_bytes += len(frame)

    def _pump(self) -> None:
        """Send what is queued, and of the journals as much as fits."""
        while True:
            if self._queue_bytes < SEND_AHEAD_BYTES and self._greeted:
                self._queue_events()
            if not self._queue or not self._write_out():
                break
        waits = bool(self._queue)
        if waits != self._output_waits:
            self._output_waits = waits
            if waits:
                self._watch(1, self._output_ready, select.POLLOUT)
            else:
                self._unwatch(1)

    def _queue_events(self) -> None:
        for execution in list(self._executions.values()):
            if not execution.followed:
                continue
            while execution.sent < len(execution.events) and self._queue_bytes < SEND_AHEAD_BYTES:
                self._send(*execution.events[execution.sent])
                execution.sent += 1
            if execution.finished and execution.sent == len(execution.events):
                execution.followed = False

    def _write_out(self) -> bool:
        """Write once; return whether all that was tried went out."""
        batch = [self._queue[index] for index in range(min(len(self._queue), 64))]
        try:
            written = os.writev(1, batch)
        except BlockingIOError:
            return False
        except OSError:
            self._lose_output()
            return False
        self._queue_bytes -= written
        for frame in batch:
            if written < len(frame):
                self._queue[0] = memoryview(frame)[written:]
                return False
            written -= len(frame)
            self._queue.popleft()
        return True

    def _output_ready(self, events: int) -> None:
        if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) and not events & select.POLLOUT:
            self._lose_output()

    def _lose_output(self) -> None:
        """Nobody hears us: drop what was to be sent, and wait for the next hello."""
        if self._exit_on_eof:
            self._die()
        self._queue.clear()
        self._queue_bytes = 0
        self._greeted = False

    # --- frames in

    def _read_input(self, events: int) -> None:
        try:
            data = os.read(0, 4 * CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            if self._exit_on_eof:
                self._die()
            self._unwatch(0)
            return
        searched = max(0, len(self._input) - MARKER_BYTES + 1)
        self._input += data
        found = self._input.find(self._marker, searched)
        if found >= 0:
            self._resync(found)
        if self._synced:
            self._read_frames()
        else:
            del self._input[: 1 - MARKER_BYTES]

    def _resync(self, found: int) -> None:
        """Do what is whole before the marker, drop what is not, and start again behind it."""
        rest = self._input
        while found >= 0:
            self._input = rest[:found]
            if self._synced:
                self._read_frames()
            rest = rest[found + MARKER_BYTES :]
            self._synced, self._greeted = True, False
            self._generation += 1
            found = rest.find(self._marker)
        self._input = rest

    def _read_frames(self) -> None:
        while len(self._input) >= PREFIX_BYTES:
            header_length = int.from_bytes(self._input[2:6], "big")
            body_length = int.from_bytes(self._input[6:10], "big")
            if self._input[:2] != MAGIC or header_length > MAX_HEADER_BYTES or body_length > MAX_REQUEST_BODY_BYTES:
                self._synced = False
                self._input.clear()
                return
            middle = PREFIX_BYTES + header_length
            end = middle + body_length
            if len(self._input) < end:
                return
            header, body = bytes(self._input[PREFIX_BYTES:middle]), bytes(self._input[middle:end])
            del self._input[:end]
            self._request(header, body)

    def _request(self, packed: bytes, body: bytes) -> None:
        try:
            header = parse_json(packed)
        except ValueError:
            self._synced = False
            return
        if not isinstance(header, dict):
            self._synced = False
            return
        number = header.get("id")
        if not isinstance(number, int) or isinstance(number, bool):
            return
        try:
            operation = self.OPERATIONS.get(str(header.get("op")))
            if operation is None:
                raise BadRequest("unknown_operation")
            if not self._greeted and operation is not Agent._hello:
                raise BadRequest("not_greeted", "The first request is hello.")
            answer = operation(self, header, body)
        except BadRequest as error:
            self._refuse(number, error.code, str(error))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            self._refuse(number, "bad_request", "%s: %s" % (type(error).__name__, error))
        except OSError as error:
            self._refuse(number, "os_error", explain(error))
        except MemoryError:
            self._refuse(number, "no_memory", "")
        else:
            if answer is not None:
                self._reply(number, answer)

    def _reply(self, number: int, fields: dict[str, Any], body: bytes = b"") -> None:
        header = {"re": number, "ok": True}
        header.update(fields)
        self._send(to_json(header), body)

    def _refuse(self, number: int, code: str, message: str) -> None:
        self._send(to_json({"re": number, "ok": False, "error": code, "message": message[:2000]}))

    def _die(self) -> None:
        """Take everything along: whoever started the agent is gone."""
        for _ in range(100):
            alive = self._tree.walk([os.getpid()], set(), set())
            if not alive:
                break
            for pid, _ in alive:
                send_signal(pid, _signal.SIGKILL)
            time.sleep(0.005)
            self._children.reap()
        os._exit(0)

    # --- requests about the session

    def _hello(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        nonce = bytes.fromhex(header["nonce"])
        if len(nonce) != 16:
            raise BadRequest("bad_request", "The nonce is 16 bytes.")
        self._queue.clear()
        self._queue.append(RESYNC + nonce)
        self._queue_bytes = len(RESYNC) + len(nonce)
        self._greeted = True
        self._timers.pop("greeting", None)
        for execution in self._executions.values():
            execution.followed = False
        return {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "python": "%d.%d.%d" % sys.version_info[:3],
            "assigned": self._assigned,
            "executions": [
                {
                    "execution_id": execution.execution_id,
                    "state": "finished" if execution.finished else "running",
                    "last_seq": len(execution.events),
                }
                for execution in self._executions.values()
            ],
            "preloaded": [name for name in self._preload if name not in self._preload_errors] if self._ready else [],
            "preload_errors": self._preload_errors,
            "ready": self._ready,
            "contexts": self._contexts.describe(),
            "can_contexts": _ctypes is not None,
        }

    def _assign(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        wanted = {"session_id": header["session_id"], "digest": header["digest"], "env": checked_env(header.get("env"))}
        if self._assigned is not None and self._assigned != wanted:
            raise BadRequest("assigned", "The sandbox belongs to another session.")
        self._assigned = wanted
        if not self._zygote_pid and _ctypes is not None:
            self._after("zygote", 0, self._start_zygote)
            self._after("idle", ASSIGNED_IDLE_S, self._rest)
        return {}

    def _ping(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        return {"ready": self._ready, "preload_errors": self._preload_errors}

    # --- requests about executions

    def _find(self, header: dict[str, Any]) -> Execution:
        execution = self._executions.get(header["execution_id"])
        if execution is None:
            raise BadRequest("unknown_execution")
        return execution

    def _exec(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        execution_id = header["execution_id"]
        if not isinstance(execution_id, str) or not 0 < len(execution_id) <= 200:
            raise BadRequest("bad_request", "The execution_id is a text of 1 to 200 characters.")
        known = self._executions.get(execution_id)
        if known is not None:
            return {"state": "finished" if known.finished else "running", "joined": True}
        if self._current is not None:
            raise BadRequest("busy", "Another execution is running.")
        self._start(execution_id, header, body)
        return {"state": "running", "joined": False}

    def _start(self, execution_id: str, header: dict[str, Any], body: bytes) -> None:
        timeout_s = header.get("timeout_s")
        if timeout_s is not None and not 0 < timeout_s < MAX_TIMEOUT_S:
            raise BadRequest("bad_request", "The timeout_s is a number of seconds above 0.")
        limit_bytes = header.get("output_limit_bytes", DEFAULT_OUTPUT_BYTES)
        if not isinstance(limit_bytes, int) or limit_bytes < 0:
            raise BadRequest("bad_request", "The output_limit_bytes is a number of bytes.")
        execution = Execution(execution_id, min(limit_bytes, self._max_journal_bytes // 2), timeout_s)
        specs = self._specs(header, body)
        execution.specs.extend(specs)
        execution.in_zygote = specs[0]["forked"]
        execution.source_path = specs[0].get("temporary", "")
        execution.filename = specs[0].get("filename") or ""
        self._open_streams(execution, header.get("stdin") == "data")
        execution.oom_kills = self._oom.read()
        if self._background:
            self._background = set(self._processes(set()))
        execution.before = self._background
        self._workspace.is_stale = self._workspace.is_stale or bool(self._background)
        self._workspace.begin()
        execution.context = specs[0].get("context")
        execution.before = self._background | self._contexts.keys(but=execution.context)
        self._executions[execution_id] = execution
        self._current = execution
        execution.followed = True
        execution.started_at = clock()
        if timeout_s is not None:
            self._after("deadline", timeout_s, lambda: self._end(execution, "timed_out"))
        self._after("watch", WATCH_S, lambda: self._look_after(execution))
        self._forget_old()
        execution.add("started")
        self._next_program(execution)

    def _specs(self, header: dict[str, Any], body: bytes) -> list[dict[str, Any]]:
        """Return what is to be run, one program after another."""
        if header["kind"] == "context":
            return [self._context_spec(header, body)]
        env = self._session_env()
        env.update(checked_env(header.get("env")))
        python_path = ":".join(checked_list(header.get("python_path")))
        if python_path:
            old = env.get("PYTHONPATH")
            env["PYTHONPATH"] = python_path + ":" + old if old else python_path
        cwd = os.path.join(self._workdir, header.get("cwd") or "")
        filename = header.get("filename")
        if filename is not None:
            place(self._workdir, filename)
        base = {"workdir": self._workdir, "cwd": cwd, "env": env, "forked": False}
        if header["kind"] == "commands":
            source = body if filename is not None else None
            commands = checked_list(header["commands"])
            if not commands:
                raise BadRequest("bad_request", "There is no command.")
            first: dict[str, Any] = {
                "argv": [SHELL, "-c", commands[0]],
                "program": "sh",
                "filename": filename,
                "source": source,
            }
            rest = [
                {"argv": [SHELL, "-c", command], "program": "sh", "filename": None, "source": None}
                for command in commands[1:]
            ]
            return [dict(base, **spec) for spec in [first, *rest]]
        if header["kind"] != "python":
            raise BadRequest("bad_request", "The kind is python, commands or context.")
        return [self._python_spec(base, filename, body, checked_list(header.get("args")))]

    def _session_env(self) -> dict[str, str]:
        """Return the environment that code of the session begins with."""
        env = dict(self._base_env)
        if self._assigned is not None:
            env.update(self._assigned["env"])
        return env

    def _context_spec(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        if _ctypes is None:
            raise BadRequest("no_contexts", "The sandbox's interpreter cannot be forked.")
        env, python_path = checked_env(header.get("env")), checked_list(header.get("python_path"))
        python_path = [os.path.join(self._workdir, path) for path in python_path]
        context = self._contexts.open(header)
        return {"forked": False, "context": context, "source": body, "env": env, "python_path": python_path}

    def _python_spec(self, base: dict[str, Any], filename: str | None, body: bytes, args: list[str]) -> dict[str, Any]:
        temporary = ""
        if filename is None:
            filename = ".main-%s.py" % os.urandom(4).hex()
            temporary = os.path.join(self._workdir, filename)
        forked = _ctypes is not None and can_share_interpreter(base["env"])
        # As in a shell: relative where that names the same file.
        shown = filename if base["cwd"].rstrip("/") == self._workdir else os.path.join(self._workdir, filename)
        program = sys.executable
        if forked:
            program = sys.orig_argv[0] if sys.version_info >= (3, 10) else "python3"
        argv = [program, shown, *args]
        return dict(
            base, argv=argv, program="python3", filename=filename, source=body, forked=forked, temporary=temporary
        )

    # --- starting programs

    def _open_streams(self, execution: Execution, with_stdin: bool) -> None:
        fds: list[int] = []
        try:
            if with_stdin:
                fds.extend(self._identity.pipe())
            else:
                fds.extend((os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1))
            fds.extend(self._identity.pipe())
            fds.extend(self._identity.pipe())
        except OSError as error:
            for fd in fds:
                if fd >= 0:
                    os.close(fd)
            raise BadRequest("os_error", explain(error)) from error
        code_in, own_in, own_out, code_out, own_err, code_err = fds
        for fd in (own_in, own_out, own_err):
            if fd >= 0:
                os.set_blocking(fd, False)
        execution.code_fds = [code_in, code_out, code_err]
        execution.stdin_fd = own_in
        for name, fd in (("stdout", own_out), ("stderr", own_err)):
            stream = Stream(name, fd, execution.limit_bytes)
            execution.streams.append(stream)
            self._read_stream(execution, stream)

    def _read_stream(self, execution: Execution, stream: Stream) -> None:
        if stream.fd >= 0:
            self._watch(stream.fd, lambda events: self._output(execution, stream))

    def _next_program(self, execution: Execution) -> None:
        spec = execution.specs.popleft()
        try:
            if execution.context is not None:
                self._contexts.run(execution, spec)
            elif spec["forked"]:
                self._ask_zygote(execution, spec)
            else:
                self._fork_program(execution, spec)
        except OSError as error:
            self._could_not_start(execution, explain(error))
            return
        if not execution.specs:
            self._close_code_fds(execution)

    def _close_code_fds(self, execution: Execution) -> None:
        for fd in execution.code_fds:
            os.close(fd)
        execution.code_fds = []

    def _could_not_start(self, execution: Execution, message: str) -> None:
        execution.reason, execution.message = execution.reason or "killed", message
        execution.specs.clear()
        self._close_code_fds(execution)
        self._program_ended(execution, None, None)

    def _fork_program(self, execution: Execution, spec: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            self._forget_secrets()
            run_program(spec, self._identity, execution.code_fds)
        execution.pid = pid
        self._children.waiting[pid] = lambda status, usage: self._program_ended(execution, status, usage)

    def _forget_secrets(self) -> None:
        """Wipe, in a child, what only the agent may know."""
        for index in range(len(self._marker)):
            self._marker[index] = 0

    def _start_zygote(self) -> None:
        import _socket

        self._timers.pop("zygote", None)
        if self._zygote_pid:
            return
        own, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            try:
                self._forget_secrets()
                own.detach()
                null = os.open("/dev/null", os.O_RDWR)
                set_streams([null, null, null, other.detach()])
                set_signals_to_default(python=True)
                Zygote(3, self._identity, self._workdir, self._base_env).run(self._preload)
            finally:
                os._exit(70)
        other.close()
        own.setblocking(False)
        self._zygote_pid = pid
        self._channel = own
        self._ready = not self._preload
        self._children.waiting[pid] = lambda status, usage: self._zygote_ended()
        self._watch(own.fileno(), lambda events: self._zygote_says())
        if self._preload:
            self._after("preload", self._preload_timeout_s, self._preload_hangs)

    def _preload_hangs(self) -> None:
        for name in self._preload:
            self._preload_errors[name] = "The import took more than %g s." % self._preload_timeout_s
        self._preload = []
        self._ready = True
        self._kill_zygote()

    def _rest(self) -> None:
        """Let a zygote go that has imported nothing and is not used: it costs memory, and no time to start again."""
        if self._zygote_pid and not self._preload and self._current is None:
            # Forgotten before it is gone: the next execution must not be handed to one that is about to die.
            self._children.waiting[self._zygote_pid] = lambda status, usage: None
            self._kill_zygote()
            self._forget_zygote()

    def _kill_zygote(self) -> None:
        if self._zygote_pid:
            send_signal(self._zygote_pid, _signal.SIGKILL)

    def _ask_zygote(self, execution: Execution, spec: dict[str, Any]) -> None:
        import _socket

        if not self._zygote_pid:
            self._start_zygote()
        spec_fd = write_spec(spec)
        try:
            packed = b"".join([fd.to_bytes(4, sys.byteorder) for fd in [*execution.code_fds, spec_fd]])
            self._channel.sendmsg([b"F"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
        finally:
            os.close(spec_fd)
        execution.awaits_pid = True

    def _zygote_says(self) -> None:
        channel = self._channel
        while self._channel is channel and channel is not None:
            try:
                message = channel.recv(MAX_HEADER_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._unwatch(channel.fileno())
                return
            try:
                self._take_word(message[:1], message[1:].decode())
            except (ValueError, IndexError):
                self._kill_zygote()

    def _take_word(self, kind: str | bytes, text: str) -> None:
        execution = self._current
        if kind == b"R":
            errors = parse_json(text.encode())
            self._preload_errors.update({str(key): str(value) for key, value in errors.items()})
            self._ready = True
            self._timers.pop("preload", None)
        elif kind == b"K":
            self._contexts.forked(text)
        elif execution is None or not execution.in_zygote or execution.ended:
            return
        elif kind == b"P" and execution.awaits_pid:
            execution.awaits_pid = False
            execution.pid = int(text)
        elif kind == b"E" and execution.awaits_pid:
            self._could_not_start(execution, text)
        elif kind == b"X" and not execution.awaits_pid:
            pid, status, cpu_s, max_rss = text.split()
            if int(pid) == execution.pid:
                execution.cpu_s += float(cpu_s)
                execution.max_rss_bytes = int(max_rss) * 1024
                self._program_ended(execution, int(status), None)

    def _zygote_ended(self) -> None:
        """Clean up behind a zygote that was killed; the next execution starts another."""
        self._zygote_says()
        self._forget_zygote()
        self._timers.pop("preload", None)
        if not self._ready and self._current is None:
            self._ready = True
            self._preload_errors = dict.fromkeys(self._preload, "The interpreter ended while importing.")
        execution = self._current
        if execution is not None and execution.awaits_pid:
            self._could_not_start(execution, "The interpreter was killed.")

    def _forget_zygote(self) -> None:
        if self._channel is not None:
            self._unwatch(self._channel.fileno())
            self._channel.close()
        self._channel = None
        self._zygote_pid = 0

    def _child_ended(self, wake_fd: int) -> None:
        try:
            os.read(wake_fd, 4096)
        except BlockingIOError:
            pass
        for pid, status, usage in self._children.reap():
            execution = self._current
            if execution is not None and execution.in_zygote and pid == execution.pid and not execution.ended:
                self._program_ended(execution, status, usage)

    def _look_after(self, execution: Execution) -> None:
        """See from time to time that an execution whose parent is the zygote has not ended without a word."""
        if execution.finished:
            return
        self._wake_zygote()
        if execution.awaits_pid and self._ready and clock() - execution.started_at > BUSY_GRACE_S:
            self._kill_zygote()
        if execution.in_zygote and not execution.ended and execution.pid and not execution.awaits_pid:
            fields = process_stat(execution.pid)
            if not fields and not self._zygote_pid:
                execution.reason = execution.reason or "killed"
                self._program_ended(execution, None, None)
                return
            if not fields or (fields[0] == b"Z" and int(fields[1]) == self._zygote_pid):
                execution.silent_since = execution.silent_since or clock()
                if clock() - execution.silent_since > BUSY_GRACE_S:
                    self._kill_zygote()
        self._after("watch", WATCH_S, lambda: self._look_after(execution))

    def _wake_zygote(self) -> None:
        """Let the interpreter go on if code has stopped it."""
        if self._zygote_is_stopped():
            send_signal(self._zygote_pid, _signal.SIGCONT)

    def _zygote_is_stopped(self) -> bool:
        fields = process_stat(self._zygote_pid) if self._zygote_pid else []
        return bool(fields) and fields[0] in (b"T", b"t")

    # --- output

    def _output(self, execution: Execution, stream: Stream) -> None:
        """Read once from a stream of the code; the more often it speaks, the longer the next words are awaited."""
        try:
            data = os.read(stream.fd, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_stream(stream)
            self._maybe_finish(execution)
            return
        self._take_output(execution, stream, data)
        if execution.ended:
            self._await_drain(execution, stream)
        elif len(data) < CHUNK_BYTES // 2:
            self._pace(execution, stream)

    def _take_output(self, execution: Execution, stream: Stream, data: bytes) -> None:
        if len(execution.events) >= MAX_EVENTS:
            stream.head_left = 0
        head = stream.take(data)
        if head:
            execution.add(stream.name, head)

    def _read_now(self, execution: Execution) -> None:
        """Read what the code's streams hold, so that what follows has its place behind it."""
        for stream in execution.streams:
            for _ in range(64):
                if stream.fd < 0:
                    break
                try:
                    data = os.read(stream.fd, CHUNK_BYTES)
                except OSError:
                    break
                if not data:
                    break
                self._take_output(execution, stream, data)

    def _pace(self, execution: Execution, stream: Stream) -> None:
        """Leave a stream that speaks in small pieces alone for a moment, so that events stay few."""
        count = len(execution.events)
        if count < 64:
            return
        pause_s = 0.002 if count < 500 else 0.01 if count < 2000 else 0.02 if count < 20000 else 0.1
        self._unwatch(stream.fd)
        self._after(stream, pause_s, lambda: self._read_stream(execution, stream))

    def _close_stream(self, stream: Stream) -> None:
        self._timers.pop(stream, None)
        if stream.fd >= 0:
            self._unwatch(stream.fd)
            os.close(stream.fd)
            stream.fd = -1

    def _await_drain(self, execution: Execution, stream: Stream) -> None:
        """Give processes that outlive their execution a moment for their last words."""
        left = max(0.0, min(DRAIN_IDLE_S, execution.drain_until - clock()))
        self._after(stream, left, lambda: self._sink(execution, stream))

    def _sink(self, execution: Execution, stream: Stream) -> None:
        """Stop recording a stream that a background process holds; go on reading, or its next word would kill it."""
        fd, stream.fd = stream.fd, -1
        self._unwatch(fd)
        self._sinks.append(fd)
        if len(self._sinks) > MAX_SINKS:
            self._close_sink(self._sinks[0])
        self._watch(fd, lambda events: self._empty_sink(fd))
        self._maybe_finish(execution)

    def _empty_sink(self, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_sink(fd)
            return
        self._unwatch(fd)
        self._after(("sink", fd), 0.05, lambda: self._watch(fd, lambda events: self._empty_sink(fd)))

    def _close_sink(self, fd: int) -> None:
        self._sinks.remove(fd)
        self._timers.pop(("sink", fd), None)
        self._unwatch(fd)
        os.close(fd)

    # --- input of the code

    def _stdin(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        execution = self._find(header)
        if execution.finished or execution.stdin_fd < 0 or execution.stdin_eof:
            raise BadRequest("stdin_closed", "The execution does not read standard input any more.")
        if execution.stdin_bytes + len(body) > MAX_STDIN_BYTES:
            raise BadRequest("stdin_full", "The code has not read what it was sent.")
        if body:
            execution.stdin_queue.append(body)
            execution.stdin_bytes += len(body)
        execution.stdin_eof = bool(header.get("eof"))
        self._write_stdin(execution)
        return {"queued_bytes": execution.stdin_bytes}

    def _write_stdin(self, execution: Execution) -> None:
        fd = execution.stdin_fd
        try:
            while execution.stdin_queue:
                data = execution.stdin_queue[0]
                written = os.write(fd, data[:CHUNK_BYTES])
                execution.stdin_bytes -= written
                if written < len(data):
                    execution.stdin_queue[0] = data[written:]
                else:
                    execution.stdin_queue.popleft()
        except BlockingIOError:
            if fd not in self._readers:
                self._watch(fd, lambda events: self._write_stdin(execution), select.POLLOUT)
            return
        except OSError:
            execution.stdin_eof = True
        self._unwatch(fd)
        if execution.stdin_eof:
            self._close_stdin(execution)

    def _close_stdin(self, execution: Execution) -> None:
        if execution.stdin_fd >= 0:
            self._unwatch(execution.stdin_fd)
            os.close(execution.stdin_fd)
            execution.stdin_fd = -1
        execution.stdin_queue.clear()
        execution.stdin_bytes = 0

    # --- the end of an execution

    def _cancel(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        execution = self._find(header)
        if header.get("force") and not execution.ended:
            # A context's code is not asked first.
            execution.reason = execution.reason or "cancelled"
        if not execution.finished:
            self._end(execution, "cancelled")
        return {"state": "finished" if execution.finished else "running"}

    def _end(self, execution: Execution, reason: str) -> None:
        """Kill an execution and all that it started."""
        self._timers.pop("deadline", None)
        if execution.finished or execution.killing:
            return
        if self._contexts.interrupt_first(execution, reason):
            return
        if not execution.reason and not execution.ended:
            execution.reason = reason
            if reason == "timed_out":
                self._note_where(execution)
        execution.killing = True
        execution.kill_until = clock() + KILL_TOTAL_S
        execution.specs.clear()
        self._close_code_fds(execution)
        self._wake_zygote()
        self._kill_step(execution)

    def _note_where(self, execution: Execution) -> None:
        """See at which line Python code is that has run out of time."""
        if not execution.in_zygote or not execution.pid:
            return
        reader = StackReader()
        if not reader.works:
            return
        send_signal(execution.pid, _signal.SIGSTOP)
        until = clock() + STOP_TOTAL_S
        while clock() < until and process_stat(execution.pid)[:1] in ([b"R"], [b"S"], [b"D"]):
            time.sleep(STOP_STEP_S)
        execution.where = reader.where(execution.pid, self._identity, self._workdir, execution.source_path)

    def _processes(self, before: set[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the live processes of code, without the trees of those in `before`."""
        own = [os.getpid()]
        return self._tree.walk(own, {self._zygote_pid} | self._workers | self._contexts.pids(), before)

    def _to_be_killed(self, execution: Execution) -> list[tuple[int, int]]:
        """Return the processes that an execution has started, its context's interpreter with them if that is deaf."""
        found = self._processes(execution.before)
        if execution.context is not None and not execution.ended:
            found += [key for key in self._contexts.tree(execution.context) if key not in found]
        return found

    def _kill_step(self, execution: Execution) -> None:
        """Stop all, so that none can fork away; then kill all; look again until none is found twice."""
        silent = not self._ready or clock() > execution.kill_until - KILL_TOTAL_S + ZYGOTE_GRACE_S
        if execution.awaits_pid and silent:
            # Not even its process id is known: the zygote is about to fork it, or still imports.
            self._kill_zygote()
        stopped: set[tuple[int, int]] = set()
        for _ in range(30):
            found = self._to_be_killed(execution)
            fresh = [key for key in found if key not in stopped]
            if not fresh:
                break
            for key in fresh:
                send_signal(key[0], _signal.SIGSTOP)
                stopped.add(key)
        for pid, _ in found:
            send_signal(pid, _signal.SIGKILL)
        execution.clean_passes = 0 if found or execution.awaits_pid else execution.clean_passes + 1
        if execution.clean_passes >= 2 or clock() > execution.kill_until:
            execution.killing = False
            if not execution.ended:
                self._after("silent", ZYGOTE_GRACE_S, lambda: self._give_up(execution))
            self._maybe_finish(execution)
            return
        self._after("kill", KILL_STEP_S, lambda: self._kill_step(execution))

    def _give_up(self, execution: Execution) -> None:
        """All processes are gone, and nobody has told how the main one ended."""
        if execution.ended or execution.finished:
            return
        if execution.in_zygote and self._zygote_pid and not execution.message:
            if not self._zygote_is_stopped() and clock() < execution.kill_until + BUSY_GRACE_S:
                self._after("silent", ZYGOTE_GRACE_S, lambda: self._give_up(execution))
                return
            execution.message = "The interpreter did not tell how the code ended."
            self._kill_zygote()
            self._after("silent", ZYGOTE_GRACE_S, lambda: self._give_up(execution))
            return
        self._program_ended(execution, None, None)

    def _program_ended(self, execution: Execution, status: int | None, usage: Any) -> None:
        execution.awaits_pid = False
        if usage is not None:
            execution.cpu_s += usage.ru_utime + usage.ru_stime
            execution.max_rss_bytes = max(execution.max_rss_bytes, usage.ru_maxrss * 1024)
        if status == 0 and execution.specs and not execution.reason:
            self._next_program(execution)
            return
        execution.ended = True
        execution.status = status
        execution.programs_left = len(execution.specs)
        execution.specs.clear()
        self._close_code_fds(execution)
        self._timers.pop("silent", None)
        self._close_stdin(execution)
        execution.drain_until = clock() + DRAIN_TOTAL_S
        for stream in execution.streams:
            self._drain(execution, stream)
        self._maybe_finish(execution)

    def _drain(self, execution: Execution, stream: Stream) -> None:
        """Read what a stream holds at the end of the main process."""
        while stream.fd >= 0:
            try:
                data = os.read(stream.fd, CHUNK_BYTES)
            except BlockingIOError:
                self._timers.pop(stream, None)
                if stream.fd not in self._readers:
                    self._read_stream(execution, stream)
                self._await_drain(execution, stream)
                return
            except OSError:
                data = b""
            if data and clock() < execution.drain_until:
                self._take_output(execution, stream, data)
            else:
                self._close_stream(stream)

    def _maybe_finish(self, execution: Execution) -> None:
        if execution.finished or not execution.ended or execution.killing:
            return
        if any(stream.fd >= 0 for stream in execution.streams):
            return
        for stream in execution.streams:
            self._tell_tail(execution, stream)
        self._background = set(self._processes(set()))
        fields = self._verdict(execution)
        if execution.context is not None:
            fields["context_id"] = execution.context.context_id
            fields["context_restarted"] = execution.context_restarted
            self._contexts.leave(execution)
        if execution.message:
            fields["message"] = execution.message[:500]
        if execution.where:
            fields["where"] = execution.where
        execution.add(
            "exit",
            duration_ms=round((clock() - execution.started_at) * 1000, 3),
            cpu_ms=round(execution.cpu_s * 1000, 3),
            max_rss_bytes=execution.max_rss_bytes,
            stdout_bytes=execution.streams[0].total_bytes,
            stderr_bytes=execution.streams[1].total_bytes,
            background=len(self._background - execution.before),
            programs_left=execution.programs_left,
            **fields,
            **self._workspace.end(execution.filename),
        )
        execution.finished = True
        self._current = None
        for key in ("deadline", "watch", "kill", "silent"):
            self._timers.pop(key, None)
        self._after("idle", ZYGOTE_IDLE_S, self._rest)
        self._remove_source(execution)

    def _tell_tail(self, execution: Execution, stream: Stream) -> None:
        chunks = stream.tail()
        if stream.omitted_bytes:
            execution.add("truncated", stream=stream.name, omitted_bytes=stream.omitted_bytes)
        for chunk in chunks:
            execution.add(stream.name, chunk)

    def _verdict(self, execution: Execution) -> dict[str, Any]:
        """Say how an execution ended, and why."""
        status = execution.status
        signal = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        reason = execution.reason
        if not reason:
            reason = "exited"
            if (signal == _signal.SIGKILL or code == 128 + _signal.SIGKILL) and self._out_of_memory(execution):
                reason = "out_of_memory"
        return {"exit_code": code, "signal": signal, "reason": reason}

    def _out_of_memory(self, execution: Execution) -> bool:
        if self._oom.read() > execution.oom_kills:
            return True
        return 0 < self._memory_limit_bytes * 9 // 10 <= execution.max_rss_bytes

    def _remove_source(self, execution: Execution) -> None:
        """Remove the file that was only made to be run, once nothing that it started is left."""
        if not execution.source_path:
            return
        if self._background - execution.before:
            return
        path, execution.source_path = os.fsencode(execution.source_path), ""
        if self._identity.uid is None:
            try:
                os.unlink(path)
            except OSError:
                pass
        elif self._channel is not None:
            try:
                self._channel.send(b"U" + path)
            except OSError:
                pass

    # --- journals

    def _resume(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        execution = self._find(header)
        after = header.get("after", 0)
        if not isinstance(after, int) or not 0 <= after <= len(execution.events):
            raise BadRequest("bad_request", "The event after which to resume does not exist.")
        execution.followed = True
        execution.sent = after
        return {"state": "finished" if execution.finished else "running", "last_seq": len(execution.events)}

    def _forget(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        execution = self._find(header)
        if not execution.finished:
            raise BadRequest("busy", "The execution is running.")
        del self._executions[execution.execution_id]
        return {}

    def _forget_old(self) -> None:
        """Keep the journals within their bounds; those still being sent stay while that is possible."""
        for patient in (True, False):
            allowed = self._max_journal_bytes if patient else 2 * self._max_journal_bytes
            total = sum([execution.size_bytes for execution in self._executions.values()])
            for execution in list(self._executions.values()):
                if len(self._executions) <= MAX_EXECUTIONS * (1 if patient else 2) and total <= allowed:
                    break
                if execution.finished and not (patient and execution.followed):
                    total -= execution.size_bytes
                    del self._executions[execution.execution_id]

    # --- files

    def _file(self, header: dict[str, Any], body: bytes) -> None:
        operation = FILE_OPERATIONS[header["op"]]
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest("bad_request", "A chunk is at most 1 MiB.")
        self._workspace.is_stale = self._workspace.is_stale or operation in CHANGING_OPERATIONS
        number, generation = header["id"], self._generation
        self._start_worker(
            lambda: operation(self._workdir, header, body),
            lambda answer, data: self._pass_on(number, generation, answer, data),
        )

    def _pass_on(self, number: int, generation: int, answer: dict[str, Any], body: bytes) -> None:
        """Send a worker's answer to whoever asked, if he is still there."""
        if generation == self._generation:
            header = {"re": number}
            header.update(answer)
            self._send(to_json(header), body)

    def _start_worker(
        self,
        task: Callable[[], tuple[dict[str, Any], bytes]],
        done: Callable[[dict[str, Any], bytes], None],
        stdin_fd: int = -1,
        timeout_s: float = WORKER_TIMEOUT_S,
        stdout_fd: int = -1,
    ) -> int:
        """Fork a process that does a task as the code's user; return its id."""
        if len(self._workers) >= MAX_WORKERS:
            raise BadRequest("busy", "Too many file operations at once.")
        own, other = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._forget_secrets()
                null = os.open("/dev/null", os.O_RDWR)
                set_streams([null if stdin_fd < 0 else stdin_fd, null if stdout_fd < 0 else stdout_fd, null, other])
                set_signals_to_default(python=True)
                self._identity.become()
                work(task, 3)
            finally:
                os._exit(0)
        os.close(other)
        os.set_blocking(own, False)
        self._workers.add(pid)
        self._children.waiting[pid] = lambda status, usage: self._workers.discard(pid)
        answer = bytearray()
        self._after(("worker", own), timeout_s, lambda: send_signal(pid, _signal.SIGKILL))
        self._watch(own, lambda events: self._worker_says(own, answer, done))
        return pid

    def _worker_says(self, fd: int, answer: bytearray, done: Callable[[dict[str, Any], bytes], None]) -> None:
        try:
            data = os.read(fd, 4 * CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data and len(answer) + len(data) <= MAX_BODY_BYTES + MAX_HEADER_BYTES:
            answer += data
            return
        self._timers.pop(("worker", fd), None)
        self._unwatch(fd)
        os.close(fd)
        end = 4 + int.from_bytes(answer[:4], "big")
        try:
            fields = parse_json(bytes(answer[4:end]))
        except ValueError:
            fields = {"ok": False, "error": "killed", "message": "The file operation was killed or took too long."}
        done(fields, bytes(answer[end:]))

    def _untar(self, header: dict[str, Any], body: bytes) -> None:
        """Feed a chunk of an archive to the worker that unpacks it; answer when the chunk is in the pipe."""
        stream = self._unpacking
        offset = header.get("offset")
        if stream is not None and (stream.generation != self._generation or offset == 0):
            self._abandon_untar()
            stream = None
        if stream is not None and stream.answer is not None:
            self._unpacking = None
            self._pass_on(header["id"], self._generation, stream.answer, b"")
            return
        if stream is None:
            if offset:
                raise BadRequest("unknown_archive", "The archive's beginning is missing.")
            stream = self._start_untar(header["path"], header.get("max_members") or Unpacker.MAX_MEMBERS)
        elif stream.path != header["path"] or stream.number is not None:
            raise BadRequest("busy", "Another archive is being unpacked.")
        stream.number = header["id"]
        stream.last = not header.get("more")
        stream.rest = memoryview(body)
        self._feed_untar(stream)

    def _start_untar(self, path: str, max_members: int) -> Unpacking:
        unpacker_path = place(self._workdir, path)
        self._workspace.is_stale = True
        code_end, own_end = os.pipe()
        os.set_blocking(own_end, False)
        try:
            fcntl.fcntl(own_end, F_SETPIPE_SZ, 1024 * 1024)
        except OSError:
            pass
        stream = Unpacking(path, own_end, self._generation)
        try:
            stream.pid = self._start_worker(
                lambda: Unpacker(self._workdir, unpacker_path, max_members).run(),
                lambda answer, data: self._untar_done(stream, answer),
                code_end,
                UNTAR_TIMEOUT_S,
            )
        except BaseException:
            os.close(own_end)
            raise
        finally:
            os.close(code_end)
        self._unpacking = stream
        return stream

    def _feed_untar(self, stream: Unpacking) -> None:
        try:
            while stream.rest:
                stream.rest = stream.rest[os.write(stream.fd, stream.rest) :]
        except BlockingIOError:
            if stream.fd not in self._readers:
                self._watch(stream.fd, lambda events: self._feed_untar(stream), select.POLLOUT)
            return
        except OSError:
            # The worker gave up; its answer says why.
            self._close_untar(stream)
            return
        self._unwatch(stream.fd)
        if stream.last:
            self._close_untar(stream)
        elif stream.number is not None:
            number, stream.number = stream.number, None
            self._pass_on(number, stream.generation, {"ok": True}, b"")

    def _close_untar(self, stream: Unpacking) -> None:
        if stream.fd >= 0:
            self._unwatch(stream.fd)
            os.close(stream.fd)
            stream.fd = -1

    def _abandon_untar(self) -> None:
        if self._unpacking is not None:
            send_signal(self._unpacking.pid, _signal.SIGKILL)
            self._close_untar(self._unpacking)
            self._unpacking = None

    def _untar_done(self, stream: Unpacking, answer: dict[str, Any]) -> None:
        self._close_untar(stream)
        stream.answer = answer
        if stream.number is not None:
            if self._unpacking is stream:
                self._unpacking = None
            self._pass_on(stream.number, stream.generation, answer, b"")

    def _pack(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        """Start to pack a directory; what comes of it is read piece by piece."""
        for key in [key for key, packing in self._packings.items() if packing.generation != self._generation]:
            self._end_packing(key)
        if len(self._packings) >= MAX_PACKINGS:
            raise BadRequest("busy", "Too many archives are being read at once.")
        kind, path = header["kind"], header["path"]
        if kind not in ("tar", "zip"):
            raise BadRequest("bad_request", "The kind is tar or zip.")
        own_end, code_end = os.pipe()
        os.set_blocking(own_end, False)
        try:
            fcntl.fcntl(own_end, F_SETPIPE_SZ, 1024 * 1024)
        except OSError:
            pass
        self._packing_ids += 1
        key, packing = self._packing_ids, Packing(own_end, self._generation)

        def done(answer: dict[str, Any], data: bytes) -> None:
            packing.answer = answer
            self._feed_pack(key)

        try:
            packing.pid = self._start_worker(
                lambda: Packer(self._workdir, path, kind).run(), done, timeout_s=UNTAR_TIMEOUT_S, stdout_fd=code_end
            )
        except BaseException:
            os.close(own_end)
            raise
        finally:
            os.close(code_end)
        self._packings[key] = packing
        self._after(("packing", key), PACK_IDLE_S, lambda: self._end_packing(key))
        return {"handle": key}

    def _pack_read(self, header: dict[str, Any], body: bytes) -> None:
        """Answer with the next piece once there is one; the last one is empty and says `eof`."""
        packing = self._packings.get(header["handle"])
        if packing is None or packing.generation != self._generation:
            raise BadRequest("unknown_archive", "Nothing is being packed under this number.")
        if packing.number is not None:
            raise BadRequest("busy", "The archive is being read already.")
        packing.number = header["id"]
        self._after(("packing", header["handle"]), PACK_IDLE_S, lambda: self._end_packing(header["handle"]))
        self._feed_pack(header["handle"])

    def _feed_pack(self, key: int) -> None:
        packing = self._packings.get(key)
        if packing is None or packing.number is None:
            return
        data = b""
        while packing.fd >= 0 and len(data) < MAX_BODY_BYTES:
            try:
                part = os.read(packing.fd, MAX_BODY_BYTES - len(data))
            except BlockingIOError:
                break
            if not part:
                self._unwatch(packing.fd)
                os.close(packing.fd)
                packing.fd = -1
            data += part
        number = packing.number
        if data:
            packing.number = None
            if packing.fd >= 0:
                self._unwatch(packing.fd)
            self._pass_on(number, packing.generation, {"ok": True, "eof": False}, data)
        elif packing.fd >= 0:
            if packing.fd not in self._readers:
                self._watch(packing.fd, lambda events: self._feed_pack(key))
        elif packing.answer is not None:
            packing.number = None
            self._pass_on(number, packing.generation, dict(packing.answer, eof=True), b"")
            self._end_packing(key)

    def _pack_close(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        self._end_packing(header["handle"])
        return {}

    def _end_packing(self, key: int) -> None:
        packing = self._packings.pop(key, None)
        if packing is None:
            return
        self._timers.pop(("packing", key), None)
        if packing.pid in self._workers:
            send_signal(packing.pid, _signal.SIGKILL)
        if packing.fd >= 0:
            self._unwatch(packing.fd)
            os.close(packing.fd)
        if packing.number is not None:
            refusal = {"ok": False, "error": "killed", "message": "Packing took too long."}
            self._pass_on(packing.number, packing.generation, refusal, b"")

    # --- the state of the sandbox

    def _stats(self, header: dict[str, Any], body: bytes) -> dict[str, Any] | None:
        """Answer at once where the workspace is a file system of its own, else when its files have been added up."""
        stats = self._measure()
        if not self._disk_limit_bytes or (self._identity.uid is not None and os.path.ismount(self._workdir)):
            return stats
        number, generation = header["id"], self._generation

        def done(answer: dict[str, Any], data: bytes) -> None:
            if answer.get("ok"):
                answer = {**stats, **answer, "disk_limit_bytes": self._disk_limit_bytes}
            self._pass_on(number, generation, answer, b"")

        self._start_worker(lambda: disk_usage(self._workdir, {}, b""), done)
        return None

    def _measure(self) -> dict[str, Any]:
        processes = [*self._processes(set()), *self._contexts.keys()]
        disk = os.statvfs(self._workdir)
        ticks = os.sysconf("SC_CLK_TCK")
        memory, cpu_ms = 0, 0.0
        for pid in [os.getpid(), self._zygote_pid, *[pid for pid, _ in processes]]:
            fields = process_stat(pid) if pid else []
            if len(fields) > 21:
                cpu_ms += sum([int(field) for field in fields[11:15]]) * 1000 / ticks
                memory += proportional_memory(pid) or int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "memory_bytes": memory,
            "cpu_ms": cpu_ms,
            "processes": len(processes),
            "disk_bytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            "disk_limit_bytes": disk.f_blocks * disk.f_frsize,
        }

    # --- contexts

    def _context(self, header: dict[str, Any], body: bytes) -> dict[str, Any]:
        contexts = self._contexts
        operations = {
            "context_create": contexts.create,
            "context_list": contexts.list_all,
            "context_restart": contexts.restart,
            "context_interrupt": contexts.interrupt,
            "context_delete": contexts.delete,
        }
        if _ctypes is None:
            raise BadRequest("no_contexts", "The sandbox's interpreter cannot be forked.")
        return operations[header["op"]](header)

    CONTEXT_OPERATIONS = ("context_create", "context_list", "context_restart", "context_interrupt", "context_delete")

    OPERATIONS = {
        "hello": _hello,
        "assign": _assign,
        "ping": _ping,
        "exec": _exec,
        "stdin": _stdin,
        "cancel": _cancel,
        "resume": _resume,
        "forget": _forget,
        "stats": _stats,
        "untar": _untar,
        "pack": _pack,
        "pack_read": _pack_read,
        "pack_close": _pack_close,
        **dict.fromkeys(FILE_OPERATIONS, _file),
        **dict.fromkeys(CONTEXT_OPERATIONS, _context),
    }


# --- start


def checked_env(value: Any) -> dict[str, str]:
    """Return an environment given by a request. Raises BadRequest."""
    if value is None:
        return {}
    for name, text in value.items():
        if not isinstance(text, str) or not name or "=" in name or "\0" in name or "\0" in text:
            raise BadRequest("bad_request", "The environment maps names to texts.")
    return dict(value)


def checked_list(value: Any) -> list[str]:
    """Return a list of texts given by a request. Raises BadRequest."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) and "\0" not in text for text in value):
        raise BadRequest("bad_request", "A list of texts is wanted.")
    return value


def startup_variables(env: dict[str, str]) -> dict[str, str]:
    """Return what an interpreter reads of its environment while it starts."""
    return {
        name: value
        for name, value in env.items()
        if (name.startswith(("PYTHON", "LD_")) and name != "PYTHONPATH") or name in ("LANG", "LC_ALL", "LC_CTYPE")
    }


OWN_STARTUP_VARIABLES = startup_variables(dict(os.environ))


def can_share_interpreter(env: dict[str, str]) -> bool:
    """Return whether code with this environment may run in a fork of our own interpreter."""
    if startup_variables(env) != OWN_STARTUP_VARIABLES:
        return False
    for directory in env.get("PYTHONPATH", "").split(":"):
        for name in ("sitecustomize.py", "usercustomize.py"):
            if directory and os.path.exists(os.path.join(directory, name)):
                return False
    return True


def base_environment(config: dict[str, Any], workdir: str) -> dict[str, str]:
    """Return the environment that all code begins with."""
    env = dict(os.environ)
    for name in ("PWD", "OLDPWD", "SHLVL", "_", CONFIG_VARIABLE, RESTARTED_VARIABLE):
        env.pop(name, None)
    if config.get("uid") is not None:
        env["HOME"] = workdir
    given = checked_env(config.get("env"))
    if "LANG" in given:
        env.pop("LC_CTYPE", None)  # an interpreter that starts without a locale sets it itself
    env.update(given)
    return env


def restart_if_better(env: dict[str, str], code: Any) -> None:
    """Start this program again, once, where that makes a better interpreter to fork.

    That is so if code should begin in another environment, and if this file was just compiled: what the compiler
    used stays in the interpreter, thrice of what an idle agent needs.
    """
    compiled = type(globals()["__loader__"]).__name__ != "SourceFileLoader"
    if RESTARTED_VARIABLE in os.environ or (compiled and startup_variables(env) == OWN_STARTUP_VARIABLES):
        return
    path, fd = os.path.abspath(sys.argv[0]), -1
    try:
        if not compiled:
            fd = os.memfd_create("agent", 0)
            write_all(fd, sys.modules["_frozen_importlib_external"].MAGIC_NUMBER + bytes(12) + marshal.dumps(code))
            path = "/proc/self/fd/%d" % fd
        own = {CONFIG_VARIABLE: os.environ[CONFIG_VARIABLE], RESTARTED_VARIABLE: str(fd)}
        os.execve(sys.executable, [sys.executable, path], {**env, **own})
    except (OSError, AttributeError):
        pass  # no files in memory, or no /proc: this interpreter will do


def take_config() -> tuple[dict[str, Any], bytearray]:
    """Return the configuration without its secret, and the marker made of it; leave no copy of it in memory."""
    raw: bytes = os.environ._data[os.fsencode(CONFIG_VARIABLE)]  # type: ignore[attr-defined]
    start = raw.index(b'"', raw.index(b":", raw.index(b'"secret"'))) + 1
    marker = bytearray(RESYNC) + bytearray(SECRET_BYTES)
    for index in range(SECRET_BYTES):
        high, low = (b"0123456789abcdef".index(raw[start + 2 * index + part]) for part in (0, 1))
        marker[len(RESYNC) + index] = 16 * high + low
    config = parse_json(raw[:start] + raw[start + 2 * SECRET_BYTES :])
    return config, marker


def main(code: Any) -> None:
    """Be the agent; `code` is this file's."""
    prctl(PR_SET_DUMPABLE, 0)
    config, marker = take_config()
    restart_if_better(base_environment(config, config.get("workdir") or ""), code)
    wipe_variable(CONFIG_VARIABLE)
    own_file = int(os.environ.get(RESTARTED_VARIABLE, "-1"))
    wipe_variable(RESTARTED_VARIABLE)
    if own_file > 2:
        os.close(own_file)
    if os.getpid() != 1:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(0, False)
    Agent(config, marker).run()


if __name__ == "__main__":
    main(sys._getframe().f_code)
