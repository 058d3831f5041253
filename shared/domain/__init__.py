"""Pure words and rules: models, enums and errors. No I/O, no clock, no environment."""
