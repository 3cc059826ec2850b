"""The sections of a configuration, each with what makes it unusable."""
