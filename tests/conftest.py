import pytest
from hypothesis import settings

import bars

# The same examples every time, however slow the machine: a test that fails must fail again.
settings.register_profile("crnn", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("crnn")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing is taken from what was kept before, nor left in the user's cache; commands that are run inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def bar_model(tmp_path_factory):
    """A model folder whose model reads bars.draw(...)."""
    return bars.write_model(tmp_path_factory.mktemp("bars"))
