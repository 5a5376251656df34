"""Latent guidance: the gradient of log p(y | x_t) with respect to the noisy vectors pulls them towards the wish.

Without it, a Gaussian step conditions its own factors on the wish, which is exact per step. Here the vectors follow the
score of the conditional law instead, through the denoiser, so that what one position shows moves what others become.
log p(y | x_t) is the mass that automata and biases leave of the model's law at x_t, minus the energies at the expected
tokens. A model that knows its joint law says that mass exactly (`Denoiser.log_evidence`); of any other it is log Z
under its factors, exact where positions are independent given x_t. The run still returns its last joint draw from the
constrained posterior, so hard constraints hold on every output.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_dlm.canvas import Canvas
from guided_dlm.constraint import Diagnostics, Step
from guided_dlm.errors import GuidedError, GuideFailed, InvalidRequest, UnknownName, shorten
from guided_dlm.guidance import MAX_SHIFT, floor
from guided_dlm.posterior import Factors, Posterior
from guided_dlm.processes import GaussianProcess, Process, Transition
from guided_dlm.samplers.loop import Carry, Plan, Snapshot, logits_of, predict


@dataclass(frozen=True, kw_only=True)
class LatentGuidance(ABC):
    """How the noisy vectors of a Gaussian model are pulled towards what is wished for."""

    @abstractmethod
    def step(self, plan: Plan, canvas: Canvas, at: Transition, carry: Carry) -> Snapshot:
        """Take one step; the snapshot's prediction is the step's constrained posterior, as without latent guidance."""

    def check(self, process: Process) -> None:
        """Refuse processes that cannot be guided like this.

        Raises:
            InvalidRequest: the process has no latents, or steps in a way that this guidance does not know.
        """
        if not (process.shifts and isinstance(process, GaussianProcess)):
            raise InvalidRequest(
                f"latent_guidance={self!r} moves noisy embeddings, and {type(process).__name__} has none; leave it "
                "out, or use a model of Gaussian noise on embeddings."
            )


@dataclass(frozen=True, kw_only=True)
class ScoreGuidance(LatentGuidance):
    """Move towards x0 + scale (1 - abar_t) / sqrt(abar_t) grad log p(y | x_t), x0 being what the model alone says.

    That is Tweedie's formula for the conditional law (2105.05233, sec. 4.2, in terms of x0): at scale 1 and with an
    exact log p(y | x_t) the run nears the law given the wish as steps grow, whatever the solver. With log Z of the
    factors in its place, which is all that a net offers, a bias is left where positions depend on each other. At scale
    0 it is the unguided run, bit for bit, but for the last draw. One backward pass a step, and no further model call
    but one at the first step, where abar may be 0.

    The exact shift at scale 1 is the difference of two mean embeddings, so none is let longer than the embeddings lie
    apart: where abar is near 0 the formula divides a vanishing gradient by a vanishing number. At abar = 0 itself the
    model does not look at x_t, and the shift is that of half a step further down.

    At the last step nothing is shifted: its draw is the output.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no strength."""
        _check_number(self.scale, "ScoreGuidance", "scale")

    def step(self, plan: Plan, canvas: Canvas, at: Transition, carry: Carry) -> Snapshot:
        """Take one step of the process's solver towards the shifted clean vectors."""
        if self.scale == 0 or at.last or not _pulls(plan):
            return _write(plan, canvas, at, _look(plan, canvas, at, carry))
        here = _below_noise(plan, at)
        look = _look(plan, canvas, here, carry, gradient=True)
        shift_BLD = self._shift(plan, look.gradient_BLD, here.alpha_t)
        if here is not at:
            whole = _look(plan, canvas, at, carry)
            look = replace(whole, calls=look.calls + whole.calls)
        return _write(plan, canvas, at, look, shift_BLD)

    def _shift(self, plan: Plan, gradient_BLD: Tensor, abar: float) -> Tensor:
        """Return what is added to the clean vectors, `[B, L, D]`."""
        if abar <= 0.0:  # so it is after this step, too, and what is added does not count
            return torch.zeros_like(gradient_BLD)
        shift_BLD = self.scale * (1.0 - abar) / math.sqrt(abar) * gradient_BLD
        embeddings_VD = _gaussian(plan).embeddings_VD
        radius = (embeddings_VD - embeddings_VD.mean(0)).norm(dim=-1).amax()
        length_BL1 = shift_BLD.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        within_BL1: Tensor = (2.0 * self.scale * radius / length_BL1).clamp_max(1.0)
        return within_BL1 * shift_BLD


@dataclass(frozen=True, kw_only=True)
class DiffusionLM(LatentGuidance):
    """After each step, climb `fluency` log p(x_s | x_t) + log p(y | x_s) in x_s, as Diffusion-LM does (2205.14217).

    That is its section 5.1, with K = `steps` updates of size `learning_rate`. The published code rebuilds Adagrad for
    every update, and the first step of Adagrad is the learning rate times the sign of the gradient, so that is what an
    update is here. How strong the gradient is plays no part: this is no sampler of p(x | y). At the published rate of
    0.1 and with many denoising steps it seeks the mode; on toy laws its distance to p(x | y) is large and its entropy
    small, and smaller rates such as 0.003 come nearer. Prefer `ScoreGuidance` for samples of a law.

    p(x_s | x_t) is the unguided step around the model's mean clean vectors. `steps` more model calls with gradients for
    each denoising step but the last.
    """

    steps: int = 3
    learning_rate: float = 0.1
    fluency: float = 0.01

    def __post_init__(self) -> None:
        """Refuse counts and rates that mean nothing."""
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidRequest(f"DiffusionLM: steps={self.steps!r} must be a whole number, at least 1.")
        _check_number(self.learning_rate, "DiffusionLM", "learning_rate")
        _check_number(self.fluency, "DiffusionLM", "fluency")

    def check(self, process: Process) -> None:
        """Refuse processes without latents, and steps without noise, whose p(x_s | x_t) has no density."""
        super().check(process)
        if self.fluency > 0 and isinstance(process, GaussianProcess) and process.eta == 0:
            raise InvalidRequest(
                f"latent_guidance={self!r} weighs log p(x_s | x_t), and with eta=0 a step adds no noise, so there is "
                "no such density. Set eta above 0, or fluency=0, or use latent_guidance='score'."
            )

    def step(self, plan: Plan, canvas: Canvas, at: Transition, carry: Carry) -> Snapshot:
        """Take the unguided step, then climb from where it ended."""
        look = _look(plan, canvas, at, carry)
        snapshot = _write(plan, canvas, at, look)
        if at.last or not _pulls(plan):
            return snapshot
        below = replace(at, t=at.s, alpha_t=at.alpha_s)
        process, own = _gaussian(plan), replace(snapshot.prediction, law=_own_law(plan, canvas, look.logits_BLV))
        mean_BLD, deviation = process.moments(canvas, process.mean(own), at)
        after, calls = snapshot.after, snapshot.calls
        for _ in range(self.steps):
            climb = _look(plan, after, below, snapshot.carry, gradient=True)
            x_BLD, slope_BLD = latents_of(after), climb.gradient_BLD
            if self.fluency > 0:
                slope_BLD = slope_BLD + self.fluency * (mean_BLD - x_BLD) / deviation**2
            after = replace(after, latents_BLD=x_BLD + self.learning_rate * slope_BLD.sign())
            calls += climb.calls
        return replace(snapshot, after=after, calls=calls)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    """What the model says of a canvas, and where asked for the gradient of log p(y | x_t) `[B, L, D]`, else 0."""

    logits_BLV: Tensor
    gradient_BLD: Tensor
    carry: Carry
    calls: int


def _look(plan: Plan, canvas: Canvas, at: Transition, carry: Carry, gradient: bool = False) -> _Look:
    x_BLD = latents_of(canvas)
    if not gradient:
        logits_BLV, carry, calls = logits_of(plan, canvas, at, carry)
        return _Look(logits_BLV=logits_BLV, gradient_BLD=torch.zeros_like(x_BLD), carry=carry, calls=calls)
    leaf_BLD = x_BLD.detach().clone().requires_grad_()
    leaf = replace(canvas, latents_BLD=leaf_BLD)
    with torch.enable_grad():
        logits_BLV, carry, calls = logits_of(plan, leaf, at, carry, "differentiable")
        evidence_B = log_evidence(plan, leaf, at, logits_BLV)
        try:
            (gradient_BLD,) = torch.autograd.grad(evidence_B.sum(), leaf_BLD)
        except GuidedError:
            raise
        except RuntimeError as error:
            raise GuideFailed(
                f"Step {at.index + 1} of {at.total}: log p(y | x_t) cannot be differentiated in the latents "
                f"({shorten(str(error))}). Compute energies from the probabilities, not from their argmax."
            ) from error
    if bool(torch.isnan(gradient_BLD).any()):
        raise GuideFailed(
            f"Step {at.index + 1} of {at.total}: the gradient of log p(y | x_t) is NaN; look at the model and its "
            "guides."
        )
    return _Look(logits_BLV=logits_BLV.detach(), gradient_BLD=gradient_BLD, carry=carry, calls=calls)


def log_evidence(plan: Plan, canvas: Canvas, at: Transition, logits_BLV: Tensor) -> Tensor:
    """Return log p(y | x_t), fp64 `[B]`, up to a constant, with its graph back to the canvas's latents.

    `logits_BLV` are the model's at `at.t`. Energies enter at the expected tokens, in full.
    """
    guide, known_BL = plan.guide, plan.denoiser.process.known(canvas)
    step = Step(
        index=at.index,
        total=at.total,
        time=at.t,
        tokens_BL=canvas.tokens_BL,
        logits_BLV=logits_BLV.detach(),
        known_BL=known_BL,
    )
    bias_BLV = None if guide.bias is None else guide.bias(step).detach().clamp(-MAX_SHIFT, MAX_SHIFT)
    base_BLV = plan.truncation.apply(logits_BLV)
    evidence_B = None
    whole = plan.start_B is None and plan.terminal_S is None
    if whole and plan.contrast is None and base_BLV is logits_BLV:  # else its own joint law is not what is meant
        evidence_B = plan.denoiser.log_evidence(canvas, at.t, plan.automata, bias_BLV)
    if evidence_B is None:
        evidence_B = _mass_of_factors(plan, base_BLV, bias_BLV, known_BL)
    if guide.energy is None:
        return evidence_B
    expected_BLV = torch.where((known_BL < 0)[..., None], base_BLV.softmax(-1), _one_hot(known_BL, base_BLV))
    return evidence_B - guide.energy(expected_BLV, step).double()


def _mass_of_factors(plan: Plan, base_BLV: Tensor, bias_BLV: Tensor | None, known_BL: Tensor) -> Tensor:
    """Return log of the sum over canvases of prod_l p_l(x_l) exp(bias_l(x_l)) weight(x), fp64 `[B]`."""
    if plan.automata is not None and not plan.denoiser.full_support:
        base_BLV = floor(base_BLV, torch.from_numpy(plan.denoiser.vocabulary.writable).to(base_BLV.device))
    mass_B = torch.zeros(len(base_BLV), dtype=torch.float64, device=base_BLV.device)
    lifted_BLV = base_BLV if bias_BLV is None else base_BLV + bias_BLV
    if bias_BLV is not None:
        gain_BL = lifted_BLV.logsumexp(-1) - base_BLV.logsumexp(-1)
        mass_B = mass_B + torch.where(known_BL < 0, gain_BL, 0.0).sum(-1).double()
    if plan.automata is None:
        return mass_B
    return mass_B + Posterior(lifted_BLV, plan.automata, plan.start_B, plan.terminal_S, known_BL).log_z


def _write(plan: Plan, canvas: Canvas, at: Transition, look: _Look, shift_BLD: Tensor | None = None) -> Snapshot:
    """Step towards what the model alone says, shifted; the prediction beside it is conditioned on the wish."""
    diagnostics = Diagnostics() if plan.diagnose else None
    prediction, shifted_BLV = predict(plan, canvas, at, look.logits_BLV, diagnostics)
    own_law = _own_law(plan, canvas, look.logits_BLV)
    own = replace(prediction, law=own_law, choice=None, shift_BLD=shift_BLD)
    return Snapshot(
        at=at,
        before=canvas,
        after=plan.denoiser.process.step(canvas, own, at, plan.rule),
        prediction=prediction,
        logits_BLV=shifted_BLV,
        diagnostics=diagnostics,
        calls=look.calls,
        carry=look.carry,
    )


def _own_law(plan: Plan, canvas: Canvas, logits_BLV: Tensor) -> Factors:
    """Return the model's own factors, without any wish."""
    return Factors(plan.truncation.apply(logits_BLV), plan.denoiser.process.known(canvas))


def _pulls(plan: Plan) -> bool:
    """Whether there is a wish that has a gradient."""
    return plan.automata is not None or plan.guide.bias is not None or plan.guide.energy is not None


def _below_noise(plan: Plan, at: Transition) -> Transition:
    """Return the step, or where it begins at pure noise, one that begins half as far down."""
    if at.alpha_t > 0.0:
        return at
    t = 0.5 * (at.t + at.s)
    return replace(at, t=t, alpha_t=plan.denoiser.process.schedule(t))


def _gaussian(plan: Plan) -> GaussianProcess:
    assert isinstance(plan.denoiser.process, GaussianProcess)  # check() looked
    return plan.denoiser.process


def _one_hot(known_BL: Tensor, like_BLV: Tensor) -> Tensor:
    return torch.zeros_like(like_BLV).scatter(-1, known_BL.clamp_min(0)[..., None], 1.0)


def latents_of(canvas: Canvas) -> Tensor:
    """Return the canvas's latents, float `[B, L, D]`."""
    if canvas.latents_BLD is None:
        raise ValueError("A canvas has latents once the process's start() was called.")
    return canvas.latents_BLD


def _check_number(value: object, owner: str, name: str) -> None:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not (0 <= float(value) < math.inf):  # type: ignore[arg-type]
        raise InvalidRequest(f"{owner}: {name}={value!r} must be a finite number, at least 0.")


LATENT_GUIDANCE: dict[str, LatentGuidance] = {"score": ScoreGuidance(), "diffusion-lm": DiffusionLM()}


def latent_guidance_of(
    name: str | LatentGuidance | None, process: Process, wished: bool = True
) -> LatentGuidance | None:
    """Return the latent guidance of that name, or the object itself, or None, checked against the model's process.

    `wished` says whether any row has a constraint.

    Raises:
        UnknownName: nobody knows the name; the message suggests near ones.
        InvalidRequest: it is neither a name nor a `LatentGuidance`, the process cannot be guided like this, or there is
            nothing to guide towards.
    """
    if name is None:
        return None
    if not isinstance(name, str | LatentGuidance):
        raise InvalidRequest(
            f"latent_guidance={name!r}: give one of {sorted(LATENT_GUIDANCE)}, a ScoreGuidance, a DiffusionLM, or None."
        )
    if isinstance(name, str) and name not in LATENT_GUIDANCE:
        near = difflib.get_close_matches(name, LATENT_GUIDANCE, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownName(f"There is no latent guidance {name!r}.{hint} Choose one of {sorted(LATENT_GUIDANCE)}.")
    guidance = LATENT_GUIDANCE[name] if isinstance(name, str) else name
    guidance.check(process)
    if not wished:
        raise InvalidRequest(
            f"latent_guidance={name!r} pulls towards a constraint, and there is nothing to guide towards: give a "
            "constraint, or leave it out."
        )
    return guidance
