"""The command line as a user types it: every flag, recipes, errors in one sentence with status 1."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from references import places
from tiny import SENTENCES
from wishes import lays_out

from constraints import Blank, Choice, Length, Regex, Template, Words
from guided_dlm import registry
from guided_dlm.cli import app, combine, read_range, read_template
from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.errors import InvalidRequest


def write(path: Path, recipe: object) -> Path:
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def test_texts_are_printed_one_per_line(run: object, model: str) -> None:
    result = run("generate", "--model", model, "-n", 3, "--steps", 3, "--length", "2-3")  # type: ignore[operator]
    assert result.status == 0
    assert len(result.out.splitlines()) == 3
    assert all(Length(words=(2, 3)).check(line) for line in result.out.splitlines())
    assert "NOT SATISFIED" not in result.out


def test_every_flag_at_once(run: object, model: str, tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.json", {"constraint": "length", "characters": [1, 60]})
    other = write(tmp_path / "s.json", {"not": {"constraint": "words", "include": ["\u00a3"]}})
    result = run(  # type: ignore[operator]
        "generate", "Near", "--model", model, "--constraint", recipe, "--constraint", other, "--length", "3-6",
        "--include", "pub", "--include", "The", "--exclude", "cheap", "--exclude", "is a", "--regex", "(?s).*[^.]",
        "--template", "{1-2} pub{}", "-n", 4, "--max-new-tokens", 10, "--steps", 4, "--sampler", "random",
        "--temperature", 0.8, "--seed", 5, "--json",
    )  # fmt: skip
    assert result.status == 0, result.err
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert len(rows) == 4
    for row in rows:
        text = row["text"]
        assert row["satisfied"] is True
        assert places("pub", text, False) and places("The", text, False) and not places("cheap", text, False)
        assert len(text) <= 60 and "\u00a3" not in text.split() and not text.endswith(".")
        assert lays_out([Blank(words=(1, 2)), " pub", Blank()], text)
        assert len(row["report"]) >= 6
        assert all(entry["guaranteed"] for name, entry in row["report"].items() if name != "Words(include=['\u00a3'])")


def test_the_seed_decides(run: object, model: str) -> None:
    outs = [run("generate", "--model", model, "--seed", seed, "-n", 3).out for seed in (1, 1, 2)]  # type: ignore[operator]
    assert outs[0] == outs[1] != outs[2]


def test_without_a_constraint_it_just_writes(run: object, model: str) -> None:
    result = run("generate", "--model", model, "--json", "--steps", 2)  # type: ignore[operator]
    assert json.loads(result.out)["report"] == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--length", "3-2"], "--length: Length: words=[3, 2]: the minimum is larger than the maximum"),
        (["--length", "many"], "--length: 'many' is no length"),
        (["--length", "-3"], "'-3' is no length"),
        (["--length", "50"], '"Length(words=50)" cannot be satisfied in a canvas of 12 tokens'),
        (["--length", "2", "--include", "a b c"], "\"Length(words=2)\" and \"Words(include=['a b c'])\" cannot hold"),
        (["--include", " "], "--include: Words: an empty phrase"),
        (["--include", "a", "--exclude", ""], "--include and --exclude: Words"),
        (["--length", "9" * 5000], "--length: Exceeds the limit"),
        (["--template", "a {3-1}"], "--template.parts[1].blank: Blank: words=[3, 1]"),
        (["--device", "bogus"], "device='bogus' cannot be used"),
        (["The \udcff"], "'The \\udcff' holds a lone surrogate"),
        (["--include", "\udcff"], "include=['\\udcff']"),
        (["--include", "\u03a9"], "Words(include=['\u03a9'])"),
        (["--regex", "[a-z"], "--regex: The pattern '[a-z' does not parse"),
        (["--regex", "[/a]+("], "'[/a]+(' does not parse"),
        (["--regex", "[red](?=a)"], "'[red](?=a)' uses look-ahead"),
        (["--regex", "[a-z]{999}"], "[a-z]{999}"),
        (["--template", "The {"], "Write {{ and }} for braces"),
        (["--template", "The {x} pub"], "--template 'The {x} pub': 'x' is no length"),
        (["--template", "The {1:2} pub"], "'The {1:2} pub': a blank is {}"),
        (["--template", "The {1!r} pub"], "a blank is {}"),
        (["--template", ""], "no parts"),
        (["--sampler", "confidnce"], "Did you mean 'confidence'"),
        (["--steps", "0"], "steps=0 must be a whole number"),
        (["-n", "0"], "num_samples=0"),
        (["--max-new-tokens", "0"], "max_new_tokens=0"),
        (["--max-new-tokens", "13"], "canvas of 12 tokens"),
        (["--temperature", "-1"], "temperature=-1.0"),
        (["The Mill is a cheap pub near the riverside The Mill is"], "longest prompt takes 12"),
        (["\u03a9mega"], "cannot write"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_status_1(run: object, model: str, arguments: list[str], said: str) -> None:
    result = run("generate", "--model", model, *arguments)  # type: ignore[operator]
    assert (result.status, result.out) == (1, "")
    assert said in result.err
    assert "Traceback" not in result.err
    assert len(result.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"constraint": "length", "words": 3', "line 1, column"),
        ('{"constraint": "lenght", "words": 3}', "Did you mean 'length'"),
        ('{"constraint": "length", "wrods": 3}', "recipe.json: $: Length has no field 'wrods'"),
        ('{"all": [{"constraint": "length", "words": -3}]}', "$.all[0]: Length: words=-3"),
        ('[{"constraint": "length"}]', "$: expected an object"),
        ("3", "$: expected an object"),
        ('{"scale": 2, "of": {"constraint": "length", "words": 3}}', "has no strength"),
        ('{"constraint": ["length"]}', "expected a constraint's name"),
        ('{"constraint": "template", "parts": [{"blank": {"regex": 5}}]}', "$.parts[0].blank: Regex"),
        (b"\xff\xfe", "is no UTF-8 text"),
        ('{"not":' * 20_000 + "1" + "}" * 20_000, "recipe.json nests too many levels deep"),
        ('{"not":' * 200 + "1" + "}" * 200, "recipe.json: $: this nests more than 100 levels"),
        (f'{{"constraint": "length", "words": {"9" * 5001}}}', "recipe.json holds a number that is too long"),
        ('{"constraint": "length", "words": 3, "words": 4}', "recipe.json: the key 'words' stands twice"),
        (None, "There is no recipe"),
    ],
)  # fmt: skip
def test_a_bad_recipe_is_one_sentence_and_status_1(
    run: object, model: str, tmp_path: Path, content: str | bytes | None, said: str
) -> None:
    path = tmp_path / "recipe.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for command in (["generate", "--constraint", path], ["explain", path]):
        result = run(*command, "--model", model)  # type: ignore[operator]
        assert (result.status, result.out) == (1, "")
        assert said in result.err
        assert len(result.err.strip().splitlines()) == 1


def test_a_recipe_that_cannot_be_read_is_one_sentence(run: object, model: str, tmp_path: Path) -> None:
    file = write(tmp_path / "file.json", {})
    for path, said in ((tmp_path, "Is a directory"), (file / "r.json", "Not a directory")):
        result = run("explain", path, "--model", model)  # type: ignore[operator]
        assert result.status == 1
        assert f"{path} could not be read: {said}." in result.err
        assert len(result.err.strip().splitlines()) == 1


def test_of_two_recipes_the_bad_one_is_named(run: object, model: str, tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.json", {"constraint": "length", "words": 3}), write(tmp_path / "bad.json", {})
    result = run("generate", "--model", model, "--constraint", good, "--constraint", bad)  # type: ignore[operator]
    assert f"{bad}: $: [] is no constraint" in result.err


def test_an_error_of_python_is_a_plain_traceback() -> None:
    assert app.pretty_exceptions_enable is False


def test_white_space_of_the_prompt_and_the_device_may_be_given(run: object, model: str) -> None:
    plain = run("generate", "The Mill", "--model", model, "--steps", 3)  # type: ignore[operator]
    spaced = run("generate", "The  Mill ", "--model", model, "--steps", 3, "--device", "cpu")  # type: ignore[operator]
    assert (spaced.status, spaced.out) == (0, plain.out)


def test_an_unknown_model_is_one_sentence(run: object, tmp_path: Path) -> None:
    for name, said in (("no-such-model", "There is no model 'no-such-model'"), (tmp_path, "no config.json")):
        result = run("generate", "--model", name)  # type: ignore[operator]
        assert result.status == 1
        assert said in result.err


def test_a_folder_that_is_no_model_of_ours_is_one_sentence(run: object, tmp_path: Path) -> None:
    for content in ("{}", "not json", '{"model_type": "bert"}'):
        (tmp_path / "config.json").write_text(content)
        result = run("generate", "--model", tmp_path)  # type: ignore[operator]
        assert result.status == 1, content
        assert "Traceback" not in result.err


def test_constraints_lists_names_classes_and_distributions(run: object) -> None:
    result = run("constraints")  # type: ignore[operator]
    assert result.status == 0
    for name, target in (("length", "constraints.length:Length"), ("template", "constraints.template:Template")):
        line = next(line for line in result.out.splitlines() if line.startswith(f"{name} "))
        assert target in line
        assert "guided-dlm" in line
    listed = [line.split()[0] for line in result.out.splitlines()[1:]]
    assert listed == [row.name for row in registry.describe()]


def test_explain_says_sizes_and_what_is_promised_before_any_sampling(run: object, model: str, tmp_path: Path) -> None:
    parts = [{"constraint": "regex", "pattern": "[A-Z][a-z ]+[red]"}, {"constraint": "length", "words": 2}]
    recipe = write(
        tmp_path / "r.json", {"all": [*parts, {"scale": 2, "of": {"constraint": "test-prefer", "word": "pub"}}]}
    )
    result = run("explain", recipe, "--model", model)  # type: ignore[operator]
    assert result.status == 0, result.err
    rows = {line.split("  ")[0].strip(): line.split() for line in result.out.splitlines()[1:]}
    assert set(rows) == {"Regex('[A-Z][a-z ]+[red]')", "Length(words=2)", "2 * Prefer(word='pub')", "all together"}
    assert rows["Length(words=2)"][-3:] == ["guaranteed", "by", "automaton"]
    assert all(size.isdigit() for size in rows["all together"][2:5])
    assert rows["2 * Prefer(word='pub')"][-5:] == ["-", "-", "-", "best", "effort"]


@pytest.mark.parametrize(("canvas", "status"), [(1, 1), (0, 1), (-5, 1), (4, 0)])
def test_explain_refuses_what_the_canvas_cannot_hold(
    run: object, model: str, tmp_path: Path, canvas: int, status: int
) -> None:
    recipe = write(tmp_path / "r.json", {"constraint": "length", "words": 2})
    result = run("explain", recipe, "--model", model, "--max-new-tokens", canvas)  # type: ignore[operator]
    assert result.status == status
    assert ("canvas of" in result.err) is bool(status)


TRAIN = ["--canvas", 16, "--hidden-size", 32, "--layers", 1, "--heads", 2, "--min-count", 1, "--batch-size", 8,
         "--save-every", 2]  # fmt: skip


def test_train_then_resume_then_generate(run: object, tmp_path: Path) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES * 5))
    first = run("train", data, out, "--epochs", 1, *TRAIN)  # type: ignore[operator]
    assert first.status == 0, first.err
    assert "eval_bound" in json.loads(first.out.splitlines()[-1])
    before = {path.name for path in (out / "checkpoints").iterdir()}
    assert before
    second = run("train", data, out, "--epochs", 3, "--resume", *TRAIN)  # type: ignore[operator]
    assert second.status == 0, second.err
    assert {path.name for path in (out / "checkpoints").iterdir()} != before
    steps = [e["step"] for e in json.loads((out / "training.json").read_text())["log"] if "eval_bound" in e]
    assert steps == sorted(steps)
    assert json.loads((out / "recipe.json").read_text())["epochs"] == 3
    text = run("generate", "--model", out, "--include", "pub", "--steps", 4)  # type: ignore[operator]
    assert text.status == 0, text.err
    assert places("pub", text.out.strip(), False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.txt", "out"], "There is no file 'gone.txt'"),
        (["{data}", "{tmp}/new", "--resume"], "without --resume"),
        (["{data}", "{tmp}/new", "--objective", "maskd"], "no objective 'maskd'"),
        (["{data}", "{tmp}/new", "--start", "{tmp}/nowhere"], "no model to start from"),
        (["{data}", "{tmp}/new", "--canvas", "1"], "canvas=1"),
        (["{data}", "{tmp}/new", "--heads", "3"], "3 heads"),
        (["{bad}", "{tmp}/new"], "bad.jsonl, line 2"),
        (["{data}", "{data}"], "data.txt' is a file; name a folder"),
        (["{data}", "{data}/new"], "data.txt' is a file; name a folder"),
    ],
)
def test_a_training_mistake_is_one_sentence(run: object, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "data.txt").write_text("\n".join(SENTENCES))
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{oops\n')
    names = {"data": tmp_path / "data.txt", "bad": tmp_path / "bad.jsonl", "tmp": tmp_path}
    result = run("train", *(argument.format(**names) for argument in arguments))  # type: ignore[operator]
    assert result.status == 1
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "new" / "model.safetensors").exists()


@pytest.mark.parametrize(("text", "range_"), [("12", [12, 12]), ("8-12", [8, 12]), ("8-", [8, None]), ("0", [0, 0])])
def test_ranges(text: str, range_: list[int | None]) -> None:
    assert read_range(text) == range_


@pytest.mark.parametrize("text", ["", "-", "-3", "3--4", "1.5", "a", "3-a", " ", "3 - 4", "\u00bd"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is no length"):
        read_range(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("The {1-4} is a pub .", ["The ", {"blank": {"words": [1, 4]}}, " is a pub ."]),
        ("{}", [{"blank": {}}]),
        ("{2}{3-}", [{"blank": {"words": [2, 2]}}, {"blank": {"words": [3, None]}}]),
        ("plain", ["plain"]),
    ],
)
def test_templates(text: str, parts: list[object]) -> None:
    assert read_template(text) == parts


def test_braces_can_be_written() -> None:
    wish = combine([], None, [], [], None, "a {{b}} {}")
    assert wish is not None
    assert wish.check("a {b} c")
    assert not wish.check("a b c")


def test_flags_and_recipes_are_joined(tmp_path: Path) -> None:
    recipe = write(tmp_path / "r.json", {"constraint": "choice", "options": ["a", "b"]})
    assert combine([], None, [], [], None, None) is None
    assert combine([recipe], None, [], [], None, None) == Choice(["a", "b"])
    assert combine([recipe], "3", ["x"], ["y"], "z", "t{}") == (
        Choice(["a", "b"])
        & Length(words=3)
        & Words(include=["x"], exclude=["y"])
        & Regex("z")
        & Template(["t", Blank()])
    )


def test_the_installed_command_answers() -> None:
    command = Path(sys.executable).parent / "guided-dlm"
    done = subprocess.run([command, "generate", "--model", "no-such"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("UnknownName: There is no model 'no-such'")


def test_help_names_every_command(run: object) -> None:
    result = run("--help")  # type: ignore[operator]
    assert result.status == 0
    assert all(name in result.out for name in ("generate", "constraints", "explain", "train", "demo"))


def test_coherence_is_a_table_of_one_row(run: object, model: str) -> None:
    result = run("evaluate", "coherence", model, "--samples", 3, "--steps", 3, "--corrector", "gibbs")  # type: ignore[operator]
    assert result.status == 0
    head, row = (line.split() for line in result.out.splitlines()[:2])
    assert head == ["corrector", "self-acceptance", "introspective", "acceptance", "denoiser", "calls"]
    assert row[0] == "gibbs" and all(0 < float(share) <= 1 for share in row[1:3]) and int(row[3]) > 3


def test_an_unknown_corrector_is_one_sentence(run: object, model: str) -> None:
    result = run("evaluate", "coherence", model, "--corrector", "gibs")  # type: ignore[operator]
    assert result.status == 1
    assert "Did you mean 'gibbs'?" in result.err and "Traceback" not in result.err


def test_ctrl_c_prints_what_there_is(run: object, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = TransformerDenoiser.at_open
    calls: list[int] = []

    def interrupted(self: object, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ask(self, *arguments)

    monkeypatch.setattr(TransformerDenoiser, "at_open", interrupted)
    with pytest.warns(UserWarning, match="Ctrl-C ended the run early"):
        found = run("generate", "--model", model, "--include", "pub", "-n", 2, "--steps", 8)
    assert found.status == 130
    assert len(found.out.splitlines()) == 2 and all(places("pub", line, False) for line in found.out.splitlines())
    assert "NOT SATISFIED" not in found.out


def test_the_card_of_a_model_is_printed_and_written(run: object, model: str, tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("\n".join(SENTENCES))
    options = ("--samples", 3, "--steps", 3, "--temperature", 0.9, "--validation", tmp_path / "held.txt")
    result = run("evaluate", "model", model, *options, "--out", tmp_path / "card")  # type: ignore[operator]
    assert result.status == 0, result.err
    assert result.out == (tmp_path / "card" / f"{Path(model).name}.md").read_text()
    assert "temperature 0.9" in result.out and "| duplicates, share " in result.out
    assert "left out: nats per token under a judge" in result.out


def test_a_missing_file_for_the_card_is_one_sentence(run: object, model: str, tmp_path: Path) -> None:
    result = run("evaluate", "model", model, "--training", tmp_path / "gone.txt")  # type: ignore[operator]
    assert (result.status, result.out) == (1, "")
    assert "There is no file" in result.err and len(result.err.strip().splitlines()) == 1
