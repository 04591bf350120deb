"""What somebody asks about himself over GraphQL: who he is, where he is signed in, which first steps are left, and his keys."""

from tests.api.conftest import Client, problem_of
from tests.api.graphql import data, nodes, refusal
from tests.api.world import World

ME = "{ me { id email firstName actions establishments hasTotp sessionId apiKeyId organizationId version } }"
SESSIONS = "{ sessions { totalCount edges { node { id isCurrent userAgent user { email } } } } }"
SESSIONS_OF = "query($id: UUID!) { userSessions(id: $id, first: 1) { totalCount edges { node { id userId } } } }"
KEYS_OF = "query($id: UUID!) { userApiKeys(id: $id) { totalCount edges { node { id name } } } }"
CHANGE_KEY = """mutation($id: UUID!, $input: ApiKeyChange!, $version: Int) {
    changeApiKey(id: $id, input: $input, version: $version) { name actions expiresAt version } }"""


async def test_everybody_reads_who_he_is_as_over_rest(api: Client, world: World) -> None:
    told = (await data(api, world.custom, ME))["me"]
    over_rest = (await api.get("/api/v1/me", headers=world.custom.headers)).json()
    assert (told["id"], told["actions"], told["establishments"], told["sessionId"]) == (
        over_rest["id"],
        over_rest["actions"],
        over_rest["establishments"],
        over_rest["session_id"],
    )
    assert told["organizationId"] == str(world.tenant.id)


async def test_everybody_changes_his_own_names(api: Client, world: World) -> None:
    change = "mutation($input: ProfileChange!, $version: Int) { changeMe(input: $input, version: $version) { firstName lastName } }"
    changed = await data(api, world.user, change, input={"firstName": "Eva"}, version=1)
    assert changed["changeMe"] == {"firstName": "Eva", "lastName": "Soto"}
    await refusal(api, world.user, change, "resource.stale", input={"firstName": "Ida"}, version=1)
    await refusal(api, world.user, change, "request.invalid", input={"firstName": ""})


async def test_everybody_sees_and_ends_his_own_sessions(api: Client, world: World) -> None:
    world.give_password(world.user)
    credentials = {"email": world.user.email, "password": "seven otters juggle plums"}
    other = (await api.post("/api/v1/auth/login", json=credentials)).json()
    found = (await data(api, world.user, SESSIONS))["sessions"]
    assert found["totalCount"] == 2
    current = {node["id"]: node["isCurrent"] for node in nodes(found)}
    assert current == {str(world.user.session_id): True, other["session_id"]: False}
    end = "mutation($id: UUID!) { endSession(id: $id) }"
    assert await data(api, world.user, end, id=other["session_id"]) == {"endSession": other["session_id"]}
    refused = await api.get("/api/v1/me", headers={"Authorization": f"Bearer {other['access_token']}"})
    problem_of(refused, 401, "identity.unauthenticated")
    await refusal(api, world.user, end, "resource.not-found", id=str(world.other_chief.session_id))


async def test_sessions_and_keys_of_others_are_for_those_who_look_after_them(api: Client, world: World) -> None:
    key = str(world.new_api_key(world.user))
    sessions = (await data(api, world.chief, SESSIONS_OF, id=str(world.user.id)))["userSessions"]
    assert [node["userId"] for node in nodes(sessions)] == [str(world.user.id)]
    assert [
        node["id"] for node in nodes((await data(api, world.admin, KEYS_OF, id=str(world.user.id)))["userApiKeys"])
    ] == [key]
    end_all = "mutation($id: UUID!) { endUserSessions(id: $id) }"
    for query in (SESSIONS_OF, KEYS_OF, end_all):
        await refusal(api, world.admin, query, "users.beyond-your-establishments", id=str(world.chief.id))
        await refusal(api, world.chief, query, "resource.not-found", id=str(world.other_chief.id))
        await refusal(api, world.user, query, "resource.not-found", id=str(world.chief.id))
    assert await data(api, world.chief, end_all, id=str(world.user.id)) == {"endUserSessions": str(world.user.id)}
    problem_of(await api.get("/api/v1/me", headers=world.user.headers), 401, "identity.unauthenticated")


async def test_its_owner_changes_a_key(api: Client, world: World) -> None:
    key = str(world.new_api_key(world.chief))
    wanted = {"name": "meters", "actions": ["read_device"], "expiresAt": "2038-01-01T00:00:00Z"}
    changed = (await data(api, world.chief, CHANGE_KEY, id=key, input=wanted, version=1))["changeApiKey"]
    assert (changed["name"], changed["actions"], changed["version"]) == ("meters", ["read_device"], 2)
    assert changed["expiresAt"].startswith("2038-01-01T00:00:00")
    kept = await data(api, world.chief, CHANGE_KEY, id=key, input={"name": "other"})
    assert kept["changeApiKey"]["expiresAt"] is not None
    emptied = await data(api, world.chief, CHANGE_KEY, id=key, input={"expiresAt": None})
    assert emptied["changeApiKey"]["expiresAt"] is None
    await refusal(api, world.chief, CHANGE_KEY, "resource.stale", id=key, input={"name": "x"}, version=1)
    await refusal(api, world.root, CHANGE_KEY, "api-keys.not-yours", id=key, input={"name": "x"})
    too_many = {"requestsPerMinute": 99_999}
    await refusal(api, world.chief, CHANGE_KEY, "request.invalid", id=key, input=too_many)


async def test_the_first_steps_are_those_of_rest_and_are_put_away_once(api: Client, world: World) -> None:
    query = "{ onboarding { isReady onboardedAt steps { name isDone isOptional href } } }"
    told = (await data(api, world.user, query))["onboarding"]
    over_rest = (await api.get("/api/v1/onboarding", headers=world.user.headers)).json()
    assert [step["name"] for step in told["steps"]] == [step["name"] for step in over_rest["steps"]]
    complete = "mutation($key: String) { completeOnboarding(idempotencyKey: $key) { onboardedAt } }"
    assert (await refusal(api, world.user, complete, "onboarding.steps-left"))["steps"] == ["choose_password"]
    world.give_password(world.user)
    first = await data(api, world.user, complete, key="once")
    assert first["completeOnboarding"]["onboardedAt"] is not None
    assert await data(api, world.user, complete, key="once") == first


async def test_an_api_key_reads_whose_it_is_and_no_sessions(api: Client, world: World) -> None:
    headers = {"X-API-Key": world.add_api_key(world.chief, ["read_device"])}
    answer = (await api.post("/graphql", headers=headers, json={"query": ME})).json()
    assert (answer["data"]["me"]["id"], answer["data"]["me"]["sessionId"]) == (str(world.chief.id), None)
    answer = (await api.post("/graphql", headers=headers, json={"query": SESSIONS})).json()
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["identity.session-needed"]
