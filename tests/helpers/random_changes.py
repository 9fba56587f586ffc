"""Random changes to a work tree, of all kinds that a file system monitor must notice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

NAMES = ["n", "two words", "-x", "new\nline", '"quoted"', "ä", os.fsdecode(b"\xff"), "[a]*?"]
"""Names of files and folders that are difficult for shells, terminals and text files."""


class Changes:
    """Makes one change after another."""

    def __init__(self, tree: Path, seed: int, *, folders: bool = True) -> None:
        """Without `folders` it changes only files, in existing folders."""
        self.tree = tree
        self.random = Random(seed)
        self._makes_folders = folders
        self._kinds = [
            self._create,
            self._create,
            self._rewrite,
            self._rewrite_to_same_size,
            self._delete,
            self._rename,
            self._rename,
            self._toggle_executable,
            self._replace_by_symlink,
            self._write_again,
        ]
        if folders:
            self._kinds += [self._replace_by_folder, self._rename_folder, self._delete_folder]

    def make(self) -> str:
        """Make a change; return its description."""
        while True:
            if what := self.random.choice(self._kinds)():
                return what

    def _paths(self, *, folders: bool) -> list[Path]:
        """All paths, in an order that depends only on the seed."""
        found = []
        for where, subfolders, files in os.walk(self.tree):
            if ".git" in subfolders:
                subfolders.remove(".git")
            if "still" in subfolders:
                subfolders.remove("still")
            subfolders.sort()
            found += [Path(where, name) for name in sorted(subfolders if folders else files)]
        return found

    def _file(self) -> Path | None:
        files = [path for path in self._paths(folders=False) if not path.is_symlink()]
        return self.random.choice(files) if files else None

    def _folder(self) -> Path | None:
        folders = [path for path in self._paths(folders=True) if not path.is_symlink()]
        return self.random.choice(folders) if folders else None

    def _free_path(self) -> Path:
        """Return an unused name; create its folder if needed."""
        while True:
            folders = [self.tree, *self._paths(folders=True)]
            where = self.random.choice([path for path in folders if not path.is_symlink()])
            if self._makes_folders and self.random.random() < 0.3:
                where /= self.random.choice(NAMES)
            path = where / self.random.choice(NAMES)
            if not os.path.lexists(path) and (where.is_dir() or not os.path.lexists(where)):
                return path

    def _text(self) -> str:
        return f"{self.random.random()}\n" * self.random.randint(0, 3)

    def _create(self) -> str:
        path = self._free_path()
        path.parent.mkdir(exist_ok=True)
        path.write_text(self._text())
        return f"created {path}"

    def _rewrite(self) -> str | None:
        if path := self._file():
            path.write_text(self._text())
        return path and f"rewrote {path}"

    def _rewrite_to_same_size(self) -> str | None:
        if path := self._file():
            path.write_bytes(self.random.randbytes(path.stat().st_size))
        return path and f"rewrote {path}, to the same size"

    def _write_again(self) -> str | None:
        if path := self._file():
            path.write_bytes(path.read_bytes())
        return path and f"wrote {path} again"

    def _delete(self) -> str | None:
        if path := self._file():
            path.unlink()
        return path and f"deleted {path}"

    def _rename(self) -> str | None:
        path, to = self._file(), self._free_path()
        if path:
            to.parent.mkdir(exist_ok=True)
            path.rename(to)
        return path and f"renamed {path} to {to}"

    def _toggle_executable(self) -> str | None:
        if path := self._file():
            path.chmod(path.stat().st_mode ^ 0o111)
        return path and f"made {path} executable, or not"

    def _replace_by_symlink(self) -> str | None:
        if path := self._file():
            path.unlink()
            path.symlink_to("elsewhere")
        return path and f"replaced {path} by a symlink"

    def _replace_by_folder(self) -> str | None:
        if path := self._file():
            path.unlink()
            path.mkdir()
            (path / "in it").write_text(self._text())
        return path and f"replaced {path} by a folder"

    def _rename_folder(self) -> str | None:
        path, to = self._folder(), self._free_path()
        if not path or path in to.parents:
            return None
        to.parent.mkdir(exist_ok=True)
        path.rename(to)
        return f"renamed {path}, a folder, to {to}"

    def _delete_folder(self) -> str | None:
        if path := self._folder():
            shutil.rmtree(path)
        return path and f"deleted {path}, a folder"
