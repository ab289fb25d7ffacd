"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def atomic_output(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` when the block ends well, and leaves nothing behind when it does not."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"{path}: not a regular file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {target.parent} does not exist")
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~umask)
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def check_output(path: Path, inputs: Sequence[Path] = (), suffixes: Sequence[str] = ()) -> None:
    """Refuse, before any work is done, an output that could not be written or that is one of the inputs."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: the output must end in {' or '.join(suffixes)}")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise ValueError(f"{path}: the output is also an input; choose another name")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a regular file")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path}: the folder {folder} cannot be written to")


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file."""
    with atomic_output(path) as file:
        file.write(text.encode())
