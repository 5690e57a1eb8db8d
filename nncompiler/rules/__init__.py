"""Takes one node, gives a simpler one of equal value: what `simplify` applies."""
