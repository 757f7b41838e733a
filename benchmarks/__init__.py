"""Experiments as commands: tables that are run, kept as data, and written into the docs.

python -m benchmarks list
python -m benchmarks run TABLE --data DIR --weights DIR [--rows ROW ...] [--sets SET ...] [--seeds N ...]
python -m benchmarks bench | startup
python -m benchmarks hints --data DIR --weights DIR [--sets SET ...] [--kinds KIND ...] [--shares SHARE ...]
python -m benchmarks render [--check]
"""
