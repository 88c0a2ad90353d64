"""The ondol command."""
