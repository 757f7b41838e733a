"""`hintseg cache`."""

from __future__ import annotations

from typing import Annotated

import typer

from hintseg.errors import ConfigError

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all features; runs make them again.")] = False,
    limit: Annotated[str, typer.Option(help="Space that they may take from now on, such as 20GB.")] = "",
) -> None:
    """Show, clear or bound the features of photos that frozen networks (backbone.freeze=all) gave, and all runs share.

    They lie in the folder of the environment variable HINTSEG_CACHE, else in your cache folder.
    """
    size = parse_size(limit) if limit else None
    from hintseg.features.cache import FeatureCache

    kept = FeatureCache()
    if clear:
        gone = kept.clear()
        typer.echo(f"deleted: {gone.files} files, {words(gone.bytes)}")
    if size is not None:
        kept.limit = size
    usage = kept.usage()
    typer.echo(f"place: {kept.root}")
    typer.echo(f"features: {usage.files} files, {words(usage.bytes)} of at most {words(kept.limit)}")
    typer.echo("next: `hintseg cache --clear` frees the space, `hintseg cache --limit 20GB` bounds it")


def parse_size(text: str) -> int:
    """Return the bytes that a size such as ``20GB`` or ``500 MB`` means.

    Raises:
        ConfigError: It is no size.

    Example:
        >>> parse_size("1.5GB"), parse_size("500 mb")
        (1500000000, 500000000)
    """
    number, unit = text.strip()[:-2].strip(), text.strip()[-2:].upper()
    try:
        size = int(float(number) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size <= 0:
        raise ConfigError(f"--limit {text} given, a number with KB, MB, GB or TB is needed, such as 20GB")
    return size


def words(size: int) -> str:
    """Return a number of bytes for people.

    Example:
        >>> words(1_530_000_000), words(12)
        ('1.5 GB', '0.0 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
