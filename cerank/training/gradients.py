"""The gradient of a step's loss, within a bound of tokens that go through the model at once.

Invariant: the bound changes rounding alone: groups stay whole for their loss, and dropout is drawn the same however
often a pair goes through the model. On a CPU bits depend on the number of threads, never on which of them is faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cerank.core.groups import Group
from cerank.core.seeds import derive
from cerank.kernels.dropout import drawing
from cerank.kernels.parallel import side_by_side
from cerank.models.forward_pass import Forward
from cerank.recipes.schema import Stage
from cerank.tokenization.tokens import Pair, Tokens, batches_by_length
from cerank.training.losses import Loss

HALVINGS = 4  # of the bound, before a run gives up: a sixteenth that does not fit means that something else is wrong
_MOST_SHARES = 4  # of a pass, in threads of their own
_SHARES_ROOM = 1 << 30  # bytes: each share has gradients of all weights for itself until they are summed
_LEAST_SHARE = 256  # tokens: of fewer, what a pass costs whatever its length would be most of its time


class Rows(msgspec.Struct, frozen=True):
    """Groups that share a backward pass, with their pairs one after another."""

    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all pairs."""
        return sum(len(pair.ids) for pair in self.pairs)


def rows_of(tokens: Tokens, groups: Sequence[Group]) -> list[Rows]:
    """Each group with its pairs; `tokens` knows all texts."""
    return [Rows((group,), tuple(tokens.pair(group.query_id, doc) for doc in group.doc_ids)) for group in groups]


class Gradients:
    """Adds the gradients of a stage's steps.

    Args:
        name: of the stage, with `seed` the source of dropout.
        stage: its settings.
        seed: the run's.
        loss: the stage's.
        device: where the model is.
    """

    def __init__(self, name: str, stage: Stage, seed: int, loss: Loss, device: torch.device) -> None:
        self._name, self._stage, self._seed, self._loss, self._device = name, stage, seed, loss, device
        self.microbatch = stage.microbatch  # tokens through the model at once; halved where memory is short

    @property
    def narrowed(self) -> int:
        """The bound where it is no longer the stage's own; else 0."""
        return 0 if self.microbatch == self._stage.microbatch else self.microbatch

    def narrow(self) -> bool:
        """Halves the bound; False where it was halved `HALVINGS` times before."""
        if self._stage.microbatch // self.microbatch >= 2**HALVINGS or self.microbatch < 2:
            return False
        self.microbatch //= 2
        return True

    def add(self, forward: Forward, rows: Sequence[Rows], step: int) -> float:
        """Adds the gradient of the mean loss over the groups of `rows` to the parameters; returns that mean.

        With `mean_over = "pairs"` a group weighs as many times as it has pairs of a better and a worse candidate, so
        that the mean is that over all such pairs of the step.
        """
        is_pooled = self._stage.mean_over == "pairs"
        groups = [group for one in rows for group in one.groups]
        whole = (sum(group.pairs for group in groups) or 1) if is_pooled else len(groups)
        total = 0.0
        for index, part in enumerate(self._parts(rows)):
            weights = [float(group.pairs) if is_pooled else 1.0 for group in part.groups]
            total += self._add_part(forward, part, torch.tensor(weights, device=self._device) / whole, (step, index))
        return total

    def _parts(self, rows: Sequence[Rows]) -> list[Rows]:
        """Rows in order, cut where the next ones would exceed the bound; those that do so alone stand alone."""
        parts: list[Rows] = []
        for new in rows:
            if parts and parts[-1].tokens + new.tokens <= self.microbatch:
                parts[-1] = Rows(parts[-1].groups + new.groups, parts[-1].pairs + new.pairs)
            else:
                parts.append(new)
        return parts

    def _add_part(self, forward: Forward, rows: Rows, weights: Tensor, place: tuple[int, int]) -> float:
        """Adds the gradient of the weighted sum of these groups' losses; returns that sum."""
        lengths = [len(pair.ids) for pair in rows.pairs]
        shares = self._shares(forward, lengths)
        if len(shares) > 1:
            return self._add_shared(forward, rows, weights, place, shares)
        cuts = batches_by_length(lengths, self.microbatch)
        if len(cuts) == 1 or rows.tokens <= self.microbatch:
            with forward.scoring() as score:
                parts = []
                for number, cut in enumerate(cuts):
                    self._draw_dropout(place, number)
                    parts.append(score([rows.pairs[at] for at in cut]))
            total = self._total(_in_order(parts, cuts), rows.groups, weights)
            total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return float(total.detach())
        return self._add_twice(forward, rows, weights, place, cuts)

    def _shares(self, forward: Forward, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of pairs in shares, one a thread; one share, or none, where threads gain nothing.

        They are dealt by length, there and back: each share gets as many tokens as the others, and as many lengths,
        each of which costs calls of its own.
        """
        total = sum(lengths)
        if total > self.microbatch or not forward.has_own_graphs:
            return []
        fitting = 1 + _SHARES_ROOM // max(1, sum(weight.nbytes for weight in forward.trained))
        wanted = max(1, min(torch.get_num_threads(), _MOST_SHARES, fitting, total // _LEAST_SHARE, len(lengths)))
        line = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
        rounds = [line[start : start + wanted] for start in range(0, len(line), wanted)]
        dealt = [part if number % 2 == 0 else part[::-1] for number, part in enumerate(rounds)]
        return [[part[at] for part in dealt if at < len(part)] for at in range(wanted)]

    def _add_shared(
        self, forward: Forward, rows: Rows, weights: Tensor, place: tuple[int, int], shares: list[list[int]]
    ) -> float:
        """The same, each share there and back in a thread of its own; their gradients are summed in their order.

        Threads that compute one product together wait for each other after each: on two cores a step of 32 pairs took
        1.3 times as long so.
        """
        inner = max(1, torch.get_num_threads() // len(shares))
        trained = forward.trained
        scores: list[Tensor] = [weights] * len(shares)
        gradients: list[Sequence[Tensor | None]] = [()] * len(shares)

        def there(number: int) -> None:
            with drawing(derive(self._seed, "dropout", self._name, *place, number)), forward.scoring() as score:
                scores[number] = score([rows.pairs[at] for at in shares[number]])

        def back(number: int) -> None:
            wanted = given[torch.tensor(shares[number])]
            gradients[number] = torch.autograd.grad(scores[number], trained, wanted, allow_unused=True)

        side_by_side(there, range(len(shares)), inner)
        flat = _in_order([part.detach() for part in scores], shares).requires_grad_()
        total = self._total(flat, rows.groups, weights)
        (given,) = torch.autograd.grad(total, flat)
        side_by_side(back, range(len(shares)), inner)
        _add_to(trained, gradients)
        return float(total.detach())

    def _add_twice(
        self, forward: Forward, rows: Rows, weights: Tensor, place: tuple[int, int], cuts: list[list[int]]
    ) -> float:
        """The same for a group that is too large to go through at once.

        All scores first, without a graph; then the loss's gradient with respect to them; then each part again, with a
        graph and the same dropout, which takes its share of that gradient on. Source: Gao et al., "Scaling Deep
        Contrastive Learning Batch Size under Memory Limited Setup" (GradCache), RepL4NLP 2021, section 3.
        """
        parts = []
        with torch.no_grad(), forward.scoring() as score:
            for number, cut in enumerate(cuts):
                self._draw_dropout(place, number)
                parts.append(score([rows.pairs[at] for at in cut]))
        flat = _in_order(parts, cuts).requires_grad_()
        total = self._total(flat, rows.groups, weights)
        (wanted,) = torch.autograd.grad(total, flat)
        for number, cut in enumerate(cuts):
            self._draw_dropout(place, number)
            with forward.scoring() as score:
                again = score([rows.pairs[at] for at in cut])
            again.backward(wanted[torch.tensor(cut, device=self._device)])  # type: ignore[no-untyped-call]
        return float(total.detach())

    def _draw_dropout(self, place: tuple[int, int], number: int) -> None:
        torch.manual_seed(derive(self._seed, "dropout", self._name, *place, number))

    def _total(self, flat: Tensor, groups: Sequence[Group], weights: Tensor) -> Tensor:
        """The weighted sum of the groups' losses, from the scores of their pairs one after another."""
        scores = pad_sequence(list(torch.split(flat, [len(group) for group in groups])), batch_first=True)
        labels = pad_sequence([torch.tensor(group.labels, dtype=torch.float32) for group in groups], batch_first=True)
        mask = pad_sequence([torch.ones(len(group), dtype=torch.bool) for group in groups], batch_first=True)
        return (self._loss(scores, labels.to(self._device), mask.to(self._device)) * weights).sum()


def _in_order(parts: Sequence[Tensor], cuts: Sequence[Sequence[int]]) -> Tensor:
    """Scores of cut-up pairs in the order of the pairs."""
    place = torch.argsort(torch.tensor([at for cut in cuts for at in cut]))
    flat = torch.cat(list(parts))
    return flat[place.to(flat.device)]


@torch.no_grad()
def _add_to(trained: Sequence[Tensor], gradients: Sequence[Sequence[Tensor | None]]) -> None:
    """Adds gradients of each share to those of the parameters, one share after another."""
    for part in gradients:
        met = [(own, found) for own, found in zip(trained, part, strict=True) if found is not None]
        sums = [own.grad for own, _ in met if own.grad is not None]
        if sums:
            torch._foreach_add_(sums, [found for own, found in met if own.grad is not None])
        for own, found in met:
            if own.grad is None:
                own.grad = found
