"""The dynamics of the weights between batches: decay towards the prior mean and process noise."""

from __future__ import annotations

from dataclasses import dataclass

from bayes_clip.errors import UserError


@dataclass(frozen=True)
class StateSpace:
    """θ_k = m₀ + γ (θ_{k−1} − m₀) + w_k, w_k ~ N(0, q P₀); one step is one batch.

    `decay` γ lies in (0, 1]; `process_noise` q is a multiple of the prior covariance. Unless given it is
    1 − γ², which keeps the prior stationary. γ = 1 and q = 0 is the static model, where the order of the
    data does not matter to the exact posterior.

    Raises:
        UserError: decay outside (0, 1], or negative process noise.
    """

    decay: float = 1.0
    process_noise: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise UserError(f"--decay {self.decay:g}: must lie above 0 and not above 1 (1 is no forgetting)")
        if self.process_noise is not None and not 0 <= self.process_noise < float("inf"):
            raise UserError(f"--process-noise {self.process_noise:g}: must be 0 or a positive number")

    @property
    def noise(self) -> float:
        """q: the process noise as a multiple of the prior covariance."""
        return 1 - self.decay**2 if self.process_noise is None else self.process_noise

    @property
    def is_static(self) -> bool:
        """Whether nothing changes between batches."""
        return self.decay == 1 and self.noise == 0
