"""The generated stubs are what their generator makes of the service's description, and nobody has touched them."""

from pathlib import Path

from tests.checks.sources import ROOT
from tests.checks.stubs import GENERATED, PACKAGE, generate


def test_generating_the_stubs_anew_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / PACKAGE).mkdir(parents=True)
    generate(tmp_path)
    made = sorted(path.name for path in (tmp_path / PACKAGE).iterdir())
    assert made == sorted(GENERATED)
    changed = [
        name for name in made if (ROOT / PACKAGE / name).read_bytes() != (tmp_path / PACKAGE / name).read_bytes()
    ]
    assert changed == [], "run `make proto` and commit what it writes"
