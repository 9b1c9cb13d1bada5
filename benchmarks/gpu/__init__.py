"""What is claimed of one GPU, checked and measured: `make bench-gpu`, or `python -m benchmarks.gpu --out TABLE.md`.

Runs wherever the worker's code does, with torch, torchvision, NumPy, pydantic and xxhash: neither Ray nor W&B, Polars
or click is imported. Without FFCV, rows that need it say so. Its data are made up on the machine.
"""
