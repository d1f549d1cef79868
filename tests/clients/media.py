"""A body that is a token and not JSON (RFC 8935) goes out as it is."""

import schemathesis


@schemathesis.serializer("application/secevent+jwt")
def security_event(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
