"""The flow language: compiler and run time, usable without a database.

    front end   source text -> IR        lexer, parser, resolver, lower
    run time    IR -> running program    codegen, values, promises, builtins, snapshot, boundary

`rhythm.engine` is the door to both; nothing here knows about asyncio, files, sockets or Postgres.
"""
