"""Takes a model, gives a picture of its graph as SVG, written without any other program."""
