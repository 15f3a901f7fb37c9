from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import rhythm
import tasks  # noqa: F401  (registers them)


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PostgreSQL of this test run's own, gone with it."""
    project = tmp_path_factory.mktemp("rhythm")
    (project / "rhythm.toml").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        return rhythm.database_url()


@pytest_asyncio.fixture
async def client(database_url: str) -> AsyncIterator[rhythm.Client]:
    """A client, with a worker beside it that runs the tasks and workflows of this project."""
    async with rhythm.connect(database_url) as client:
        await client.migrate()
        await client.publish("workflows")
        async with rhythm.Worker(database_url=database_url, poll_interval=0.1):
            yield client
