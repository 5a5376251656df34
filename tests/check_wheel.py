"""Build the wheel, install it with a third party's plugin into a fresh environment outside the checkout, and use both.

Run by `make wheel`. Everything happens in a temporary folder; only the pip cache is shared with the checkout.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUP = "guided_dlm.constraints"

USE = """
from pathlib import Path

import guided_dlm
from guided_dlm import GuidedPipeline, registry

assert not Path(guided_dlm.__file__).is_relative_to({root!r}), "the checkout was imported, not the wheel"
for name in {built_ins!r}:
    registry.get(name)
constraint = registry.get("starts-with")("The ")
texts = GuidedPipeline.from_pretrained("restaurant-words")(constraint=constraint, num_samples=2, steps=8, seed=0).texts
assert all(text.startswith("The ") for text in texts), texts
print(*texts, sep="\\n")
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command away from the checkout and without its settings; return what it printed."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nThis command failed with status {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def declared(pyproject: Path) -> set[str]:
    """The constraint names that a pyproject.toml declares."""
    return set(tomllib.loads(pyproject.read_text())["project"]["entry-points"][GROUP])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="guided-dlm-wheel-") as folder:
        here = Path(folder)
        run(sys.executable, "-m", "build", "--outdir", here / "dist", ROOT, cwd=here)
        (wheel,) = (here / "dist").glob("*.whl")
        print(f"built {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")

        venv.create(here / "venv", with_pip=True)
        binaries = here / "venv" / "bin"
        plugin = ROOT / "tests" / "plugin_package"
        run(binaries / "pip", "install", "-q", "--no-compile", "-c", ROOT / "lock.txt", wheel, plugin, cwd=here)

        listing = run(binaries / "guided-dlm", "constraints", cwd=here)
        print(listing)
        built_ins = declared(ROOT / "pyproject.toml")
        missing = sorted(
            name for name in built_ins | declared(plugin / "pyproject.toml") if name not in listing.split()
        )
        if missing:
            sys.exit(f"`guided-dlm constraints` does not list: {', '.join(missing)}.")
        print(run(binaries / "python", "-c", USE.format(root=str(ROOT), built_ins=sorted(built_ins)), cwd=here))


if __name__ == "__main__":
    main()
