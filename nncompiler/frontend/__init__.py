"""Takes networkx graphs, gives graphs of the IR: what a network computes and learns."""
