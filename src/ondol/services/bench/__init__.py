"""``ondol bench``: the speed, memory and fidelity of what serves, beside a named baseline."""
