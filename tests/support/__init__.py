"""What several test folders share. Import it as `tests.support`."""
