"""Takes a model and the name of one of its parts, gives the derivative of the loss as formulas."""
