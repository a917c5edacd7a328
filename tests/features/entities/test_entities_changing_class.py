"""A class that changes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from perdure import App, EntityId, Hub, Store
from tests.runtime.harness import made


def make_v1() -> tuple[App, Any]:
    v1 = App()

    @v1.entity(name="profile")
    class Profile:
        name: str = ""
        obsolete: int = 0

        def rename(self, name: str) -> None:
            self.name = name
            self.obsolete += 1

    return v1, Profile


async def store_v1(store: Store) -> None:
    v1, profile = make_v1()
    async with Hub(v1, store=store) as hub:
        await hub.client.call_entity(EntityId(profile, "p"), "rename", "Ada Lovelace")


@pytest.mark.by_turns
async def test_a_new_field_gets_its_default_and_a_dropped_one_is_ignored(store: Store) -> None:
    await store_v1(store)
    v2 = App()

    @v2.entity(name="profile")
    class Profile:
        name: str = ""
        emails: list[str] = ["none yet"]

        def get(self) -> str:
            return f"{self.name} {self.emails}"

    async with Hub(v2, store=store) as hub:
        assert await hub.client.call_entity(EntityId(Profile, "p"), Profile.get) == (
            "Ada Lovelace ['none yet']"
        )
        assert await hub.client.read_entity_state(EntityId(Profile, "p")) == made(
            Profile, name="Ada Lovelace", emails=["none yet"]
        )


@pytest.mark.by_turns
async def test_upgrade_takes_stored_fields_to_the_present_schema_version(store: Store) -> None:
    await store_v1(store)
    v2 = App()

    @v2.entity(name="profile")
    class Profile:
        schema_version: ClassVar[int] = 2
        first: str = ""
        last: str = ""

        @classmethod
        def upgrade(cls, stored: dict[str, Any], version: int) -> dict[str, Any]:
            assert version == 1
            first, last = stored["name"].split()
            return {"first": first, "last": last}

        def get(self) -> list[str]:
            return [self.first, self.last]

        def swap(self) -> None:
            self.first, self.last = self.last, self.first

    profile = EntityId(Profile, "p")
    async with Hub(v2, store=store) as hub:
        assert await hub.client.read_entity_state(profile) == made(
            Profile, first="Ada", last="Lovelace"
        )
        assert await hub.client.call_entity(profile, Profile.get) == ["Ada", "Lovelace"]
        await hub.client.call_entity(profile, Profile.swap)

    async with Hub(v2, store=store) as hub:
        assert await hub.client.call_entity(profile, Profile.get) == ["Lovelace", "Ada"]
