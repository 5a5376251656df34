"""The registry, against real distributions: a dist-info folder and a module, written to a folder on sys.path."""

import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from guided_dlm.errors import BrokenPlugin, DuplicateConstraint, InvalidRequest, NotSerializable, UnknownConstraint
from guided_dlm.registry import GROUP, Registration, Registry

serial = count()
Install = Callable[..., str]

GOOD = """
from guided_dlm.registry import register

@register("{name}")
class Plugin:
    pass
"""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """An empty registry, which modules imported by the test register into."""
    fresh = Registry()
    monkeypatch.setattr("guided_dlm.registry.register", fresh.register)
    return fresh


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with one entry point; returns the name of its module."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, source: str = GOOD, distribution: str = "fake-plugin", attribute: str = "Plugin") -> str:
        module = f"fake_plugin_{next(serial)}"
        (tmp_path / f"{module}.py").write_text(source.format(name=name))
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {module}:{attribute}\n")
        return module

    return write


def test_names_and_describe_import_no_plugin(registry: Registry, install: Install) -> None:
    module = install("palindrome")
    assert "palindrome" in registry.names()
    assert Registration("palindrome", f"{module}:Plugin", "fake-plugin", "1.2") in registry.describe()
    assert module not in sys.modules


def test_the_module_needs_no_third_party_library() -> None:
    code = "import sys, guided_dlm.registry as r; r.names(); r.describe(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_built_ins_are_found_through_entry_points(registry: Registry) -> None:
    assert {"length", "words", "regex", "choice", "template"} <= set(registry.names())


def test_get_imports_the_named_plugin_and_no_other(registry: Registry, install: Install) -> None:
    wanted = install("wanted", distribution="wanted-plugin")
    other = install("other", distribution="other-plugin")
    cls = registry.get("wanted")
    assert (cls.__module__, cls.__qualname__) == (wanted, "Plugin")
    assert registry.get("wanted") is cls
    assert other not in sys.modules


def test_name_of_inverts_get(registry: Registry, install: Install) -> None:
    install("palindrome")
    assert registry.name_of(registry.get("palindrome")) == "palindrome"


def test_register_writes_the_name_to_the_class(registry: Registry) -> None:
    @registry.register("mine")
    class Mine:
        name: str

    assert Mine.name == "mine"
    assert registry.names().count("mine") == 1
    assert Registration("mine", f"{__name__}:{Mine.__qualname__}", "this process", "") in registry.describe()


def test_a_subclass_does_not_inherit_the_name(registry: Registry) -> None:
    @registry.register("parent")
    class Parent:
        pass

    class Child(Parent):
        pass

    with pytest.raises(NotSerializable, match=r"Child has no registered name"):
        registry.name_of(Child)


def test_a_typo_suggests_the_near_name_and_the_command(registry: Registry) -> None:
    with pytest.raises(UnknownConstraint, match=r"named 'lenght'\. Did you mean 'length'\?.*guided-dlm constraints"):
        registry.get("lenght")


def test_a_name_like_no_other_suggests_nothing(registry: Registry) -> None:
    with pytest.raises(UnknownConstraint) as caught:
        registry.get("qqqqqqqq")
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "Length", "two words", "-x", "x-", "3d", None, Registry])
def test_a_malformed_name_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a constraint name"):
        registry.register(name)


def test_two_classes_cannot_share_a_name(registry: Registry) -> None:
    @registry.register("shared")
    class First:
        pass

    with pytest.raises(DuplicateConstraint, match=r"Second cannot register .*'shared'.*First \(this process\)"):

        @registry.register("shared")
        class Second:
            pass

    assert registry.get("shared") is First


def test_a_class_cannot_take_the_name_of_a_plugin_nobody_imported_yet(registry: Registry, install: Install) -> None:
    module = install("palindrome")
    with pytest.raises(DuplicateConstraint, match=rf"Mine cannot register .*{module}:Plugin \(fake-plugin 1\.2\)"):

        @registry.register("palindrome")
        class Mine:
            pass

    assert registry.get("palindrome").__module__ == module


def test_two_distributions_cannot_share_a_name_even_after_one_is_imported(registry: Registry, install: Install) -> None:
    first = install("palindrome", distribution="first-plugin")
    install("palindrome", distribution="second-plugin")
    for _ in range(2):
        with pytest.raises(DuplicateConstraint) as caught:
            registry.get("palindrome")
        assert "(first-plugin 1.2)" in str(caught.value)
        assert "(second-plugin 1.2)" in str(caught.value)
        __import__(first)
    assert [row.distribution for row in registry.describe() if row.name == "palindrome"] == [
        "first-plugin",
        "second-plugin",
    ]


def test_replace_takes_the_name_whichever_is_imported_first(registry: Registry, install: Install) -> None:
    module = install("palindrome")

    @registry.register("palindrome", replace=True)
    class Mine:
        pass

    plugin = __import__(module).Plugin
    assert registry.get("palindrome") is Mine
    assert registry.name_of(Mine) == "palindrome"
    assert [row.target for row in registry.describe() if row.name == "palindrome"] == [
        f"{__name__}:{Mine.__qualname__}"
    ]
    with pytest.raises(NotSerializable, match=r"Plugin lost its name 'palindrome' to .*Mine"):
        registry.name_of(plugin)


def test_defining_a_class_again_is_not_a_duplicate(registry: Registry) -> None:
    def define() -> type:
        @registry.register("again")
        class Again:
            pass

        return Again

    older, newer = define(), define()
    assert registry.get("again") is newer
    assert registry.name_of(older) == "again"


FAILS_AFTER_REGISTERING = GOOD + "\nimport no_such_library\n"
RAISES = "raise RuntimeError('no licence server')"
UNDECORATED = "class Plugin:\n    pass\n"
NOT_A_CLASS = "Plugin = 3\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (FAILS_AFTER_REGISTERING, r"ModuleNotFoundError: No module named 'no_such_library'"),
        (RAISES, r"RuntimeError: no licence server"),
        ("", r"AttributeError: .*'Plugin'"),
        (UNDECORATED, r'is not a class decorated with @register\("broken"\)'),
        (NOT_A_CLASS, r'is not a class decorated with @register\("broken"\)'),
        (GOOD.format(name="another-name"), r'is not a class decorated with @register\("broken"\)'),
    ],
)
def test_a_broken_plugin_names_its_distribution_and_breaks_only_itself(
    registry: Registry, install: Install, source: str, reason: str
) -> None:
    install("broken", source, distribution="broken-plugin")
    install("working", distribution="working-plugin")
    for _ in range(2):  # the second try must not find what the first left behind
        with pytest.raises(BrokenPlugin, match=rf"'broken' of broken-plugin 1\.2 .*{reason}"):
            registry.get("broken")
    assert {"broken", "working"} <= set(registry.names())
    assert registry.name_of(registry.get("working")) == "working"


def test_a_broken_plugin_keeps_the_original_error_as_its_cause(registry: Registry, install: Install) -> None:
    install("broken", RAISES)
    with pytest.raises(BrokenPlugin) as caught:
        registry.get("broken")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_broken_plugin_does_not_unregister_what_it_imported(registry: Registry, install: Install) -> None:
    module = install("working", distribution="working-plugin")
    install("broken", f"import {module}\nraise RuntimeError", distribution="broken-plugin")
    with pytest.raises(BrokenPlugin):
        registry.get("broken")
    assert registry.name_of(sys.modules[module].Plugin) == "working"


def test_a_plugin_that_takes_a_taken_name_breaks_only_itself(registry: Registry, install: Install) -> None:
    install("working", distribution="working-plugin")
    install("rude", GOOD.format(name="working"), distribution="rude-plugin")
    with pytest.raises(DuplicateConstraint, match=r"cannot register .*'working'.*working-plugin 1\.2"):
        registry.get("rude")
    assert registry.name_of(registry.get("working")) == "working"
