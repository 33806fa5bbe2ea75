"""Numbers of components per proposal, laid out on one flat axis.

Paper: Section 4, "we set the number of Gaussian masks E_p to k"; Table 4a varies it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pps_fast.config import ProposalsConfig


@dataclass(frozen=True)
class MixtureLayout:
    """The components of all proposals on one flat axis E: those of proposal 0, then those of proposal 1, ...

    Attributes:
        components_per_proposal: n_k >= 1 for each of the K proposals.
    """

    components_per_proposal: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.components_per_proposal or min(self.components_per_proposal) < 1:
            raise ValueError(
                f"components_per_proposal = {self.components_per_proposal}: expected one or more counts of at least 1"
            )

    @property
    def num_proposals(self) -> int:
        """K."""
        return len(self.components_per_proposal)

    @property
    def num_components(self) -> int:
        """E."""
        return sum(self.components_per_proposal)

    @property
    def group(self) -> tuple[int, ...]:
        """Proposal of each component, [E]."""
        return tuple(k for k, count in enumerate(self.components_per_proposal) for _ in range(count))

    @property
    def offsets(self) -> tuple[int, ...]:
        """First component of each proposal and E at the end, [K + 1]."""
        starts = [0]
        for count in self.components_per_proposal:
            starts.append(starts[-1] + count)
        return tuple(starts)

    @property
    def mixed(self) -> tuple[int, ...]:
        """Indices of the components in proposals of more than one; the importance of the others is 1."""
        return tuple(e for e, k in enumerate(self.group) if self.components_per_proposal[k] > 1)


def ramp(num_proposals: int) -> MixtureLayout:
    """Proposal k of 1..K has k components (the paper's choice)."""
    return MixtureLayout(tuple(range(1, num_proposals + 1)))


def uniform(num_proposals: int, components: int) -> MixtureLayout:
    """Every proposal has the same number of components."""
    return MixtureLayout((components,) * num_proposals)


# by the names of `config.LayoutKind`
LAYOUTS = {
    "ramp": lambda config: ramp(config.num_proposals),
    "uniform": lambda config: uniform(config.num_proposals, config.components_per_proposal),
}


def layout_of(config: ProposalsConfig) -> MixtureLayout:
    """Returns the layout a config asks for."""
    return LAYOUTS[config.layout](config)
