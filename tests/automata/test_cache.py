"""Lifted automata on disk: the same automaton, made once; a broken file is no harm."""

import logging
from pathlib import Path

import numpy as np
import pytest

from guided_dlm import Vocabulary
from guided_dlm.automata import ByteAutomaton, cache
from guided_dlm.automata.lift import _lift

VOCABULARY = Vocabulary.from_tokens([b"", *(bytes([97 + i]) for i in range(26)), b"ab", b" a"], eos_id=0)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "SMALL_VOCABULARY", 1)
    monkeypatch.setenv("GUIDED_DLM_CACHE", str(tmp_path))
    _lift.cache_clear()
    return tmp_path


def test_a_second_lift_is_read_from_disk_and_equal(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ByteAutomaton.from_regex("(ab)*c").lift(VOCABULARY)
    _lift.cache_clear()
    monkeypatch.setattr("guided_dlm.automata.lift._run", lambda *_: pytest.fail("It was lifted again."))
    second = ByteAutomaton.from_regex("(ab)*c").lift(VOCABULARY)
    assert second == first and second is not first
    assert (second & first) == first
    assert len(list(kept.iterdir())) == 1


def test_another_language_vocabulary_or_version_is_another_file(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    automaton = ByteAutomaton.from_regex("a*")
    for vocabulary in (VOCABULARY, Vocabulary.from_tokens([b"", b"a"], eos_id=0)):
        automaton.lift(vocabulary)
    ByteAutomaton.from_regex("b*").lift(VOCABULARY)
    monkeypatch.setattr(cache, "version", lambda _: "another")
    _lift.cache_clear()
    automaton.lift(VOCABULARY)
    assert len(list(kept.glob("*.npz"))) == 4


@pytest.mark.parametrize("size", [0, 11, 200, -30])
def test_a_broken_file_is_said_and_made_again(kept: Path, caplog: pytest.LogCaptureFixture, size: int) -> None:
    first = ByteAutomaton.from_regex("a*").lift(VOCABULARY)
    (file,) = kept.iterdir()
    file.write_bytes(file.read_bytes()[:size])
    _lift.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert ByteAutomaton.from_regex("a*").lift(VOCABULARY) == first
    assert "made again" in caplog.text
    assert "transitions" in np.load(file)


def test_the_oldest_files_go_where_they_are_too_many(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 1)
    for pattern in ("a*", "b*", "c*"):
        ByteAutomaton.from_regex(pattern).lift(VOCABULARY)
    assert len(list(kept.iterdir())) == 1


def test_off_and_small_vocabularies_keep_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALL_VOCABULARY", 1000)
    ByteAutomaton.from_regex("a*").lift(VOCABULARY)
    monkeypatch.setattr(cache, "SMALL_VOCABULARY", 1)
    monkeypatch.setenv("GUIDED_DLM_CACHE", "off")
    ByteAutomaton.from_regex("b*").lift(VOCABULARY)
    assert not list(kept.iterdir())
