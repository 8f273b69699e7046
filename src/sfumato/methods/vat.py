"""VAT, virtual adversarial training (Miyato et al. 2018, arXiv:1704.03976), with entropy minimization.

    L = L_x + lambda_u r(k) mean KL(p(u) || p(u + r)) + lambda_e mean H(p(u))      r = epsilon g / |g|

g is the gradient of KL(p(u) || p(u + xi d)) by a random direction d of norm 1: the direction in which the prediction
for this image changes fastest (eq. 9-12). p(u) is held constant in the KL, and has gradient in the entropy H.

Norms are L2 norms of a whole image, of as many entries as it has, after the normalization of the inputs. Such an image
of D entries has a norm of about sqrt(D): 55 for 3 x 32 x 32, of which epsilon=6 is 11 %, but 388 for 3 x 224 x 224.
For larger images raise epsilon with sqrt(D). xi=1e-2 is where float32 gives the direction of float64 (cosine above
0.999); the 1e-6 of the released code and of a peer is lost in rounding (0.14). So g is computed in float32 or better
under autocast too, by a gradient of the input alone.

Batch norm: the unlabeled images go through apart from the labeled ones, and both move the running statistics. u + xi d
and u + r go through apart as well, normalized by their own statistics, which leave no trace.

Dropout: none in all that is compared, p(u), p(u + xi d) and p(u + r), so that the unlabeled images have none. Their
differences would else be those of the masks, which a small step has no part in: so measured, the direction has a cosine
near 0 to the one without dropout. The labeled images have it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.functional.adversarial import adversarial_direction, normal
from sfumato.functional.divergence import kl
from sfumato.functional.probability import log_probability, probability
from sfumato.functional.reduce import mean
from sfumato.methods.base import Method
from sfumato.rules import Ramp
from sfumato.types import Batch, Losses, Networks, Progress, Pseudo, Unlabeled, ViewSpec


class VAT(Method):
    def __init__(
        self,
        *,
        epsilon: float,
        xi: float,
        iterations: int,
        lambda_u: float,
        lambda_entropy: float,
        ramp: float,
        labeled_strong: bool,
    ) -> None:
        super().__init__()
        for name, value in (("epsilon", epsilon), ("xi", xi), ("iterations", iterations)):
            if value <= 0:
                raise UsageError(f"vat({name}={value}): expected a number above 0.")
        self.epsilon, self.xi, self.iterations = epsilon, xi, iterations
        self.lambda_u, self.lambda_entropy = Ramp(0.0, lambda_u, over=ramp), lambda_entropy
        self.views = ViewSpec(strong=0, weak_gradient=True, labeled_strong=labeled_strong)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        out = nets.forward(batch, replace(self.views, weak=False))
        supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong)
        u = batch.unlabeled
        if u is None:
            return Losses(supervised, torch.zeros_like(supervised))
        # In full precision: the direction is by what a small step changes in these very logits.
        with torch.autocast(u.weak.device.type, enabled=False):
            logits = nets.further(u.weak, dropout=False).logits
            r = self.epsilon * self.direction(nets, u, logits)
        p, log_p = probability(logits), log_probability(logits)
        pseudo = Pseudo(p.detach(), torch.ones_like(u.valid), u.valid)
        entropy = -(p * log_p).sum(dim=1)  # from log p, whose gradient is finite where p is 0
        misled = nets.further(u.weak + r, statistics=False, dropout=False).logits
        adversarial = mean(kl(misled, pseudo.target), over=u.valid)
        extras = {"entropy": self.lambda_entropy * mean(entropy, over=u.valid)}
        return Losses(supervised, self.lambda_u(progress) * adversarial, extras, pseudo)

    def direction(self, nets: Networks, u: Unlabeled, logits: Tensor) -> Tensor:
        """g / |g| for each weak view (N, ...), of which `logits` are the student's."""
        noise = normal(u.draw("adversarial direction", u.weak[0].numel())).view_as(u.weak).to(u.weak.dtype)
        return adversarial_direction(
            lambda x: nets.further(x, statistics=False, dropout=False).logits,
            u.weak,
            noise,
            step=self.xi,
            iterations=self.iterations,
            valid=u.valid,
            logits=logits,
        )


def vat(
    *,
    epsilon: float = 6.0,
    xi: float = 1e-2,
    iterations: int = 1,
    lambda_u: float = 1.0,
    lambda_entropy: float = 0.06,
    ramp: float = 0.4,
    labeled_strong: bool = False,
) -> VAT:
    """The student is to predict the same for the change of an image that would mislead it most.

    Args:
        epsilon: L2 norm of the change, in units of the normalized input; see above for images larger than 32 x 32.
        xi: norm of the step by which the direction is measured.
        iterations: of the power method, each a forward and a backward pass.
        lambda_u: weight of the adversarial term.
        lambda_entropy: of the entropy of the predictions, not ramped; 0 is VAT without entropy minimization.
        ramp: share of training over which lambda_u rises from 0, linearly; 0 for a constant one, as in the paper.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: a size or number of iterations that is not positive.
    """
    return VAT(
        epsilon=epsilon,
        xi=xi,
        iterations=iterations,
        lambda_u=lambda_u,
        lambda_entropy=lambda_entropy,
        ramp=ramp,
        labeled_strong=labeled_strong,
    )
