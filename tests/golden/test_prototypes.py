import torch

from sfumato.functional.prototypes import attraction, class_means, feature_sums, unit
from sfumato.rules import PrototypeAttraction
from sfumato.types import Batch, Output, Pseudo, Unlabeled, Views


def given(golden):
    want = {key: torch.from_numpy(value) for key, value in golden("prototypes_00").items() if value.shape}
    return want, golden("prototypes_00")


def test_functions(golden):
    want, numbers = given(golden)
    selected = (want["weight"] > float(numbers["threshold"])).double()
    assert torch.equal(selected > 0, want["selected"])
    sums, counts = feature_sums(want["features"], want["label"], selected, len(want["count"]))
    assert torch.equal(counts.long(), want["count"])
    prototypes = class_means(sums, counts)
    torch.testing.assert_close(prototypes, want["prototypes"], rtol=0, atol=1e-9)
    units, _ = feature_sums(unit(want["features"]), want["label"], selected, len(counts))
    loss = attraction(class_means(units, counts), prototypes, counts > 0)
    assert abs(float(loss) - float(numbers["loss_mean_over_present_classes"])) < 1e-9
    assert abs(float(loss) * 5 / 6 - float(numbers["loss_divided_by_C"])) < 1e-9  # the literal one: absent counts as 0


def test_rule(golden):
    want, numbers = given(golden)
    rule = PrototypeAttraction(len(want["count"]), weight=2.0)
    rule.selected = want["selected"].double()
    views = Views(Output(want["features"]), strong=(Output(want["features"], want["features"]),))
    batch = Batch(None, Unlabeled(want["features"], (want["features"],), torch.ones(200), torch.arange(200)))
    loss = rule(views, batch, Pseudo(want["label"], want["weight"], torch.ones(200).double()), None)
    assert abs(float(loss) - 2 * float(numbers["loss_mean_over_present_classes"])) < 1e-9
