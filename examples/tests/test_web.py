"""A web application in virtual time, with the framework's own test client."""

from datetime import timedelta
from typing import Any

from fastapi.testclient import TestClient

from examples.web import app, make_web, ship
from perdure.testing import TestHub

INSTANCES = "/hub/runtime/webhooks/durabletask/instances"


def browse(hub: TestHub) -> Any:
    return TestClient(make_web(hub), base_url="http://localhost")


def test_what_nobody_pays_for_within_three_days_is_not_shipped() -> None:
    hub = TestHub(app)
    with browse(hub) as http:
        id = http.post("/orders/tea").json()
        assert http.get(f"{INSTANCES}/{id}").status_code == 202

        hub.sync.advance(timedelta(days=3))

        assert http.get(f"{INSTANCES}/{id}").json()["output"] == "nobody paid for tea"
        assert not hub.calls(ship)


def test_what_is_paid_for_is_shipped() -> None:
    hub = TestHub(app)
    with browse(hub) as http:
        id = http.post("/orders/tea").json()

        http.post(f"{INSTANCES}/{id}/raiseEvent/Paid", json=True)
        hub.sync.quiet()

        assert http.get(f"{INSTANCES}/{id}").json()["output"] == "shipped tea"
