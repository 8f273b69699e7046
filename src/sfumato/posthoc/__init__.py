"""What is fitted on held-out predictions after training: the network itself is left alone."""
