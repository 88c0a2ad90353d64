"""How good it is: rankings, answers, tasks and forms against what is known."""
