"""Chat in the terminal and answers to whole data sets: `run.run(args)`."""
