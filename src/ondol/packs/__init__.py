"""The packs that come with Ondol: declarations, and what their fields bring."""
