"""Texts that are shown, without the passwords of the URLs in them."""

import re

__all__ = ["without_secrets"]

_URL = re.compile(r"[\w+.-]+://[^\s'\"]+")
_USER = re.compile(r"(://[^/\s:@]*:).*@")
_QUERY = re.compile(
    r"((?:[?&;]|%3B|%26|%3D|%7B)[\w-]*(?:pass(?:word|wd|phrase)?|pwd|token|secret|key|credentials?|signature)(?:=|%3D))"
    r"(?:(?!%3B|%26)[^&;#])*",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A text in which passwords and tokens of URLs are replaced by three stars.

    Parameters
    ----------
    text : str

    Returns
    -------
    str

    Examples
    --------
    >>> without_secrets("kept in postgresql://anna:s3cret@host/study?sslpassword=x&timeout=5")
    'kept in postgresql://anna:***@host/study?sslpassword=***&timeout=5'
    """
    return _URL.sub(lambda url: _QUERY.sub(r"\1***", _USER.sub(r"\1***@", url[0])), text)
