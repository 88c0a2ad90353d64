"""Our CPU encoder: weights, quantisation, graphs, vocabulary, and the C kernels."""
