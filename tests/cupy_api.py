"""What CuPy offers of NumPy's and SciPy's names, with the parameters it takes: python tests/cupy_api.py writes cupy_api.json.

The stand-in for CuPy refuses what is not in that list; test_fake_cupy.py compares it with CuPy where that is installed.
"""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.special

LIST = Path(__file__).with_name("cupy_api.json")
ORIGINALS = {
    "cupy": np,
    "cupy.ndarray": np.ndarray,
    "cupy.linalg": np.linalg,
    "cupyx.scipy.fft": scipy.fft,
    "cupyx.scipy.linalg": scipy.linalg,
    "cupyx.scipy.special": scipy.special,
}


def parameters(function):
    """Names of parameters, "*" where any number of positions is taken and "**" for any names; None where nothing is told."""
    import cupy

    if isinstance(function, cupy.ufunc):
        return [*"*" * (function.nin + function.nout > 0), "out", "casting", "dtype"]
    try:
        given = inspect.signature(function).parameters.values()
        return [{p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, p.name) for p in given if p.name != "self"]
    except (TypeError, ValueError):
        # Compiled methods say it in the first line of their documentation.
        told = re.match(r"[\w.]+\((.*?)\)(?: ->|$|\n)", inspect.getdoc(function) or "", re.DOTALL)
        if told is None:
            return None
        words = [part.split("=")[0].split()[-1] for part in told[1].split(",") if part.split("=")[0].split()]
        return [re.sub(r"^(\*+)\w+$", r"\1", word) for word in words if word not in ("self", "*", "/")]


def described():
    """By module and name."""
    import cupy
    import cupyx.scipy.fft
    import cupyx.scipy.linalg
    import cupyx.scipy.special

    found = {}
    for module, original in ORIGINALS.items():
        place = cupy if module.startswith("cupy.") or module == "cupy" else cupyx
        for part in module.split(".")[1:]:
            place = getattr(place, part)
        names = [name for name in dir(original) if not name.startswith("_") and hasattr(place, name)]
        members = {name: getattr(place, name) for name in names}
        found[module] = {
            name: parameters(member) if callable(member) and not isinstance(member, type) else None
            for name, member in members.items()
            if not inspect.ismodule(member)
        }
    return found


if __name__ == "__main__":
    LIST.write_text(json.dumps(described()).replace("}, ", "},\n").replace("], ", "],\n").replace("null, ", "null,\n") + "\n")
