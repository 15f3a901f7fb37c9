"""Rhythm beside the queues and engines that can be had from PyPI and npm, in one run on one server."""
