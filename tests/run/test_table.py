"""Metrics as rows for people."""

from typing import Any

from sfumato.run.table import row


def metrics(criterion: str, **test: float) -> dict[str, Any]:
    return {"criterion": criterion, "test": test, "test_calibrated": {"ece": 0.01}, "val": {}, "seconds": 3.0} | {
        "collapse": None
    }


def test_a_row_of_masks_shows_the_rare_classes_and_the_calibration() -> None:
    runs = [metrics("miou", miou=x, miou_rare=x / 4, ece=0.05, nll=0.5) for x in (0.4, 0.6)]
    found = row("fixmatch", runs)
    assert dict(zip(found.columns(), found.cells(), strict=True)) == {
        "mIoU %": "50.0 ± 14.1",
        "mIoU, rare %": "12.5 ± 3.5",
        "ECE %": "5.0 ± 0.0",
        "ECE % scaled": "1.0 ± 0.0",
        "NLL": "0.50 ± 0.00",
        "seconds": "3 ± 0",
    }


def test_a_row_of_labels_shows_the_accuracy() -> None:
    found = row("fixmatch", [metrics("acc", acc=0.9, balanced_acc=0.8, ece=0.05, nll=0.5)])
    assert found.columns() == ["accuracy %", "ECE %", "ECE % scaled", "NLL", "seconds"]
    assert found.cells() == ["90.0", "5.0", "1.0", "0.50", "3"]
