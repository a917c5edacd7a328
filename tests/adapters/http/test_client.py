from __future__ import annotations

import ssl
from typing import Any

import pytest

from perdure.adapters.http.client import HttpTransport


@pytest.mark.parametrize(("address", "count"), [("http://hub:1", 0), ("https://hub:1", 1)])
def test_who_may_vouch_for_a_hub_is_read_only_for_an_address_with_tls(
    address: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []
    make = ssl.create_default_context

    def make_and_note(*given: Any, **named: Any) -> ssl.SSLContext:
        made.append(make(*given, **named))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", make_and_note)

    HttpTransport(address, None)

    assert len(made) == count
    assert all(one.verify_mode is ssl.CERT_REQUIRED and one.check_hostname for one in made)
