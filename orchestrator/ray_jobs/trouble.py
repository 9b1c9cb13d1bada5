"""What goes wrong between here and a Ray cluster, told as a ConnectionError that helps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class RayJobError(ConnectionError):
    """The cluster cannot be reached or refuses; the message says what to do."""


class UnknownJobError(RayJobError):
    """The cluster does not know the job (any more)."""


@contextmanager
def told(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into a RayJobError with the remedy."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except RayJobError:
        raise
    except AuthenticationError as error:
        raise RayJobError(_token_trouble(address, str(error))) from None
    except requests.exceptions.SSLError as error:
        raise RayJobError(
            f"{address}: its certificate is not accepted ({_reason(error)}). Set REQUESTS_CA_BUNDLE to the file of the "
            "authority that signed it, or use http://"
        ) from None
    except (OSError, KeyError) as error:  # requests' own among them
        raise RayJobError(_unreachable(address, error)) from None
    except RuntimeError as error:
        raise _refusal(address, str(error)) from None


def _token_trouble(address: str, text: str) -> str:
    if "Authentication failed" in text:
        what = "refuses the token that was sent"
    else:
        what = "asks for a token, and none was sent"
    return (
        f"the cluster at {address} {what}. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to what `ray get-auth-token` "
        "prints on its head (or keep it in ~/.ray/auth_token). What a proxy before it asks for goes into "
        'RAY_JOB_HEADERS, as JSON: {"X-Name": "value"}'
    )


def _unreachable(address: str, error: Exception) -> str:
    """Why there was no answer, or none of a dashboard."""
    import requests

    cause = error.__context__ if isinstance(error.__context__, requests.exceptions.RequestException) else error
    text = str(cause)
    if "ray client connection" in text.lower():
        return (
            f"no Ray Client server answers at {address}, or it does not accept the token in RAY_AUTH_TOKEN. Its port "
            "is 10001 of a head (--ray-client-server-port). The dashboard, http://head:8265, tells more and is simpler"
        )
    silent = "Max retries exceeded" in text or "timed out" in text
    if silent and not isinstance(cause, requests.exceptions.HTTPError):
        return (
            f"no Ray dashboard answers at {address}: {_reason(cause)}. Start the head with `ray start --head "
            "--dashboard-host=0.0.0.0` (it needs ray[default]), or forward its port 8265 to here"
        )
    reason = "it speaks no HTTP" if "BadStatusLine" in text else _reason(cause)
    return (
        f"what answers at {address} is no Ray dashboard ({reason}). Of a head's ports, the dashboard's is 8265 "
        "(--dashboard-port); 6379 and 10001 speak other protocols, and ray://head:10001 is the way to the latter"
    )


def _refusal(address: str, text: str) -> RayJobError:
    if "status code 404" in text and "does not exist" in text:
        return UnknownJobError(
            f"the cluster at {address} does not know the job: {_reason(text)}. A head that was started anew has "
            "forgotten its jobs; launch again to go on from storage"
        )
    if "status code 404" in text or "returned 404" in text:
        return RayJobError(
            f"the dashboard at {address} has no job API: install ray[default] on the cluster's nodes and start them "
            "anew"
        )
    if "ersion mismatch" in text or "ersion of Ray" in text:
        return RayJobError(
            f"{address}: {_reason(text)}. Ray Client needs the same versions on both sides; the dashboard does not: "
            "give http://head:8265"
        )
    return RayJobError(f"the cluster at {address} refused: {_reason(text)}")


def _reason(error: object) -> str:
    """The last line of an error that says something, shortened; traces come with it."""
    if getattr(error, "args", None) and getattr(error.args[0], "reason", None):  # type: ignore[attr-defined]
        error = error.args[0].reason  # type: ignore[attr-defined]
    status, page = re.search(r"status code (\d+)", text := str(error)), re.search(r"(?i)<(!doctype|html)", text)
    if status and page:  # of a proxy
        title = re.search(r"(?is)<title>(.*?)</title>", text)
        return " ".join(f"HTTP status {status[1]}: {title[1] if title else 'a page'}, by a proxy".split())[:300]
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]  # Ray puts a full stop after a trace
    return (lines[-1] if lines else type(error).__name__)[:300].rstrip(".")
