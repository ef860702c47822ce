"""What to do about a module or package that code wants and the sandbox has not: a sentence or two."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from sessions_app.services.hints.library_names import in_standard_library, npm_package, python_library

PYTHON = re.compile(r"^(?:ModuleNotFoundError|ImportError): No module named '?([\w.]{1,200})'?", re.MULTILINE)
SHARED_OBJECT = re.compile(r"^(?:ImportError|OSError): (lib[\w.+-]{1,100}\.so[\w.]*): cannot open shared", re.MULTILINE)
OPTIONAL = re.compile(r"Missing optional dependency '([\w.-]{1,100})'")
JAVASCRIPT = re.compile(r"Cannot find (?:module|package) '([^'\n]{1,200})'")
R = re.compile(r"there is no package called .([\w.]{1,100})")
RUBY = re.compile(r"cannot load such file -- ([\w/.-]{1,200})")
GO = re.compile(
    r"(?:no required module provides|cannot find) package \"?([\w./-]{1,200})"
    r"|package ([\w./-]{1,200}) is not in (?:std|GOROOT)"
)
JAVA = re.compile(r"error: package ([\w.]{1,200}) does not exist")
CPP = re.compile(r"fatal error: ([\w./+-]{1,200}): No such file or directory")


def missing_library(lang: str, said: str, *, libraries: Sequence[str] = ()) -> str:
    """Return a hint when the words of an error are about a missing module or package, else nothing."""
    if lang == "python":
        return _python(said, libraries)
    if lang == "javascript":
        return _javascript(said, libraries)
    found = PATTERNS[lang].search(said) if lang in PATTERNS else None
    if found is None:
        return ""
    name = next(group for group in found.groups() if group)
    return _ruby(name) if lang == "ruby" else _not_in_image(name)


def again_with(name: str) -> str:
    """Return how to add a library."""
    return f'Run the code again with "libraries": {json.dumps([name])}'


def _python(said: str, libraries: Sequence[str]) -> str:
    shared = SHARED_OBJECT.search(said)
    if shared is not None:
        if shared[1].startswith(("libGL", "libgthread", "libSM", "libXext")) and "cv2" in said:
            return f"This build of OpenCV wants a screen. {again_with('opencv-python-headless')}."
        return f"A module needs the system library {shared[1]}, which this sandbox has not. Use another library."
    optional = OPTIONAL.search(said)
    if optional is not None:
        return f"What the code does needs the library {optional[1]} too. {again_with(optional[1])}."
    found = PYTHON.search(said)
    if found is None or found[1] == "pip":
        return ""
    module = found[1]
    known = python_library(module)
    if known is None and in_standard_library(module):
        return f"`{module}` is part of Python, but this sandbox's Python comes without it; it cannot be added."
    library = known or module.split(".")[0]
    if _has(libraries, library):
        return f"The library {library} is installed, but has no module `{module}`. Look at its version and the name."
    if "." in module and known is None:
        return f"There is a `{library}`, but it has no module `{module}`. Look at its version and the name."
    if known is not None:
        return f"The module `{module}` is not installed; it comes with the library {library}. {again_with(library)}."
    return (
        f"The module `{module}` is not installed. {again_with(library)} if that is the library's name;"
        " a file of your own must lie in /sandbox."
    )


def _javascript(said: str, libraries: Sequence[str]) -> str:
    found = JAVASCRIPT.search(said)
    if found is None:
        return ""
    package = npm_package(found[1])
    if package is None:
        return f"There is no file `{found[1]}`. Files of your own must lie in /sandbox."
    if _has(libraries, package):
        return f"The package {package} is installed, but has no `{found[1]}`. Look at its version and the name."
    return f"The package {package} is not installed. {again_with(package)}."


def _ruby(name: str) -> str:
    if name.startswith((".", "/")):
        return f"There is no file `{name}`. Files of your own must lie in /sandbox."
    return _not_in_image(name.split("/")[0])


def _not_in_image(name: str) -> str:
    """What only a language's own package manager could fetch has to be in the image."""
    return f"There is no `{name}` in this sandbox, and it cannot be added. Do without it."


def _has(libraries: Sequence[str], name: str) -> bool:
    """Tell whether a library was asked for, with or without a version."""
    asked = {re.split(r"[\[<>=!~ ]|(?<=.)@", library, maxsplit=1)[0] for library in libraries}
    return _normal(name) in {_normal(one) for one in asked}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PATTERNS = {"r": R, "ruby": RUBY, "go": GO, "java": JAVA, "cpp": CPP}
