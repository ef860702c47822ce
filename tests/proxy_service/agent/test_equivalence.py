"""Code in a fork of the warm interpreter behaves as `python3 main.py` does, to the letter."""

# A table of programs is read by its lines.
# ruff: noqa: E501

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.proxy_service.agent.client import CODE_ENV, PYTHON, AgentProcess


@dataclass(frozen=True)
class Case:
    """A program, and what it finds around it."""

    code: str | bytes
    files: dict[str, str] = field(default_factory=dict)
    stdin: bytes | None = None
    env: dict[str, str] = field(default_factory=dict)
    args: tuple[str, ...] = ()


CASES = {
    "hello": Case("print(1 + 1)"),
    "empty": Case(""),
    "no newline at the end": Case("print('x')  # end"),
    "name and file": Case("print(__name__, __file__, __doc__, __package__, __spec__, __cached__, type(__loader__))"),
    "docstring": Case('"""What this is."""\nprint(__doc__)'),
    "globals": Case("print(list(globals()))\nprint(type(__builtins__), __loader__.path, __loader__.name)"),
    "annotations": Case("x: int = 1\nprint(__annotations__ if '__annotations__' in globals() else None)"),
    "argv": Case("import sys\nprint(sys.argv)", args=("a", "b c", "")),
    "orig argv behind the program": Case("import sys\nprint(getattr(sys, 'orig_argv', [0])[1:])", args=("a",)),
    "path": Case("import sys\nprint(sys.path)"),
    "flags": Case("import sys\nprint(sys.flags, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode)"),
    "executable": Case("import sys\nprint(sys.executable, sys.prefix, sys.base_prefix)"),
    "modules": Case("import sys\nprint(sorted(sys.modules))"),
    "module main": Case("import sys, __main__\nprint(sys.modules['__main__'] is __main__, vars(__main__) is globals())"),
    "environment": Case("import os\nprint(sorted(os.environ.items()))", env={"A": "1", "B": "é"}),
    "stack is empty": Case(
        "import sys, traceback, inspect\nprint(sys._getframe().f_back, len(inspect.stack()))\ntraceback.print_stack()"
    ),
    "warn at the caller of the module": Case("import warnings\nwarnings.warn('careful', stacklevel=2)"),
    "warning": Case("import warnings\nwarnings.warn('careful')\nwarnings.warn('old', DeprecationWarning)"),
    "syntax warning": Case("print(1 is 1)"),
    "exit 3": Case("import sys\nprint('x', end='')\nsys.exit(3)"),
    "exit message": Case("import sys\nsys.exit('bye é')"),
    "exit None": Case("import sys\nsys.exit(None)"),
    "exit 256": Case("import sys\nsys.exit(256)"),
    "exit negative": Case("import sys\nsys.exit(-1)"),
    "exit object": Case("import sys\nsys.exit({'a': 1})"),
    "exit by the builtin": Case("exit(4)"),
    "raise SystemExit": Case("raise SystemExit(5)"),
    "os._exit loses what is not flushed": Case("import os\nprint('lost')\nos._exit(7)"),
    "exception": Case("def f():\n    return 1 / 0\n\nf()"),
    "exception after output": Case("print('before')\nraise ValueError('é' * 3)"),
    "chained": Case("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e"),
    "context": Case("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('k')"),
    "syntax error": Case("print('never')\ndef f(:\n    pass"),
    "indentation error": Case("if True:\nprint(1)"),
    "tab error": Case("if True:\n\tx = 1\n        y = 2\n"),
    "null byte": Case(b"print(1)\0\n"),
    "bad encoding": Case(b"print('\xff')\n"),
    "encoding cookie": Case("# -*- coding: latin-1 -*-\nprint('é')".encode("latin-1")),
    "byte order mark": Case(b"\xef\xbb\xbfprint('x')\n"),
    "carriage returns": Case(b"print('a')\r\nprint('b')\r\n"),
    "name error with a suggestion": Case("value = 1\nprint(valeu)"),
    "module not found": Case("import no_such_module"),
    "excepthook": Case("import sys\nsys.excepthook = lambda *a: print('hook', a[0])\n1 / 0"),
    "excepthook that fails": Case("import sys\nsys.excepthook = lambda *a: 1 / 0\n[].x"),
    "last exception": Case("import atexit, sys\natexit.register(lambda: print(sys.last_type))\n1 / 0"),
    "unraisable": Case("class A:\n    def __del__(self): 1 / 0\nA()\nprint('on')"),
    "recursion": Case("def f(): f()\nf()"),
    "recursion depth": Case("import sys\nn = 0\ndef f():\n    global n\n    n += 1\n    f()\ntry:\n    f()\n"
                            "except RecursionError:\n    print(n, sys.getrecursionlimit())"),
    "recursion limit": Case("import sys\nsys.setrecursionlimit(50)\ndef f(): f()\nf()"),
    "keyboard interrupt": Case("raise KeyboardInterrupt"),
    "interrupts itself": Case("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)"),
    "interrupt caught": Case("import os, signal, time\ntry:\n    os.kill(os.getpid(), 2)\n    time.sleep(5)\n"
                             "except KeyboardInterrupt:\n    print('caught')"),
    "terminates itself": Case("import os, signal\nprint('lost')\nos.kill(os.getpid(), signal.SIGTERM)"),
    "aborts": Case("import os\nos.abort()"),
    "segmentation fault": Case("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"),
    "handlers": Case("import signal\nfor n in sorted(signal.valid_signals()):\n    print(n, signal.getsignal(n))"),
    "signal mask": Case("import signal\nprint(signal.pthread_sigmask(signal.SIG_BLOCK, []))"),
    "signal masks of the kernel": Case(
        "print([l for l in open('/proc/self/status') if l[:4] in ('SigB', 'SigI', 'SigC', 'ShdP')])"
    ),
    "broken pipe": Case("import os, sys\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')"),
    "atexit order": Case("import atexit\natexit.register(print, 'first')\natexit.register(print, 'second')\nprint('main')"),
    "atexit that fails": Case("import atexit\natexit.register(lambda: 1 / 0)\natexit.register(print, 'x')"),
    "atexit after sys.exit": Case("import atexit, sys\natexit.register(print, 'x')\nsys.exit(2)"),
    "destructors at the end": Case(
        "import sys\nclass A:\n    def __init__(self, n): self.n = n\n    def __del__(self): print('del', self.n)\n"
        "a = A(1)\nb = A(2)\nc = [A(3)]; c.append(c)\nsys.kept = A(4)\nprint('end')"
    ),
    "threads are joined": Case(
        "import threading, time\ndef f():\n    time.sleep(0.05)\n    print('thread', threading.current_thread().name)\n"
        "threading.Thread(target=f).start()\nprint('main', threading.current_thread().name, threading.active_count())"
    ),
    "main thread": Case("import threading\nprint(threading.main_thread() is threading.current_thread(), "
                        "threading.main_thread().name, threading.enumerate().__len__())"),
    "daemon threads are not": Case("import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()"),
    "exception in a thread": Case("import threading\nthreading.Thread(target=lambda: 1 / 0, name='t').start()"),
    "interrupt in a thread": Case("import threading, _thread, time\nthreading.Timer(0.05, _thread.interrupt_main).start()\n"
                                  "while True: time.sleep(0.01)"),
    "fork": Case("import os\nprint('before', flush=True)\npid = os.fork()\nif pid == 0:\n    print('child')\nelse:\n"
                 "    os.waitpid(pid, 0)\n    print('parent')"),
    "fork with unflushed output": Case("import os\nprint('twice')\npid = os.fork()\nif pid: os.waitpid(pid, 0)"),
    "subprocess": Case("import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(6 * 7)'], "
                       "capture_output=True, text=True))"),
    "subprocess of a shell": Case("import subprocess\nprint(subprocess.getoutput('echo $0; echo $A; pwd'))", env={"A": "b"}),
    "subprocess that shares output": Case("import subprocess, sys\nprint('a', flush=True)\nsubprocess.run(['sh', '-c', "
                                          "'echo b; echo c >&2; exit 3'], check=True)"),
    "system": Case("import os\nprint(os.system('exit 3'))"),
    "exec": Case("import os\nos.execvp('sh', ['sh', '-c', 'echo replaced; exit 9'])"),
    "multiprocessing spawn": Case(
        "import multiprocessing as mp\ndef f(x): return x * x\nif __name__ == '__main__':\n"
        "    mp.set_start_method('spawn')\n    with mp.Pool(2) as p:\n        print(p.map(f, range(5)))"
    ),
    "multiprocessing fork": Case(
        "import multiprocessing as mp\ndef f(x): return x * x\nif __name__ == '__main__':\n"
        "    with mp.get_context('fork').Pool(2) as p:\n        print(p.map(f, range(5)))"
    ),
    "multiprocessing forkserver": Case(
        "import multiprocessing as mp\ndef f(q): q.put(__name__)\nif __name__ == '__main__':\n"
        "    c = mp.get_context('forkserver')\n    q = c.Queue()\n    p = c.Process(target=f, args=(q,))\n    p.start()\n"
        "    print(q.get(), p.join(), p.exitcode)"
    ),
    "process pool": Case(
        "from concurrent.futures import ProcessPoolExecutor\ndef f(x): return x + 1\nif __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(2) as p:\n        print(list(p.map(f, range(4))))"
    ),
    "asyncio": Case("import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return 3\nprint(asyncio.run(f()))"),
    "asyncio subprocess": Case("import asyncio\nasync def f():\n    p = await asyncio.create_subprocess_shell('exit 4')\n"
                               "    return await p.wait()\nprint(asyncio.run(f()))"),
    "input at end of file": Case("input('name? ')"),
    "input": Case("print(input('? '), input())", stdin=b"a\nb\n"),
    "reads all of stdin": Case("import sys\nprint(repr(sys.stdin.read()), sys.stdin.encoding, sys.stdin.errors)",
                               stdin="a\r\nb\rc\né".encode()),
    "stdin in binary": Case("import sys\nprint(sys.stdin.buffer.read())", stdin=bytes(range(256))),
    "bad bytes on stdin": Case("import sys\nprint(repr(sys.stdin.read()))", stdin=b"\xff\xfe"),
    "prints é": Case("import sys\nprint('é', file=sys.stderr)\nprint('é ☃ 😀')"),
    "prints a surrogate": Case("print('\\ud800')"),
    "prints an escaped byte": Case("print('\\udcff')"),
    "surrogate on stderr": Case("import sys\nprint('\\ud800', file=sys.stderr)"),
    "PYTHONIOENCODING": Case("import sys\nprint('é', sys.stdout.encoding, sys.stdout.errors)",
                             env={"PYTHONIOENCODING": "latin-1:replace"}),
    "PYTHONUTF8": Case("import sys\nprint(sys.flags.utf8_mode, sys.stdout.encoding)", env={"PYTHONUTF8": "1"}),
    "PYTHONUNBUFFERED": Case("import sys, os\nprint('kept', sys.stdout.write_through)\nos._exit(0)",
                             env={"PYTHONUNBUFFERED": "1"}),
    "PYTHONHASHSEED": Case("print(hash('a'))", env={"PYTHONHASHSEED": "7"}),
    "PYTHONDONTWRITEBYTECODE": Case("import os, sibling\nprint(sorted(os.listdir('.')))", files={"sibling.py": "x = 1"},
                                    env={"PYTHONDONTWRITEBYTECODE": "1"}),
    "PYTHONWARNINGS": Case("import warnings\nwarnings.warn('x')", env={"PYTHONWARNINGS": "error"}),
    "PYTHONOPTIMIZE": Case("assert False\nprint(__debug__)", env={"PYTHONOPTIMIZE": "1"}),
    "PYTHONPATH": Case("import sys, there\nprint(sys.path[:3], there.x)", files={"lib/there.py": "x = 2"},
                       env={"PYTHONPATH": "lib:/nowhere"}),
    "PYTHONPATH with sitecustomize": Case("print('main')", files={"lib/sitecustomize.py": "print('site')"},
                                          env={"PYTHONPATH": "lib"}),
    "another locale": Case("import sys, locale\nprint(sys.stdout.encoding, sys.stdout.errors, locale.getlocale())",
                           env={"LANG": "C", "LC_ALL": "POSIX"}),
    "time zone": Case("import time\nprint(time.tzname, time.localtime(0)[:6])", env={"TZ": "EST5EDT"}),
    "streams": Case("import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr):\n    print(s.name, s.mode, s.encoding, "
                    "s.errors, s.line_buffering, s.write_through, s.newlines, s.fileno(), s.isatty(), s.closed, "
                    "s.buffer.name, s.buffer.mode, s.buffer.raw, s is getattr(sys, '__' + s.name.strip('<>') + '__'))"),
    "streams of bytes": Case("import sys\nsys.stdout.buffer.write(bytes(range(256)))\nsys.stderr.buffer.write(b'\\xff')"),
    "closed stdout": Case("import sys\nprint('x')\nsys.stdout.close()"),
    "closed descriptor": Case("import os\nprint('x')\nos.close(1)"),
    "stdout replaced": Case("import io, sys\nsys.stdout = io.StringIO()\nprint('lost')"),
    "flush order": Case("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.stdout.flush()\nprint('out2')"),
    "dev stdout": Case("open('/dev/stdout', 'w').write('a\\n')\nopen('/proc/self/fd/2', 'w').write('b\\n')"),
    "descriptors": Case("import os\nprint(sorted(os.listdir('/proc/self/fd'), key=int), os.get_inheritable(1))"),
    "sibling": Case("import sibling\nprint(sibling.x, sibling.__file__, sibling.__name__, sibling.__cached__)",
                    files={"sibling.py": "x = 1"}),
    "package": Case("from package.inner import value\nprint(value)",
                    files={"package/__init__.py": "", "package/inner.py": "from . import other\nvalue = other.x",
                           "package/other.py": "x = 5"}),
    "error in a sibling": Case("import sibling\nsibling.f()", files={"sibling.py": "def f():\n    return {}['k']"}),
    "sibling that shadows a library": Case("import random\nprint(random.x)", files={"random.py": "x = 'mine'"}),
    "library that shadows a library": Case("import random, decimal\nprint(random.__file__[-14:], random.x, decimal.Decimal(1))",
                                           files={"lib/random/__init__.py": "x = 3"}, env={"PYTHONPATH": "lib"}),
    "files that shadow nothing": Case("import random, logging, decimal\nprint(random.Random, logging.INFO, decimal.Decimal)",
                                      files={"random.csv": "", "logging/data.txt": "", "lib/decimal.txt": ""},
                                      env={"PYTHONPATH": "lib"}),
    "sibling imports main": Case("import sibling\nx = 1", files={"sibling.py": "import __main__\nprint(__main__.__file__)"}),
    "reload": Case("import importlib, sibling\nimportlib.reload(sibling)", files={"sibling.py": "print('loaded')"}),
    "pickle of a class of main": Case("import pickle\nclass A:\n    x = 1\nb = pickle.dumps(A())\nprint(b, "
                                      "pickle.loads(b).x, A)"),
    "dataclass": Case("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nprint(P(1))"),
    "typing hints": Case("import typing\nclass A:\n    x: 'int'\nprint(typing.get_type_hints(A))"),
    "namedtuple and enum": Case("import collections, enum\nprint(collections.namedtuple('T', 'a')(1).__class__.__module__, "
                                "enum.Enum('E', 'A').__module__)"),
    "inspect source": Case("import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f), inspect.getfile(f))"),
    "runpy": Case("import runpy\nrunpy.run_path('other.py', run_name='__main__')", files={"other.py": "print(__name__, __file__)"}),
    "doctest": Case("'''\n>>> 1 + 1\n3\n'''\nimport doctest\nprint(doctest.testmod())"),
    "unittest": Case("import io, unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertTrue(1)\n"
                     "runner = unittest.TextTestRunner(io.StringIO())\nprint(unittest.main(testRunner=runner, exit=False).result)"),
    "logging": Case("import logging\nlogging.warning('w')\nlogging.basicConfig(level=10, format='%(levelname)s %(name)s "
                    "%(module)s %(funcName)s %(lineno)d %(message)s', force=True)\nlogging.debug('d')\ntry:\n    1 / 0\n"
                    "except Exception:\n    logging.exception('e')"),
    "logging after warnings": Case("import logging, warnings\nlogging.captureWarnings(True)\nwarnings.warn('w', stacklevel=3)"),
    "faulthandler": Case("import faulthandler, sys\nprint(faulthandler.is_enabled())\nfaulthandler.dump_traceback(sys.stdout, "
                         "all_threads=False)"),
    "faulthandler of all threads": Case("import faulthandler, os, re, sys\nr, w = os.pipe()\nfaulthandler.dump_traceback(w)\n"
                                        "print(re.sub('0x[0-9a-f]+', 'ID', os.read(r, 9999).decode()))"),
    "ctypes": Case("import ctypes\nprint(ctypes.CDLL(None).abs(-3), ctypes.sizeof(ctypes.c_long), "
                   "ctypes.pythonapi.Py_IsInitialized())"),
    "ctypes callback": Case("import ctypes\nf = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1)\nprint(f(2))"),
    "modules that the agent uses": Case("import json, socket, select, resource, signal, marshal, collections, fcntl, errno\n"
                                        "print(json.loads('[1, {\"a\": null}]'), json.dumps({'é': 1.5}), "
                                        "resource.getrlimit(resource.RLIMIT_STACK)[0] != 0, signal.SIGTERM, "
                                        "select.select([], [], [], 0), collections.deque([1]))\n"
                                        "a, b = socket.socketpair()\na.send(b'x')\nprint(b.recv(1))"),
    "wait4": Case("import os\npid = os.fork()\nif pid == 0: os._exit(3)\nprint(os.wait4(pid, 0)[1])"),
    "children that end are told": Case("import os, signal\nimport time\ntold = []\nsignal.signal(signal.SIGCHLD, lambda *a: told.append(1))\n"
                                       "if os.fork() == 0: os._exit(0)\nwhile not told: time.sleep(0.01)\nprint(told)"),
    "alarm": Case("import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.02)\nsignal.pause()"),
    "profile": Case("import sys\nprint(sys.getprofile(), sys.gettrace(), sys.getswitchinterval())"),
    "trace of calls": Case("import sys\ndef t(frame, event, arg):\n    print(event, frame.f_code.co_name, frame.f_lineno)\n"
                           "    return t\nsys.settrace(t)\ndef f():\n    return 1\nf()\nsys.settrace(None)"),
    "cProfile": Case("import cProfile\nprint(len(cProfile.Profile().getstats()))"),
    "tracemalloc": Case("import tracemalloc\nprint(tracemalloc.is_tracing())"),
    "gc": Case("import gc\nprint(gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks)"),
    "generator alive at the end": Case("def g():\n    try:\n        yield 1\n    finally:\n        print('closed')\nx = g()\nnext(x)"),
    "weak references at the end": Case("import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalized')"),
    "temporary directory left open": Case("import tempfile, os\nd = tempfile.TemporaryDirectory(dir='.')\nprint(os.path.isdir(d.name))"),
    "file left open": Case("f = open('left.txt', 'w')\nf.write('data')\n"),
    "site": Case("import site, sys\nprint(site.ENABLE_USER_SITE, sorted(n for n in dir(__builtins__) if n in "
                 "('exit', 'quit', 'copyright', 'help')))"),
    "umask and group": Case("import os\nprint(oct(os.umask(0)), os.getpgid(0) == os.getpgrp())"),
    "directory": Case("import os\nprint(os.getcwd(), os.listdir('.'))"),
    "breakpoint at end of file": Case("breakpoint()\nprint('on')"),
    "help": Case("help(len)"),
    "match": Case("import sys\nprint(compile('1', 'x', 'eval').co_flags, sys.version)"),
    "future annotations": Case("from __future__ import annotations\ndef f(x: nothing): pass\nprint(f.__annotations__)"),
    "future is not inherited": Case("def f(x: int): pass\nprint(f.__annotations__, compile('def f(x: int): pass', '', "
                                    "'exec').co_flags)"),
    "zip import": Case("import zipfile, sys\nwith zipfile.ZipFile('a.zip', 'w') as z: z.writestr('inside.py', 'x = 3')\n"
                       "sys.path.insert(0, 'a.zip')\nimport inside\nprint(inside.x)"),
    "decimal and locale": Case("import decimal, locale\nprint(decimal.getcontext().prec, locale.localeconv()['decimal_point'], "
                               "locale.setlocale(locale.LC_ALL))"),
}  # fmt: skip


PRELOAD = [
    "asyncio",
    "concurrent.futures",
    "ctypes",
    "decimal",
    "logging",
    "multiprocessing.pool",
    "random",
    "unittest",
]
SEEN_WHEN_PRELOADED = {"modules", "main thread", "faulthandler of all threads"}
"""Cases that list what is loaded."""


def serve(workdir: Path, **config: Any) -> Iterator[AgentProcess]:
    agent = AgentProcess(workdir, **config)
    agent.attach()
    yield agent
    agent.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    yield from serve(tmp_path_factory.mktemp("equal"))


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    yield from serve(tmp_path_factory.mktemp("preloaded"), preload=PRELOAD)


def lay_out(case: Case, workdir: Path) -> None:
    """Leave nothing in the directory but what the case needs."""
    for path in workdir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in case.files.items():
        path = workdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def without_addresses(text: bytes) -> bytes:
    """Leave out where objects lie in memory: that differs between any two runs."""
    return re.sub(rb"0x[0-9a-f]{6,}", b"0x", text)


def run_plainly(case: Case, workdir: Path) -> tuple[int, bytes, bytes]:
    """Run a case as everybody would."""
    code = case.code.encode() if isinstance(case.code, str) else case.code
    (workdir / "main.py").write_bytes(code)
    run = subprocess.run(
        [PYTHON, "main.py", *case.args],
        cwd=workdir,
        env={**CODE_ENV, **case.env},
        input=case.stdin,
        stdin=None if case.stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    return run.returncode, run.stdout, without_addresses(run.stderr)


def run_by_agent(case: Case, agent: AgentProcess) -> tuple[int, bytes, bytes]:
    """Run a case in a fork of the warm interpreter."""
    fields = {"filename": "main.py", "args": list(case.args), "env": case.env}
    execution_id = agent.start(case.code, stdin="none" if case.stdin is None else "data", timeout_s=60, **fields)
    if case.stdin is not None:
        agent.ask("stdin", case.stdin, execution_id=execution_id, eof=True)
    done = agent.finish(execution_id)
    code = done.exit["exit_code"]
    return (-done.exit["signal"] if code is None else code), done.stdout, without_addresses(done.stderr)


def compare(case: Case, agent: AgentProcess) -> None:
    """Run a case both ways in the same directory."""
    lay_out(case, agent.workdir)
    plain = run_plainly(case, agent.workdir)
    left_plain = sorted(path.name for path in agent.workdir.rglob("*"))
    lay_out(case, agent.workdir)
    warm = run_by_agent(case, agent)
    assert warm == plain
    assert sorted(path.name for path in agent.workdir.rglob("*")) == left_plain


@pytest.mark.parametrize("name", CASES)
def test_code_behaves_as_in_an_interpreter_of_its_own(name: str, shared: AgentProcess) -> None:
    compare(CASES[name], shared)


@pytest.mark.parametrize("name", [name for name in CASES if name not in SEEN_WHEN_PRELOADED])
def test_code_does_not_notice_what_was_preloaded(name: str, preloaded: AgentProcess) -> None:
    compare(CASES[name], preloaded)


@pytest.mark.parametrize("code", ["import random\nprint(random.random())", "import uuid\nprint(uuid.uuid4())"])
def test_two_runs_draw_different_numbers(code: str, shared: AgentProcess) -> None:
    assert shared.run(code).stdout != shared.run(code).stdout


def test_environment_of_one_run_is_not_seen_by_the_next(shared: AgentProcess) -> None:
    shared.run("import os\nos.environ['LEFT'] = '1'\nos.putenv('ALSO', '1')", env={"GIVEN": "1"})
    found = shared.run(
        "import os\nprint([n for n in ('LEFT', 'ALSO', 'GIVEN') if os.getenv(n)], os.system('env'))"
    ).text
    assert "[] 0" in found
    assert "GIVEN" not in found.replace("'GIVEN'", "")


def test_a_preloaded_generator_of_numbers_is_seeded_anew(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, preload=["random"])
    try:
        agent.attach()
        first, second = (agent.run("import random\nprint(random.random())").stdout for _ in range(2))
        assert first != second
    finally:
        agent.close()
