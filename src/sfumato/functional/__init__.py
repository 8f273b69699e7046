"""Pure formulas: tensors in, tensors out. Class axis 1, space after it; no state, configuration, device or logging."""
