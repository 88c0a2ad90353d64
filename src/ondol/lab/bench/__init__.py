"""How fast it is: encoders, the generator, and a server under load."""
