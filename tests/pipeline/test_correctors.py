"""What holds under every corrector: hard constraints, rows, given tokens, the end of the text, traces."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from oracles import CPU, Pattern, random_joint
from tiny import tabular_pipeline, tiny_model, tiny_pipeline, word_tokenizer
from torch import Tensor

from constraints import Energy, Length, Regex, Reward, Words
from guided_dlm import Guide, GuidedPipeline, Vocabulary
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.errors import InvalidRequest, UnknownName
from guided_dlm.randomness import Randomness, row_seeds
from guided_dlm.samplers import CORRECTORS, Corrector, Plan, Snapshot
from guided_dlm.samplers.commit import Confidence
from guided_dlm.samplers.corrector import Written
from guided_dlm.samplers.correctors import (
    P2,
    Chain,
    Gibbs,
    Informed,
    RemdmCap,
    RemdmConf,
    RemdmLoop,
    RemdmRescale,
    Rescore,
)
from guided_dlm.samplers.loop import logits_of, run

MASK = 3
PLAIN = Vocabulary.from_tokens([b"a", b"b", b"c", b""], eos_id=None, mask_id=MASK)
STRONG: dict[str, Corrector] = {  # strong enough to act on canvases of a few tokens
    "remdm-cap": RemdmCap(strength=0.4),
    "remdm-rescale": RemdmRescale(strength=0.5),
    "remdm-conf": RemdmConf(),
    "remdm-loop": RemdmLoop(strength=0.4, hold=0.3),
    "rescore": Rescore(count=2, repeats=2, groups=2),
    "informed": Informed(count=2, repeats=2, groups=2),
    "gibbs": Gibbs(sweeps=2, group=1),
    "p2": P2(),
    "p2+gibbs": Chain(then=Gibbs(sweeps=2, temperature=0.9)),
    "p2+cool-gibbs+distinct": Chain(then=Gibbs(temperature=0.85, distinct=2, warmer=1)),
    "p2+gibbs+distinct": Chain(then=Gibbs(group=4, distinct=1)),
}
ROW_BY_ROW = [name for name, corrector in STRONG.items() if not corrector.compares_rows]


def test_every_registered_corrector_is_tested_here() -> None:
    assert STRONG.keys() == CORRECTORS.keys()
    assert all(type(STRONG[name]) is type(CORRECTORS[name]) for name in STRONG)


@pytest.mark.parametrize(
    "corrector",
    [RemdmCap(strength=0.0), RemdmRescale(strength=0.0), RemdmConf(strength=0.0), Gibbs(sweeps=0), Rescore(repeats=0)],
    ids=lambda c: type(c).__name__,
)
@pytest.mark.parametrize("sampler", ["confidence", "ancestral"])
def test_zero_strength_is_bit_identical_to_no_corrector(corrector: Corrector, sampler: str) -> None:
    pipe = tiny_pipeline()
    plain, zero = (
        pipe(constraint=Length(words=(2, 6)), num_samples=6, steps=6, sampler=sampler, corrector=one, seed=3)
        for one in (None, corrector)
    )
    assert torch.equal(plain.tokens, zero.tokens)
    assert plain.denoiser_calls == zero.denoiser_calls


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("sampler", ["confidence", "ancestral", "llada", "entropy_bound"])
def test_hard_constraints_hold_on_every_text(name: str, sampler: str) -> None:
    wish = Length(words=(2, 7)) & Words(include=["pub"], exclude=["The"])
    hidden = []
    out = tiny_pipeline()(
        constraint=wish,
        num_samples=24,
        steps=5,
        sampler=sampler,
        corrector=STRONG[name],
        seed=1,
        callback=lambda s: hidden.append(s.at.index >= 5 or (s.hidden_BL is not None and bool(s.hidden_BL.any()))),
    )
    assert bool(out.satisfied.all())
    assert any(hidden)


@pytest.mark.parametrize("name", ROW_BY_ROW)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_hard_constraints_hold_where_the_model_gives_them_no_probability(name: str, temperature: float) -> None:
    joint = torch.zeros(4, 4, 4, dtype=torch.float64)
    joint[0, 0, 0] = joint[1, 1, 1] = 0.5
    out = GuidedPipeline(TabularDenoiser(joint, PLAIN))(
        constraint=Pattern("c.*b.*"), num_samples=40, steps=4, corrector=STRONG[name], temperature=temperature
    )
    assert bool(out.satisfied.all())


@pytest.mark.parametrize("name", ROW_BY_ROW)
@pytest.mark.parametrize("sampler", ["confidence", "ancestral"])
def test_a_row_does_not_depend_on_its_batch(name: str, sampler: str) -> None:
    pipe = tabular_pipeline(length=4, seed=2)
    seeds = [11, 12, 13, 14, 15]
    request = {"steps": 5, "sampler": sampler, "corrector": STRONG[name], "constraint": Pattern("[ab .]*b[ab .]*")}
    together = pipe(num_samples=5, seed=seeds, **request).tokens
    turned = pipe(num_samples=5, seed=seeds[::-1], **request).tokens
    alone = torch.cat([pipe(num_samples=1, seed=[seed], **request).tokens for seed in seeds])
    assert torch.equal(together, alone)
    assert torch.equal(together, turned.flip(0))


@pytest.mark.parametrize("name", STRONG)
def test_given_tokens_are_never_hidden(name: str) -> None:
    joint = random_joint(4, 4, seed=5, text=[0, 1, 2])
    plan = Plan(
        denoiser=TabularDenoiser(joint, PLAIN),
        guide=Guide(),
        automata=None,
        rule=Confidence(),
        randomness=Randomness(row_seeds(0, 50, CPU)),
        steps=6,
        corrector=STRONG[name],
    )
    given = torch.tensor([[-1, 2, -1, 0]]).expand(50, 4)
    canvas = Canvas.from_prompts([None] * 50, PLAIN, 4, CPU).fix(given)
    seen = [snapshot.after.tokens_BL for snapshot in run(plan, canvas)]
    assert all(bool((tokens[:, 1] == 2).all() and (tokens[:, 3] == 0).all()) for tokens in seen)
    assert bool((seen[-1] != MASK).all())


@pytest.mark.parametrize("name", STRONG)
def test_the_end_of_the_text_stays_unless_asked_otherwise(name: str) -> None:
    pipe = tiny_pipeline()
    end = pipe.denoiser.vocabulary.eos_id

    def ends(corrector: Corrector) -> tuple[bool, Tensor]:
        steps: list[Snapshot] = []
        wish = Length(tokens=(3, 9))  # under a constraint nothing ends a text but its end
        pipe(constraint=wish, num_samples=30, steps=8, corrector=corrector, callback=steps.append)
        first = steps[0].after.tokens_BL == end
        kept = all(torch.equal(step.after.tokens_BL == end, first) for step in steps)
        return kept, first

    kept, first = ends(STRONG[name])
    assert kept and bool(first.any())
    if name in ("remdm-cap", "p2"):
        assert not ends(replace(STRONG[name], keep_tail=False))[0]


def test_without_a_constraint_what_is_written_again_does_not_end_the_text_anew() -> None:
    """A real model, whose text would draw an end of its own now and then."""
    steps: list[Snapshot] = []
    pipe = GuidedPipeline.from_pretrained("restaurant-words")
    pipe(num_samples=64, steps=8, seed=1, corrector=RemdmCap(strength=0.3), callback=steps.append)
    ends = [step.after.tokens_BL == pipe.denoiser.vocabulary.eos_id for step in steps]
    assert bool(ends[0].any()) and all(torch.equal(end, ends[0]) for end in ends)


@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_correctors_work_with_soft_guides_contrast_blocks_and_search(name: str) -> None:
    pipe, corrector = tiny_pipeline(), STRONG[name]
    soft = Length(words=(2, 8)) & Energy(lambda p_BLV, step: p_BLV[..., 5].sum(-1))
    assert bool(pipe(constraint=soft, num_samples=4, steps=5, corrector=corrector).satisfied.all())
    out = pipe("The Mill", soft, num_samples=2, steps=5, corrector=corrector, guidance_scale=2.0)
    assert bool(out.satisfied.all())
    blocks = pipe(constraint=Length(words=(2, 8)), num_samples=4, steps=3, corrector=corrector, block_length=4)
    assert bool(blocks.satisfied.all())
    wish = Length(words=(2, 8)) & Reward(lambda texts: [-float(len(text)) for text in texts])
    found = pipe(constraint=wish, num_samples=2, steps=4, corrector=corrector, particles=4, resampling="search")
    assert bool(found.satisfied.all())


def test_calls_and_traces_count_what_was_looked_at_again() -> None:
    pipe = tiny_pipeline()
    plain = pipe(num_samples=3, steps=4, seed=1)
    out = pipe(num_samples=3, steps=4, seed=1, corrector=Rescore(count=1, repeats=2, groups=3), return_trace=True)
    assert out.denoiser_calls - plain.denoiser_calls == 2 * (3 + 1)
    assert out.trace is not None and len(out.trace.steps) == plain.denoiser_calls + 2
    assert all(int(step.written_BL.sum(-1).max()) <= 1 for step in out.trace.steps[-2:])


def test_hidden_positions_are_not_traced_as_written() -> None:
    out = tiny_pipeline()(num_samples=4, steps=6, corrector=P2(), return_trace=True)
    mask = tiny_pipeline().denoiser.vocabulary.mask_id
    assert out.trace is not None
    assert any(bool((step.tokens_BL == mask).any()) for step in out.trace.steps)
    assert not any(bool((step.written_BL & (step.tokens_BL == mask)).any()) for step in out.trace.steps)


def test_a_chain_writes_as_its_first_and_goes_over_the_text_as_its_second() -> None:
    pipe = tiny_pipeline()
    options: dict[str, Any] = {"num_samples": 4, "steps": 6, "seed": 1, "return_trace": True}
    whole, first, nothing = (
        pipe(corrector=one, **options) for one in (Chain(), P2(), Chain(first=P2(), then=Gibbs(sweeps=0)))
    )
    assert whole.trace is not None and first.trace is not None
    written = len(first.trace.steps)
    assert len(whole.trace.steps) > written
    assert torch.equal(whole.trace.steps[written - 1].tokens_BL, first.tokens)
    assert torch.equal(nothing.tokens, first.tokens)


@pytest.mark.parametrize(("temperature", "factor"), [(0.01, 0.5), (60.0, 2.0), (0.0, 0.5)])
def test_a_corrector_does_not_leave_the_temperatures_that_a_run_may_have(temperature: float, factor: float) -> None:
    chain = Chain(then=Gibbs(temperature=factor))
    out = tiny_pipeline()(constraint=Length(words=3), corrector=chain, temperature=temperature, steps=4)
    assert out.satisfied.all()


def test_turns_draw_from_other_coins_than_the_steps_before(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[bool, set[int]] = {True: set(), False: set()}
    coins = Written.coins

    def noted(self: Written, step: int) -> torch.Tensor:
        asked[self.turn is None].add(step)
        return coins(self, step)

    monkeypatch.setattr(Written, "coins", noted)
    tiny_pipeline()(corrector=Chain(first=RemdmCap(strength=0.4), then=Gibbs(sweeps=2)), num_samples=2, steps=5)
    assert len(asked[True]) >= 3 and len(asked[False]) == 2 and not asked[True] & asked[False]


def test_rows_are_kept_distinct_only_where_whole_texts_are_drawn() -> None:
    pipe, distinct = tiny_pipeline(), STRONG["p2+gibbs+distinct"]
    assert len(set(pipe(corrector=distinct, num_samples=8, seed=[1] * 8, steps=4).texts)) > 1
    for options in ({"block_length": 4}, {"temperature": 0.0}, {"particles": 4, "resampling": "search"}):
        for corrector in (distinct, Gibbs(warmer=1)):
            with pytest.raises(InvalidRequest, match="leave out distinct and warmer"):
                pipe(corrector=corrector, **options)


def test_warmer_sweeps_write_other_texts_where_a_batch_is_one_text_again_and_again() -> None:
    pipe, pattern = tiny_pipeline(), "(The|Near|It) (Mill|Vaults|Rouge) is a (cheap|family) pub"
    asked = {"num_samples": 6, "seed": [1] * 6, "steps": 4, "constraint": Regex(pattern)}
    same, parted = (pipe(corrector=Gibbs(sweeps=0, warmer=warmer), **asked).texts for warmer in (0, 6))
    assert len(set(same)) == 1 < len(set(parted)) and same[0] in parted
    assert all(re.fullmatch(pattern, text) for text in parted)


def test_a_wrong_name_or_number_is_refused_in_a_sentence() -> None:
    pipe = tiny_pipeline()
    with pytest.raises(UnknownName, match="Did you mean 'gibbs'"):
        pipe(corrector="gibs")
    with pytest.raises(InvalidRequest, match="weights of runs that hide tokens again"):
        pipe(corrector="gibbs", particles=4)
    for bad in (
        lambda: RemdmCap(strength=2.0),
        lambda: Gibbs(group=0),
        lambda: Gibbs(temperature=0.0),
        lambda: Gibbs(distinct=-1),
        lambda: Gibbs(warmer=-1),
        lambda: Chain(first="p2"),
        lambda: Chain(first=P2(keep_tail=False)),
        lambda: Chain(first=Gibbs(), then=Gibbs()),
        lambda: Chain(first=P2(), then=P2()),
        lambda: Rescore(count=0),
        lambda: P2(strength=-1),
    ):
        with pytest.raises(InvalidRequest):
            bad()
    with pytest.raises(InvalidRequest, match="rise between 0 and 1"):
        RemdmLoop(t_on=0.1, t_off=0.5)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_turns_spend_nothing_on_full_rows_and_write_the_same(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    asked: list[int] = []

    class Counting(TransformerDenoiser):
        def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
            asked.append(len(canvas.tokens_BL))
            return super().__call__(canvas, t, carry)

    pipe = GuidedPipeline(Counting(tiny_model(), Vocabulary.from_tokenizer(word_tokenizer())))
    prompts, wishes = ["The", "Near the"] * 4, [Length(tokens=3), Length(tokens=8)] * 4
    options: dict[str, Any] = {"steps": 4, "corrector": Gibbs(), "seed": 5, "guidance_scale": scale}
    thrifty = pipe(prompts, wishes, **options)
    rows = sum(asked)
    assert rows < 8 * len(asked)
    asked.clear()
    monkeypatch.setattr("guided_dlm.samplers.loop.logits_of_open", logits_of)
    lavish = pipe(prompts, wishes, **options)
    assert sum(asked) > rows and len(set(asked)) == 1
    assert lavish.texts == thrifty.texts and len(set(thrifty.texts)) > 2
    assert lavish.denoiser_calls == thrifty.denoiser_calls


@pytest.mark.parametrize("name", [None, *STRONG])
def test_constraints_hold_where_long_padding_is_not_read(name: str | None) -> None:
    model = tiny_model(24)
    model.config.reads_tail = False
    pipe = GuidedPipeline(TransformerDenoiser(model, Vocabulary.from_tokenizer(word_tokenizer())))
    wish = Length(words=(2, 7)) & Words(include=["pub"], exclude=["The"])
    free = None if name is None else replace(STRONG[name], keep_tail=False) if "+" not in name else STRONG[name]
    for corrector in {None if name is None else STRONG[name], free}:
        out = pipe(constraint=wish, num_samples=12, steps=8, corrector=corrector, seed=1)
        assert out.satisfied.all()
        assert len(set(out.texts)) > 6
