"""Where the page is served, and what it needs."""

from __future__ import annotations

import socket

import pytest

from instructblip.demo import serving


def test_a_port_that_is_taken_is_refused_and_0_finds_one() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port={taken} cannot be served at .*port=0"):
            serving.free_port("127.0.0.1", taken)
        assert serving.free_port("127.0.0.1", 0) not in (0, taken)
    for host, port in (("127.0.0.1", 70_000), ("192.0.2.1", 0)):
        with pytest.raises(ValueError, match=f"host={host} port={port}"):
            serving.free_port(host, port)


def test_without_gradio_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'instructblip\[demo\]'"):
        serving.require_gradio()
