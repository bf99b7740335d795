"""A file that a user named is regular and bounded, or it is refused at once."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from lorascope.errors import LorascopeError
from lorascope.sources.files.plain import read_plain


def refusal(path: Path, most: int = 100) -> str:
    """The message of a refusal, which must come within a second: a pipe would block for ever."""
    messages: list[str] = []

    def read() -> None:
        with pytest.raises(LorascopeError) as caught:
            read_plain(path, most, hint="Give a file.")
        messages.append(str(caught.value))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "the reading hangs"
    (message,) = messages
    assert "→ Give a file." in message
    return message


def test_a_file_of_exactly_the_most_bytes_is_read_and_one_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_plain(path, 100) == b"x" * 100
    assert "more than the 99 bytes" in refusal(path, 99)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_plain(tmp_path / "link", 100) == b"content"


def test_a_sparse_file_of_a_terabyte_costs_its_bound_alone(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert "more than the 100 bytes" in refusal(path)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("absent")
    assert "is a named pipe" in refusal(tmp_path / "pipe")
    assert "is a named pipe" in refusal(tmp_path / "to-pipe")
    assert "is a folder" in refusal(tmp_path)
    assert "is a device" in refusal(Path("/dev/zero"))
    assert "cannot be read" in refusal(tmp_path / "loop")
    assert "no such file" in refusal(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as listening:
        place = os.path.relpath(tmp_path / "s") if len(str(tmp_path)) > 90 else str(tmp_path / "s")
        listening.bind(place)
        assert "is a socket" in refusal(tmp_path / "s")


def test_a_pipe_that_takes_the_files_place_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "pipe")
    regular = (tmp_path / "file").stat()
    monkeypatch.setattr(Path, "stat", lambda self: regular)
    assert "is a named pipe" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["absent", "a\0b", "n" * 5000, "\udcff"], ids=["absent", "zero", "long", "surrogate"])
def test_names_that_no_file_has_are_refused(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path / name)
    assert message.isprintable() or message.count("\n") == 1
