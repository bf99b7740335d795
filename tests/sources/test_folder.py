"""Local folders: what lies in them is read, what leads out of them is not, and nothing hangs."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from lorascope.sources.checkpoint.safetensors import open_checkpoint
from lorascope.sources.checkpoint.types import Files, Span
from lorascope.sources.files.folder import MOST_READ, Folder, open_folder
from tests.helpers.samples import fails
from tests.helpers.sparse_checkpoints import write_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model(path: Path, content: str = "0123456789") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_text(content, encoding="utf-8")
    return path


def test_the_files_of_a_folder(tmp_path: Path) -> None:
    model(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / ".hidden").touch()
    files: Files = open_folder(tmp_path)
    assert (files.where, files.commit, files.names) == (str(tmp_path), "", {"model.safetensors", ".hidden"})
    assert [files.size(name) for name in sorted(files.names)] == [0, 10]
    with fails(f"{tmp_path}: '1_Pooling' is a folder", "→"):
        files.size("1_Pooling")
    for name in ("none", "1_Pooling/config.json", "../" + tmp_path.name + "/model.safetensors", "/etc/passwd", ""):
        with fails(f"{tmp_path}: {name!r} is not there", "→"):
            files.read([Span(name, 0, 1)])


def test_spans_in_any_order_and_past_the_end(tmp_path: Path) -> None:
    (model(tmp_path) / "b").write_bytes(b"abc")
    spans = [
        ("b", 1, 2),
        ("model.safetensors", 5, 7),
        ("b", 0, 9),
        ("model.safetensors", 8, 99),
        ("b", 50, 60),
        ("b", 1, 1),
    ]
    read = open_folder(tmp_path).read([Span(*span) for span in spans])
    assert read == [b"b", b"56", b"abc", b"89", b"", b""]
    assert open_folder(tmp_path).read([]) == []


def test_no_more_is_read_than_headers_need(tmp_path: Path) -> None:
    with (model(tmp_path) / "model.safetensors").open("wb") as file:
        file.truncate(10**12)
    files = open_folder(tmp_path)
    assert files.size("model.safetensors") == 10**12
    with fails(f"{tmp_path}: {MOST_READ + 1} bytes are requested, more than the {MOST_READ} that are read"):
        files.read([Span("model.safetensors", 0, MOST_READ), Span("model.safetensors", 5, 6)])
    assert files.read([Span("model.safetensors", 10**12 - 2, 10**12 + 5)]) == [b"\0\0"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.touch(), "Not a directory"),
        (lambda path: os.mkfifo(path), "Not a directory"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
    ids=["nothing", "file", "pipe", "loop"],
)
def test_what_is_no_folder(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    with fails(f"'{tmp_path}/it': no folder that can be read: ", said):
        open_folder(tmp_path / "it")


def test_a_path_that_no_file_has(tmp_path: Path) -> None:
    with fails("no folder that can be read"):
        open_folder(tmp_path / "a\0b")


# Links.


def test_links_within_the_folder(tmp_path: Path) -> None:
    (model(tmp_path / "model") / "sub").mkdir()
    (tmp_path / "model" / "sub" / "deep").write_text("deep", encoding="utf-8")
    (tmp_path / "model" / "a").symlink_to("model.safetensors")
    (tmp_path / "model" / "b").symlink_to(tmp_path / "model" / "a")
    (tmp_path / "model" / "c").symlink_to("sub/deep")
    (tmp_path / "model" / "d").symlink_to("sub/../../model/a")
    (tmp_path / "link").symlink_to("model")
    for folder in (tmp_path / "model", tmp_path / "link"):
        files = open_folder(folder)
        assert files.names == {"a", "b", "c", "d", "model.safetensors"}
        assert files.read([Span(name, 0, 4) for name in "abcd"]) == [b"0123", b"0123", b"deep", b"0123"]


@pytest.mark.parametrize(
    "target",
    ["../secret", "../model-2/secret", "/etc/passwd", "/dev/zero", "sub/../../secret", "/proc/self/environ", "up"],
)
def test_links_that_lead_out(target: str, tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (folder / "sub").mkdir()
    (folder / "up").symlink_to("../secret")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (model(tmp_path / "model-2") / "secret").write_text("secret", encoding="utf-8")
    (folder / "notes.txt").symlink_to(target)
    files = open_folder(folder)
    assert files.names == {"model.safetensors"}
    reason = "is a device" if target == "/dev/zero" else "is a link that leads out of the folder, to '/"
    with fails(f"{folder}: 'notes.txt' {reason}", "→ Put the file itself into the folder"):
        files.size("notes.txt")
    (folder / "notes.txt").rename(folder / "config.json")
    with fails(f"{folder}: 'config.json' {reason}", "→ Put the file itself into the folder"):
        open_folder(folder)


def test_all_bad_entries_at_once(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (folder / "config.json").symlink_to("/etc/passwd")
    (folder / "a.safetensors").symlink_to("none")
    (folder / "b.safetensors").symlink_to("b.safetensors")
    (folder / "c.safetensors").mkdir()
    os.mkfifo(folder / "d.safetensors")
    os.mkfifo(folder / "e.gguf")
    (folder / "model.safetensors.index.json").symlink_to("..")
    os.mkfifo(folder / "README.md")
    with fails(
        "7 faults", "'config.json' is a link that", "'a.safetensors' leads nowhere: No such", "'b.safetensors' leads"
    ):
        open_folder(folder)
    with fails(
        "'c.safetensors' is a folder", "'d.safetensors' is a named pipe", "'e.gguf' is a named pipe", "is a folder"
    ):
        open_folder(folder)


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # whose path may be too long for one
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("model.safetensors")
        with fails("'model.safetensors' is a socket, which is not opened"):
            open_folder(tmp_path)


# What takes a file's place after the folder was listed.


def test_a_pipe_in_a_files_place_does_not_hang(tmp_path: Path) -> None:
    files = open_folder(model(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model.safetensors")
    for ask in (lambda: files.size("model.safetensors"), lambda: files.read([Span("model.safetensors", 0, 1)])):
        with fails("'model.safetensors' is not a plain file any more"):
            ask()


def test_a_link_in_a_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    files = open_folder(model(tmp_path / "model"))
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / "model.safetensors").symlink_to(tmp_path / "secret")
    with fails("'model.safetensors' cannot be read: ", "→ Check that it is there and that you may read it"):
        files.read([Span("model.safetensors", 0, 6)])


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    files = open_folder(model(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with fails("'model.safetensors' cannot be read: No such file or directory"):
        files.size("model.safetensors")


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: object, **options: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    files = open_folder(model(tmp_path))
    monkeypatch.setattr(os, "open", denied)  # root, whom tests may run as, may read everything
    with fails("'model.safetensors' cannot be read: Permission denied"):
        files.size("model.safetensors")
    monkeypatch.setattr(os, "listdir", denied)
    monkeypatch.setattr(os, "scandir", denied)
    with fails("no folder that can be read: Permission denied"):
        open_folder(tmp_path)


# The Hugging Face cache.


def snapshot(cache: Path, repository: str = "models--owner--name") -> Path:
    """A snapshot as huggingface_hub lays it out: links to blobs beside it."""
    made = write_checkpoint(cache / "made", {"a": ("F32", (2,))}, config={"model_type": "mine"})
    folder = cache / repository / "snapshots" / COMMIT
    for path in (folder, cache / repository / "blobs", cache / repository / "refs"):
        path.mkdir(parents=True)
    (cache / repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    for number, file in enumerate(sorted(made.iterdir())):
        file.rename(cache / repository / "blobs" / f"{number:064}")
        (folder / file.name).symlink_to(f"../../blobs/{number:064}")
    made.rmdir()
    return folder


def test_a_snapshot_of_the_hugging_face_cache(tmp_path: Path) -> None:
    folder = snapshot(tmp_path)
    (tmp_path / "elsewhere").symlink_to(folder)
    scanned = huggingface_hub.scan_cache_dir(tmp_path)  # which knows the layout
    assert [repo.repo_id for repo in scanned.repos] == ["owner/name"]
    for path in (folder, tmp_path / "elsewhere"):
        assert open_folder(path).names == {"config.json", "model.safetensors"}
        assert list(open_checkpoint(open_folder(path)).tensors) == ["a"]


def test_the_store_that_repositories_of_a_cache_share(tmp_path: Path) -> None:
    """huggingface_hub moves what it downloaded to `blobs/ab/<hash>` of the cache and leaves a link to it."""
    from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store

    folder = snapshot(tmp_path)
    blob = (folder / "model.safetensors").resolve()
    publish_blob_to_shared_store(
        blob_path=blob, xet_hash="ab" * 32, cache_dir=tmp_path, expected_size=blob.stat().st_size
    )
    real = (folder / "model.safetensors").resolve()
    assert real.relative_to(tmp_path).parts[:2] == ("blobs", "ab")
    assert list(open_checkpoint(open_folder(folder)).tensors) == ["a"]
    real.rename(tmp_path / "blobs" / "ab" / "odd")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "blobs" / "ab" / "odd")
    with fails("'model.safetensors' is a link that leads out of the folder"):
        open_folder(folder)


def refused(folder: Path) -> str:
    with fails("'config.json' is a link that leads out of the folder", "'model.safetensors' is a link that") as caught:
        open_folder(folder)
    return str(caught.value)


def test_blobs_count_in_a_snapshot_only(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "cache", "owner-name")
    assert "2 faults" in refused(folder)  # no repository's name
    other = snapshot(tmp_path / "other")
    (other.parent / "link").symlink_to(other)
    assert open_folder(other.parent / "link").names == {"config.json", "model.safetensors"}
    moved = other.parent.rename(other.parent.parent / "versions") / COMMIT
    assert "2 faults" in refused(moved)


def test_blobs_of_another_repository_do_not_count(tmp_path: Path) -> None:
    first, second = snapshot(tmp_path), snapshot(tmp_path, "models--owner--other")
    for name in ("config.json", "model.safetensors"):
        (second / name).unlink()
        (second / name).symlink_to((first / name).resolve())
    assert "2 faults" in refused(second)


def test_blobs_that_are_a_link_do_not_count(tmp_path: Path) -> None:
    folder = snapshot(tmp_path)
    blobs = tmp_path / "models--owner--name" / "blobs"
    blobs.rename(tmp_path / "moved")
    blobs.symlink_to(tmp_path / "moved")
    assert "2 faults" in refused(folder)


def test_a_folder_is_a_value(tmp_path: Path) -> None:
    assert open_folder(model(tmp_path)) == open_folder(tmp_path)
    assert isinstance(open_folder(tmp_path), Folder)
    assert repr(open_folder(tmp_path)).count(str(tmp_path)) == 1
