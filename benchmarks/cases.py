"""The cases: each starts its sides, measures them in turn and adds rows to the report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from . import sides
from .http import Client
from .measure import Ratio, Samples, in_turn, ratio
from .report import Report, Row
from .stack import Stack, execute

IMAGE = "sandboxweb-python:latest"
DATA_IMAGE = "sandboxweb-python-data:latest"
UNTIL_IDLE_S = 12.0
"""An agent gives its warm interpreter up after 10 s at most without work."""
PRELOAD = ["numpy", "pandas", "matplotlib.pyplot"]
IMPORT = "import pandas, matplotlib.pyplot; print(2)"


@dataclass
class Bench:
    """What a case needs: the running stacks by backend, the report, and how many rounds to run."""

    stacks: dict[str, Stack]
    report: Report
    rounds: int

    def compare(
        self, case: str, ours: str, theirs: str, target: float | None = None, reach: float | None = None
    ) -> None:
        """Add the ratio of two sides of a case that was measured."""
        mine, other = self.report.samples[case][ours], self.report.samples[case][theirs]
        row = Row(case, ours, theirs, mine.median * 1e3, other.median * 1e3, "ms", ratio(mine, other), target, reach)
        self.report.rows.append(row)


def _new_session(client: Client, template: str = "python") -> str:
    return str(client("POST", "/sessions", {"lang": "python", "template": template}, 201)["session_id"])


def _proxy_session(client: Client) -> str:
    return str(client("POST", "/sessions", {"lang": "python"}, 201)["session_id"])


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def execution(bench: Bench) -> None:
    """Execute `print(1+1)` in a session that is there already."""
    with ExitStack() as stack:
        run: dict[str, Callable[[], Any]] = {}
        for backend, servers in bench.stacks.items():
            app, proxy = servers.app(), servers.proxy()
            mine, theirs = _new_session(app), _proxy_session(proxy)
            stack.callback(app, "DELETE", f"/sessions/{mine}")
            stack.callback(proxy, "DELETE", f"/sessions/{theirs}")
            run[f"sandboxweb {backend}"] = lambda app=app, mine=mine: execute(app, mine) and None
            run[f"sandboxweb {backend}, proxy alone"] = lambda p=proxy, s=theirs: execute(p, s) and None
            raw = sides.raw_docker_session(IMAGE) if backend == "docker" else sides.raw_bubblewrap_session()
            raw.open()
            stack.callback(raw.close)
            run[f"llm-sandbox {backend}"] = lambda raw=raw: sides.check_two(raw.run("print(1+1)"))
        if "docker" in bench.stacks:
            exec_side = sides.DockerExec(IMAGE)
            stack.callback(exec_side.close)
            run["docker exec"] = exec_side
        gateway = sides.KernelGateway()
        stack.callback(gateway.close)
        run["jupyter kernel gateway"] = gateway
        case = "execute print(1+1)"
        bench.report.samples[case] = in_turn(run, rounds=bench.rounds)
    if "docker" in bench.stacks:
        bench.compare(case, "sandboxweb docker", "llm-sandbox docker", 1 / 10, 1 / 20)
        bench.compare(case, "sandboxweb docker", "docker exec")
    if "bubblewrap" in bench.stacks:
        bench.compare(case, "sandboxweb bubblewrap", "llm-sandbox bubblewrap", 1 / 2, 1 / 4)
        bench.compare(case, "sandboxweb bubblewrap", "jupyter kernel gateway")


def first_result(bench: Bench) -> None:
    """Create a session and get its first result: from the warm pool and cold."""
    case = "create to first result"
    rounds = max(bench.rounds // 3, 5)
    run: dict[str, Callable[[], float | None]] = {}
    for backend, servers in bench.stacks.items():
        servers.template("bench-warm", lang="python", warm_pool_size=2)
        # Limits of its own: a pool serves every template whose sandboxes are equal.
        servers.template("bench-cold", lang="python", warm_pool_size=0, pids=120)
        app = servers.app()
        app.connect()

        def ours(template: str, *, warm: bool, app: Client = app, servers: Stack = servers) -> float:
            if warm:
                servers.wait_ready(template, 2)
            began = time.perf_counter()
            session = _new_session(app, template)
            execute(app, session)
            took = time.perf_counter() - began
            app("DELETE", f"/sessions/{session}")
            return took

        def raw(backend: str = backend) -> float:
            session = sides.raw_docker_session(IMAGE) if backend == "docker" else sides.raw_bubblewrap_session()
            began = time.perf_counter()
            session.open()
            sides.check_two(session.run("print(1+1)"))
            took = time.perf_counter() - began
            if backend == "docker":
                session.container.kill()
            session.close()
            return took

        run[f"sandboxweb {backend}, warm"] = lambda ours=ours: ours("bench-warm", warm=True)
        run[f"sandboxweb {backend}, cold"] = lambda ours=ours: ours("bench-cold", warm=False)
        run[f"llm-sandbox {backend}, open() + run()"] = raw
    if "docker" in bench.stacks:
        run["docker run python3 -c"] = lambda: sides.docker_run(IMAGE)
    bench.report.samples[case] = in_turn(run, rounds=rounds, warm_up=1)
    for backend, servers in bench.stacks.items():
        servers.template("bench-warm", warm_pool_size=0)
        bench.compare(
            case,
            f"sandboxweb {backend}, warm",
            f"llm-sandbox {backend}, open() + run()",
            1 / 8 if backend == "docker" else None,
        )
    if "docker" in bench.stacks:
        bench.compare(case, "sandboxweb docker, warm", "docker run python3 -c")


def termination(bench: Bench) -> None:
    """End a session: how long the caller waits."""
    case = "end a session"
    run: dict[str, Callable[[], float | None]] = {}
    for backend, servers in bench.stacks.items():
        app = servers.app()

        def ours(app: Client = app) -> float:
            session = _new_session(app)
            execute(app, session)
            return _timed(lambda: app("DELETE", f"/sessions/{session}"))

        def raw(backend: str = backend) -> float:
            session = sides.raw_docker_session(IMAGE) if backend == "docker" else sides.raw_bubblewrap_session()
            session.open()
            return _timed(session.close)

        run[f"sandboxweb {backend}, DELETE"] = ours
        run[f"llm-sandbox {backend}, close()"] = raw
    bench.report.samples[case] = in_turn(run, rounds=max(bench.rounds // 8, 4), warm_up=1)
    for backend in bench.stacks:
        target = 1 / 100 if backend == "docker" else None
        bench.compare(case, f"sandboxweb {backend}, DELETE", f"llm-sandbox {backend}, close()", target)


def preloaded_import(bench: Bench) -> None:
    """Execute `import pandas, matplotlib.pyplot`, preloaded and not, on the same image."""
    if "docker" not in bench.stacks:
        return
    servers = bench.stacks["docker"]
    case = "import pandas, matplotlib.pyplot"
    servers.template("bench-preload", lang="python", image=DATA_IMAGE, preload=PRELOAD)
    servers.template("bench-plain", lang="python", image=DATA_IMAGE, preload=[])
    app = servers.app()
    with_it, without = _new_session(app, "bench-preload"), _new_session(app, "bench-plain")
    execute(app, with_it, IMPORT)
    run: dict[str, Callable[[], Any]] = {
        "sandboxweb docker, preloaded": lambda: execute(app, with_it, IMPORT) and None,
        "sandboxweb docker, not preloaded": lambda: execute(app, without, IMPORT) and None,
    }
    bench.report.samples[case] = in_turn(run, rounds=max(bench.rounds // 3, 5))
    bench.compare(case, "sandboxweb docker, preloaded", "sandboxweb docker, not preloaded", 1 / 20)
    for session in (with_it, without):
        app("DELETE", f"/sessions/{session}")


def _together(workers: list[Callable[[], None]]) -> tuple[float, list[str]]:
    """Start all workers at once; return the seconds until the last ended, and what failed."""
    failures: list[str] = []
    barrier = threading.Barrier(len(workers) + 1)

    def guarded(work: Callable[[], None]) -> None:
        barrier.wait()
        try:
            work()
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(work,)) for work in workers]
    for thread in threads:
        thread.start()
    barrier.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, failures


def throughput(bench: Bench) -> None:
    """Count executions a second at 1, 8 and 32 clients, each with a session of its own."""
    for clients in (1, 8, 32):
        case = f"executions a second, {clients} clients"
        run: dict[str, Callable[[], float | None]] = {}
        lost: list[Any] = []
        with ExitStack() as stack:
            for backend, servers in bench.stacks.items():
                pairs = [(app := servers.app(), _new_session(app)) for _ in range(clients)]
                for app, session in pairs:
                    stack.callback(app, "DELETE", f"/sessions/{session}")
                each = max(256 // clients, 8)

                def ours(pairs: list[tuple[Client, str]] = pairs, each: int = each) -> float:
                    work = [lambda a=a, s=s: [execute(a, s) for _ in range(each)] and None for a, s in pairs]
                    return _rate(work, each)

                run[f"sandboxweb {backend}"] = ours
                if backend == "docker":
                    raws = [sides.raw_docker_session(IMAGE) for _ in range(clients)]
                    for raw in raws:
                        raw.open()
                        stack.callback(_kill_raw, raw)
                    run["llm-sandbox docker"] = lambda raws=raws, lost=lost: _rate(
                        [lambda r=r: lost.append(r) if not sides.is_two(r.run("print(1+1)")) else None for r in raws], 1
                    )
            bench.report.samples[case] = in_turn(run, rounds=5, warm_up=1)
        if lost:
            name = f"llm-sandbox docker, {clients} clients: executions of {6 * clients} whose output was lost"
            bench.report.facts[name] = len(lost)
        for backend in bench.stacks:
            mine = bench.report.samples[case][f"sandboxweb {backend}"]
            bench.report.facts[f"sandboxweb {backend}, {clients} clients: executions a second"] = round(1 / mine.median)
        if "docker" in bench.stacks:
            target = 1 / 10 if clients == 32 else None
            bench.compare(case, "sandboxweb docker", "llm-sandbox docker", target)


def _rate(workers: list[Callable[[], None]], each: int) -> float:
    """Return seconds an execution (the inverse of executions a second)."""
    took, failures = _together(workers)
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(workers)} clients failed: {failures[0]}")
    return took / (len(workers) * each)


def _kill_raw(session: Any) -> None:
    """End a raw Docker session without the ten seconds that its close() waits."""
    session.container.kill()
    session.close()


def pooled_creates(bench: Bench) -> None:
    """Create 100 sessions at once from a pool of 100, against 100 authenticated reads at once."""
    servers = bench.stacks.get("bubblewrap") or next(iter(bench.stacks.values()))
    case = f"100 at once ({servers.backend})"
    servers.template("bench-hundred", lang="python", warm_pool_size=100)
    clients = [servers.app() for _ in range(100)]
    known = _new_session(clients[0])
    samples = {name: Samples(name) for name in ("sandboxweb, 100 pooled creates", "sandboxweb, 100 GET /sessions/{id}")}
    for _ in range(5):
        servers.wait_ready("bench-hundred", 100)
        made: list[str] = []
        create = [lambda c=c, made=made: made.append(_new_session(c, "bench-hundred")) for c in clients]
        read = [lambda c=c: c("GET", f"/sessions/{known}") and None for c in clients]
        for (name, sample), work in zip(samples.items(), (create, read), strict=True):
            took, failures = _together(work)
            if failures:
                raise RuntimeError(f"{name}: {len(failures)} failed: {failures[0]}")
            sample.seconds.append(took)
        for session in made:
            clients[0]("DELETE", f"/sessions/{session}")
    servers.template("bench-hundred", warm_pool_size=0)
    bench.report.samples[case] = samples
    creates, reads = samples.values()
    extra = creates.median - reads.median
    bench.report.facts["100 pooled creates take longer than 100 reads by (s, at most 1)"] = round(extra, 3)
    bound = Ratio(extra, extra, extra)
    row = Row(case, creates.side, reads.side, creates.median * 1e3, reads.median * 1e3, "ms", bound, 1.0)
    bench.report.rows.append(row)


def memory(bench: Bench) -> None:
    """Weigh an idle session (PSS, agent and launcher) at 10, 50 and 200 sessions on bubblewrap.

    A session that was just made has its warm interpreter ready for the first code; it is idle once that has gone.
    """
    servers = bench.stacks.get("bubblewrap")
    if servers is None:
        return
    client = servers.app()
    sessions: list[str] = []
    for count in (10, 50, 200):
        while len(sessions) < count:
            sessions.append(_new_session(client))
        time.sleep(UNTIL_IDLE_S)
        each = servers.pss_bytes() / count
        bench.report.facts[f"memory of an idle session at {count} sessions (MB PSS)"] = round(each / 1e6, 2)
        if count == 50:
            value = Ratio(each / 6e6, each / 6e6, each / 6e6)
            row = Row("idle memory", "PSS a session at 50", "6 MB", each / 1e6, 6.0, "MB", value, 1.0, 4 / 6)
            bench.report.rows.append(row)
    for session in sessions:
        client("DELETE", f"/sessions/{session}")


def listing(bench: Bench) -> None:
    """List sessions with 100 000 in the table, against 100."""
    servers = next(iter(bench.stacks.values()))
    app = servers.app()
    few = Samples("sandboxweb, few sessions")
    many = Samples("sandboxweb, 100 000 sessions")
    for _ in range(bench.rounds):
        few.seconds.append(_timed(lambda: app("GET", "/sessions")))
    servers.fill(100_000)
    for _ in range(bench.rounds):
        many.seconds.append(_timed(lambda: app("GET", "/sessions")))
    bench.report.samples["list sessions"] = {few.side: few, many.side: many}
    bench.compare("list sessions", many.side, few.side)


CASES: dict[str, Callable[[Bench], None]] = {
    "execution": execution,
    "first-result": first_result,
    "termination": termination,
    "import": preloaded_import,
    "throughput": throughput,
    "creates": pooled_creates,
    "memory": memory,
    "listing": listing,
}
