"""What data libraries show in a context, in the image that has them."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from proxy_service.backends.base import Limits, Sandbox
from proxy_service.backends.docker import DockerBackend
from proxy_service.images import image_name
from tests.proxy_service.backends.conftest import MIB, SPEC, fresh_name, make_settings, run
from tests.proxy_service.backends.test_contexts import errors, results

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

LIMITS = Limits(memory_bytes=768 * MIB, cpus=2.0, pids=64, disk_bytes=64 * MIB)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def data(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A session's sandbox with pandas and matplotlib warm."""
    settings = make_settings(tmp_path_factory.mktemp("data"), start_timeout_s=90.0)
    backend = DockerBackend(settings)
    await backend.start()
    preload = ("numpy", "pandas", "matplotlib.pyplot")
    spec = replace(SPEC, image=image_name(settings, "python-data"), limits=LIMITS, preload=preload)
    sandbox = await backend.create(spec, fresh_name())
    await sandbox.assign("session", "digest", {})
    yield sandbox
    await sandbox.destroy()
    await backend.close()


def pixels(png: bytes) -> tuple[int, int, set[bytes]]:
    """Return width, height and the distinct rows of a PNG's raw data: a blank picture has one or two."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    packed, start, size = b"", 8, (0, 0, 0)
    while start < len(png):
        (length,) = struct.unpack_from(">I", png, start)
        kind, body = png[start + 4 : start + 8], png[start + 8 : start + 8 + length]
        start += 12 + length
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack_from(">IIBB", body)
            size = (width, height, width * {2: 3, 6: 4}[color] * depth // 8)
        elif kind == b"IDAT":
            packed += body
    raw = zlib.decompress(packed)
    row = size[2] + 1
    assert len(raw) == row * size[1]
    return size[0], size[1], {raw[at : at + row] for at in range(0, len(raw), row)}


async def test_a_figure_that_is_shown_is_a_picture_and_nothing_is_shown_twice(data: Sandbox, tmp_path: Path) -> None:
    code = (
        "import numpy as np, matplotlib.pyplot as plt\n"
        "x = np.linspace(0, 10, 200)\n"
        "plt.plot(x, np.sin(x), label='sine')\nplt.title('A wave')\nplt.legend()\nplt.show()\n"
        "print('drawn')"
    )
    done = await run(data, code, context="default")
    (shown,) = results(done)
    assert done.stdout == "drawn\n"
    assert done.stderr == ""
    assert shown["text"].startswith("<Figure size 640x480")
    width, height, rows = pixels(base64.b64decode(shown["png"]))
    assert 400 < width < 800
    assert 300 < height < 600
    assert len(rows) > 100
    assert results(await run(data, "1 + 1", context="default")) == [{"text": "2", "is_main_result": True}]


async def test_figures_left_open_are_shown_at_the_end_each_once(data: Sandbox) -> None:
    code = "fig, ax = plt.subplots()\nax.bar([1, 2], [3, 4])\nplt.figure()\nplt.plot([1, 2])\nfig"
    shown = results(await run(data, f"import matplotlib.pyplot as plt\n{code}", context="default"))
    assert [sorted(result) for result in shown] == [["is_main_result", "png", "text"]] * 2
    assert [result["is_main_result"] for result in shown] == [True, False]
    quiet = "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()"
    assert ["png" in result for result in results(await run(data, quiet, context="default"))] == [True]


async def test_a_figure_shows_itself_and_pandas_draws(data: Sandbox) -> None:
    code = "import pandas as pd\nax = pd.Series([1, 3, 2]).plot()\nax.figure.show()\nprint('after')"
    done = await run(data, code, context="default")
    assert ["png" in result for result in results(done)] == [True]
    kinds = [event.type for event in done.events]
    assert kinds.index("result") < kinds.index("stdout")


async def test_a_table_is_html_and_text(data: Sandbox) -> None:
    code = "import pandas as pd\ndf = pd.DataFrame({'city': ['Bonn', '<b>'], 'size': [1.5, 2]})\ndf"
    (shown,) = results(await run(data, code, context="default"))
    assert shown["is_main_result"] is True
    assert "<table" in shown["html"]
    assert "<td>Bonn</td>" in shown["html"]
    assert "<td>&lt;b&gt;</td>" in shown["html"]
    assert shown["text"].splitlines()[0].split() == ["city", "size"]


async def test_pictures_and_displays_of_ipython_are_shown(data: Sandbox) -> None:
    code = (
        "from IPython.display import HTML, Markdown, SVG, Latex, JSON, Javascript, Image, display\n"
        "from PIL import Image as Picture\n"
        "display(HTML('<i>h</i>'), Markdown('*m*'))\n"
        "display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'), Latex('$x$'), Javascript('1'))\n"
        "Picture.new('RGB', (3, 2), 'red').save('red.png')\n"
        "display(Image('red.png'))\n"
        "Picture.new('RGB', (30, 20), 'red')"
    )
    done = await run(data, code, context="default")
    assert errors(done) == []
    html, markdown, svg, latex, script, file, picture = results(done)
    assert (html["html"], markdown["markdown"], latex["latex"], script["javascript"]) == ("<i>h</i>", "*m*", "$x$", "1")
    assert svg["svg"].startswith("<svg")
    assert pixels(base64.b64decode(file["png"]))[:2] == (3, 2)
    assert pixels(base64.b64decode(picture["png"]))[:2] == (30, 20)
    assert picture["is_main_result"] is True


async def test_a_drawing_that_fails_fails_alone(data: Sandbox) -> None:
    bad = "import matplotlib.pyplot as plt\nplt.title('$\\\\nowhere$')\nplt.plot([1])"
    done = await run(data, f"{bad}\nplt.figure()\nplt.plot([2])\nprint('well')", context="default")
    assert (done.stdout, done.exit["exit_code"]) == ("well\n", 0)
    assert "nowhere" in done.stderr
    assert ["png" in result for result in results(done)] == [True]
    # Neither is it in the way of what comes later.
    later = await run(data, "plt.figure()\nplt.plot([3])\nplt.show()", context="default")
    assert (["png" in result for result in results(later)], later.stderr) == ([True], "")
    assert results(await run(data, "'next'", context="default"))[0]["text"] == "'next'"
